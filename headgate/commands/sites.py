"""`headgate sites`: the participants of a federation, their data, and how alike they are."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from broker_bridge.settings import load, validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command, add_login, number_to, said_of_broker
from headgate.running import run_service
from uns_topics.topics import ROOT, FlTopic, Kind, TopicError

if TYPE_CHECKING:
    from headgate.demo.watch import View

_SAID = (Kind.STATUS, Kind.STATISTICS, Kind.DATA_QUALITY)
FILE_WIDTH = 100
"""Columns where the output is no terminal."""
_seconds = number_to(3600, "not a number of seconds from 0 to 3600")
_share = number_to(1, "not a distance from 0 to 1")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "sites",
        "List a federation's sites: state, rows, labels, last seen, data quality; and how alike their data are.",
        (
            "headgate sites --config aggregator.yaml --similarity",
            "headgate sites --broker mqtt://enterprise --federation solder-defect --json",
        ),
        run_sites,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the aggregator's configuration: broker and store")
    parser.add_argument("--broker", metavar="URL", help="without --config: a broker that carries the federation")
    parser.add_argument("--federation", metavar="NAME", help="without --config: which federation")
    add_login(parser)
    parser.add_argument("--seconds", type=_seconds, default=2.0, help="how long to listen (default 2)")
    parser.add_argument("--features", action="store_true", help="each feature over all sites, from their statistics")
    parser.add_argument("--similarity", action="store_true", help="distances between sites, and groups of alike ones")
    parser.add_argument(
        "--threshold", type=_share, metavar="X", help="distance below which sites are alike (default 0.05)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run_sites(arguments: argparse.Namespace) -> int:
    """`headgate sites`."""
    from aggregator.similarity import THRESHOLD, similarity  # numpy takes its time to import
    from aggregator.statistics import overview
    from headgate import sites

    broker, federation, last_seen = _where(arguments)
    from headgate.demo.watch import View

    view = View(federation, "score", time.monotonic())
    code = run_service(lambda stop: _listen(broker, view, last_seen, arguments.seconds, stop))
    if code != Exit.OK:
        return code
    if not view.participants and not last_seen:
        raise CommandError(f"no site of {federation} was heard of at {broker.url}", Exit.NOT_FOUND)
    contract = view.plan.contract if view.plan is not None else None
    heartbeat_s = view.plan.heartbeat_s if view.plan is not None else None
    lines = sites.sites_of(view.participants, contract, last_seen, heartbeat_s)
    threshold = arguments.threshold or THRESHOLD
    told = {name: known.statistics for name, known in view.participants.items()}
    if contract is None and (arguments.similarity or arguments.features):
        raise CommandError(f"{federation} has no plan at {broker.url}: without it statistics mean nothing")
    found = similarity(contract, told, threshold) if contract is not None and arguments.similarity else None
    features = None
    if contract is not None and arguments.features:
        features = overview(contract, [one for one in told.values() if one is not None])
    if arguments.json:
        print(json.dumps(sites.as_json(lines, federation, features, found, threshold)))
        return Exit.OK
    console = Console(highlight=False)
    width = console.width if console.is_terminal else FILE_WIDTH
    console.print(sites.sites_table(lines, width), width=width)
    if features is not None:
        console.print()
        console.print(sites.features_table(features), width=width)
    for part in sites.similarity_parts(found, threshold) if found is not None else ():
        console.print()
        console.print(part, width=width, markup=False)
    return Exit.OK


def _where(arguments: argparse.Namespace) -> tuple[BrokerConfig, str, dict[str, float]]:
    """Broker, federation, and seconds since each participant was heard by the aggregator. Raises: CommandError."""
    if arguments.config is None:
        if arguments.broker is None or arguments.federation is None:
            raise CommandError("name --config, or --broker and --federation", Exit.USAGE)
        broker = validate(BrokerConfig, said_of_broker(arguments), "command line")
        try:
            FlTopic(arguments.federation, Kind.PLAN)
        except TopicError as error:
            raise CommandError(str(error), Exit.USAGE) from None
        return broker, arguments.federation, {}
    if arguments.broker is not None or arguments.federation is not None:
        raise CommandError("--config names broker and federation already", Exit.USAGE)
    from aggregator.config import AggregatorConfig
    from aggregator.store import Store, StoreError, has_file, url_of

    config = load(AggregatorConfig, arguments.config)
    if not has_file(config):
        return config.broker, config.federation, {}
    try:
        store = Store(url_of(config))
    except StoreError as error:
        raise CommandError(f"{arguments.config}: {error}") from None
    try:
        state = store.load()
    finally:
        store.close()
    known = state.presence.items() if state is not None else ()
    now = time.time()  # the aggregator's clock starts from it
    return config.broker, config.federation, {name: max(0.0, now - presence.seen) for name, presence in known}


async def _listen(
    broker: BrokerConfig, view: View, last_seen: dict[str, float], seconds: float, stop: asyncio.Event
) -> int:
    """Take in what stands on the broker; what is heard live was seen now."""

    def on_message(message: Message) -> None:
        view.on_message(message)
        if not message.retain and (name := _status_of(message.topic)) is not None:
            last_seen[name] = 0.0

    root = f"{ROOT}/{view.federation}"
    async with PahoConnector(broker).connect(f"headgate-sites-{os.getpid()}", on_message=on_message) as session:
        await session.subscribe(
            str(FlTopic(view.federation, Kind.PLAN)), *(f"{root}/up/+/{kind.path.rpartition('/')[2]}" for kind in _SAID)
        )
        await _wait(session, stop, seconds / 2)
        # Some brokers give no retained messages to wildcards.
        await _ask_for(session, view, {*last_seen, *view.participants})
        await _wait(session, stop, seconds / 2)
    return Exit.OK


async def _ask_for(session: Session, view: View, names: Iterable[str]) -> None:
    missing = []
    for name in sorted(names):
        known = view.participants.get(name)
        if known is None or None in (known.status, known.statistics, known.quality):
            missing += [str(FlTopic(view.federation, kind, name)) for kind in _SAID]
    if missing:
        await session.subscribe(*missing)


async def _wait(session: Session, stop: asyncio.Event, seconds: float) -> None:
    """Raises: SessionLost."""
    ending = asyncio.create_task(stop.wait(), name="stop")
    closed = asyncio.create_task(session.wait_closed(), name="session")
    try:
        await asyncio.wait({ending, closed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if closed.done():
            closed.result()
    finally:
        for task in (ending, closed):
            task.cancel()
        await asyncio.gather(ending, closed, return_exceptions=True)


def _status_of(topic: str) -> str | None:
    try:
        parsed = FlTopic.parse(topic)
    except TopicError:
        return None
    return parsed.participant if parsed.kind is Kind.STATUS else None
