"""`headgate tree`: what is on a broker, live, by topic."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command, add_login, number_to, said_of_broker
from headgate.running import run_service
from uns_topics.filters import validate_filter

if TYPE_CHECKING:
    from headgate.tree.feed import Feed
    from headgate.tree.model import Tree

_READ_EVERY_S = 0.25
_READINGS = 400
_number = number_to(1e6, "no number above 0, up to a million")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "tree",
        "Show a broker's topics live: value, unit, age, rate, trend. Binary payloads show kind and size.",
        ("headgate tree --broker mqtt://127.0.0.1 'acme/+/smt/+/_inference/#'", "headgate tree --once --json 'acme/#'"),
        run_tree,
    )
    parser.add_argument("filter", nargs="*", default=["#"], help="MQTT topic filters (default: #, without $SYS)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="edge.yaml (broker and units), or a signal map (units)"
    )
    parser.add_argument("--broker", metavar="URL", help="default: that of --config, else mqtt://127.0.0.1")
    add_login(parser)
    parser.add_argument("--client-certificate-file", metavar="FILE")
    parser.add_argument("--client-key-file", metavar="FILE")
    parser.add_argument("--once", action="store_true", help="print a snapshot after --seconds and end")
    parser.add_argument("--seconds", type=_number, default=2.0, metavar="S", help="how long --once listens (default 2)")
    parser.add_argument("--json", action="store_true", help="like --once: one JSON object per topic")
    caps = parser.add_argument_group("caps, beyond which the subscription is narrowed")
    caps.add_argument("--max-topics", type=_count, default=5_000, metavar="N", help="topics (default 5000)")
    caps.add_argument("--max-rate", type=_number, default=2_000.0, metavar="N", help="messages a second (default 2000)")
    caps.add_argument("--max-mib", type=_number, default=2.0, metavar="N", help="MiB a second (default 2)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100000")
    return int(text)


def run_tree(arguments: argparse.Namespace) -> int:
    """`headgate tree`."""
    from broker_bridge.paho_session import PahoConnector
    from headgate.tree.caps import Limits
    from headgate.tree.feed import Feed
    from headgate.tree.model import Tree
    from headgate.tree.sources import read_config, units_of

    for text in arguments.filter:
        try:
            validate_filter(text)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from None
    is_live = not (arguments.once or arguments.json)
    if is_live and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("a live tree needs a terminal; --once prints a snapshot, --json too", Exit.USAGE)
    given = said_of_broker(arguments, "client_certificate_file", "client_key_file")
    broker, signals = read_config(arguments.config, given)
    tree = Tree(arguments.max_topics, units_of(signals))
    limits = Limits(arguments.max_topics, arguments.max_rate, arguments.max_mib * 1024 * 1024)

    async def main(stop: asyncio.Event) -> int:
        feed = Feed(PahoConnector(broker), tree, tuple(dict.fromkeys(arguments.filter)), limits, time.monotonic)
        if is_live:
            return await _live(tree, feed, broker.address, stop)
        reading = asyncio.create_task(_read(tree), name="reading")
        try:
            await feed.listen(arguments.seconds, stop)
        finally:
            reading.cancel()
        _print_snapshot(tree, feed, as_json=arguments.json, seconds=arguments.seconds)
        return Exit.OK

    return run_service(main)


async def _read(tree: Tree) -> None:
    """Read what waits as the display does: of Sparkplug messages only so many may wait."""
    while True:
        await asyncio.sleep(_READ_EVERY_S)
        tree.settle(_READINGS)


async def _live(tree: Tree, feed: Feed, address: str, stop: asyncio.Event) -> int:
    from headgate.tree.app import TreeApp

    logging.basicConfig(handlers=[logging.NullHandler()])  # the status bar says it; a line on stderr would tear it
    app = TreeApp(tree, feed, address, time.monotonic, feed.run)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    stopping.add_done_callback(lambda task: None if task.cancelled() else app.exit())
    try:
        await app.run_async(mouse=False)  # the mouse stays the terminal's own, to select and copy with
    finally:
        stopping.cancel()
    if app.failure is not None:
        raise app.failure
    return app.return_code or Exit.OK


def _print_snapshot(tree: Tree, feed: Feed, *, as_json: bool, seconds: float) -> None:
    from headgate.tree.snapshot import as_json as json_lines
    from headgate.tree.snapshot import as_text
    from headgate.tree.text import printable

    now = time.monotonic()
    while tree.settle(_READINGS):
        pass
    width = os.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in json_lines(tree, now) if as_json else as_text(tree, now, width):
        print(line)
    if not tree.topics:
        print(f"headgate: nothing was said on {' '.join(feed.filters)} within {seconds:g} s", file=sys.stderr)
    for left_out in feed.left_out:
        print(f"headgate: left out: {printable(str(left_out))}", file=sys.stderr)
    if not feed.left_out and tree.refused:
        print(f"headgate: left out: {tree.refused} messages on topics that are too long or too many", file=sys.stderr)
