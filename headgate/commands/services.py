"""`headgate edge`, `headgate aggregator`, `headgate broker`: the services."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from broker_bridge.settings import load
from headgate.commands import backfill, backup, problems
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command
from headgate.running import run_service, set_up_logging

if TYPE_CHECKING:
    from edge.config import EdgeConfig


def register(subparsers: Subparsers) -> None:
    """Add the services' commands."""
    edge = add_command(
        subparsers,
        "edge",
        "Run one participant: read the plant's tags, train locally, publish inference.",
        (
            "headgate edge --config edge.yaml",
            "headgate edge backfill --config edge.yaml --from export.csv",
        ),
        run_edge,
    )
    edge.add_argument(
        "action",
        nargs="?",
        default="run",
        choices=("run", "backfill", "problems", "release", "leave"),
        help="run the edge (default); backfill: fill a stopped edge's store with a historian's export; "
        "problems: what could not be used of the plant's messages, with the payloads (--json too); release: let a held "
        "swap pass; leave: clear every retained topic of an edge that is stopped for good",
    )
    backfill.add_arguments(edge)
    aggregator = add_command(
        subparsers,
        "aggregator",
        "Run a federation: rounds, aggregation, versions.",
        (
            "headgate aggregator --config aggregator.yaml",
            "headgate aggregator backup --config aggregator.yaml --to aggregator.tar",
        ),
        run_aggregator,
    )
    backup.add_arguments(aggregator)
    for parser in (edge, aggregator):
        parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML configuration")
        parser.add_argument("--verbose", action="store_true", help="log what is normally not of interest")
    aggregator.add_argument(
        "--from",
        dest="from_file",
        type=Path,
        metavar="FILE",
        help="start from a model of the same template; restore: the backup",
    )
    aggregator.add_argument(
        "--cold-start",
        action="store_true",
        help="if this run opens a new generation: begin with the model file's parameters, not the last version's",
    )
    aggregator.add_argument(
        "--takeover", action="store_true", help="replace an aggregator that seems to be live, by raising the epoch"
    )
    broker = add_command(
        subparsers,
        "broker",
        "Run the embedded broker (MQTT 3.1.1, for demos and tries; plants have their own).",
        ("headgate broker", "headgate broker --port 18830"),
        run_broker,
    )
    broker.add_argument("--host", type=_address, default="127.0.0.1", metavar="ADDRESS", help="loopback (127.0.0.1)")
    broker.add_argument("--port", type=_port, default=1883, metavar="N", help="TCP port (default 1883)")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address such as 127.0.0.1 or ::1") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535")
    return int(text)


def run_edge(arguments: argparse.Namespace) -> int:
    """`headgate edge`."""
    from edge.config import EdgeConfig
    from edge.service import run_edge as run

    if arguments.action != "backfill":
        backfill.refuse_arguments(arguments)
    set_up_logging(arguments.verbose)
    config = load(EdgeConfig, arguments.config)
    if arguments.action == "problems":
        return problems.run_problems(config, as_json=arguments.json)
    if arguments.action == "leave":
        return _leave(config)
    if arguments.action == "release":
        return _release(config)
    if arguments.action == "backfill":
        return backfill.run_backfill(arguments, config)
    return run_service(lambda stop: run(config, stop))


def _release(config: EdgeConfig) -> int:
    from edge.decisions import NothingHeld, release

    try:
        held = release(config.data_dir)
    except NothingHeld as error:
        raise CommandError(str(error), Exit.NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{config.data_dir} can't be written: {error.strerror}") from None
    print(
        f"version {held['version']} ({held['variant']}) may run instead of version {held['runs']}: "
        f"{held['after']} alarms instead of {held['before']} on {held['rows']} samples"
    )
    return Exit.OK


def _leave(config: EdgeConfig) -> int:
    from broker_bridge.aiomqtt_session import AiomqttConnector
    from edge.leave import SessionError, StillRuns, leave
    from edge.store import SampleStore
    from edge.store_file import StoreBusy, StoreError

    path = config.data_dir / "samples.sqlite"
    if not path.exists():
        raise CommandError(f"{path}: no edge has run on this directory", Exit.NOT_FOUND)
    plant, fl = AiomqttConnector(config.plant_broker or config.broker), AiomqttConnector(config.broker)
    try:
        with SampleStore(path, max_samples=config.max_samples) as store:
            cleared = asyncio.run(leave(config.federation, config.participant, store, plant, fl))
    except (StillRuns, StoreBusy) as error:
        raise CommandError(str(error), Exit.INTEGRITY) from None
    except StoreError as error:
        raise CommandError(str(error)) from None
    except SessionError as error:
        raise CommandError(str(error), Exit.BROKER) from None
    print(f"cleared {cleared[0]} topics at the plant and {cleared[1]} of {config.federation}; {config.data_dir} stays")
    return Exit.OK


def run_aggregator(arguments: argparse.Namespace) -> int:
    """`headgate aggregator`."""
    from aggregator.config import AggregatorConfig
    from aggregator.service import run_aggregator as run

    set_up_logging(arguments.verbose)
    config = load(AggregatorConfig, arguments.config)
    if arguments.action == "backup":
        return backup.run_backup(arguments, config)
    if arguments.action == "restore":
        return backup.run_restore(arguments, config)
    if arguments.to is not None:
        raise CommandError("--to is for backup alone", Exit.USAGE)
    for file in (config.model, arguments.from_file):
        if file is not None and not file.is_file():
            raise CommandError(f"{file}: no such file; `headgate model new` makes a base model", Exit.NOT_FOUND)
    _prove_model(arguments.from_file or config.model)
    return run_service(
        lambda stop: run(
            config,
            takeover=arguments.takeover,
            from_model=arguments.from_file,
            cold_start=arguments.cold_start,
            stop=stop,
        )
    )


def _prove_model(path: Path) -> None:
    """The check that each plant makes of a plan's template, before there is a plan. Raises: CommandError."""
    from edge.model_check import check_run, check_skeleton
    from uns_topics.template import TemplateError, read_model_file

    try:
        check_run(check_skeleton(read_model_file(path.read_bytes()).template.skeleton))
    except TemplateError as error:
        raise CommandError(f"{path}: {error}; was it made by `headgate model new`?", Exit.USAGE) from None
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", Exit.NOT_FOUND) from None


def run_broker(arguments: argparse.Namespace) -> int:
    """`headgate broker`."""
    from broker_bridge.embedded import EmbeddedBrokerError, serve

    set_up_logging()

    async def main(stop: asyncio.Event) -> int:
        def ready(port: int) -> None:
            print(f"listening on mqtt://{arguments.host}:{port}", flush=True)

        serving = asyncio.create_task(serve(arguments.host, arguments.port, ready), name="broker")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return Exit.OK

    try:
        return run_service(main)
    except EmbeddedBrokerError as error:
        raise CommandError(str(error)) from None
