"""`headgate tree`: what is on a broker, live, by topic."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from broker_bridge.settings import validate
from headgate.exits import CommandError, Exit
from headgate.parsers import Subparsers, add_command
from headgate.running import run_service
from uns_topics.filters import validate_filter

MAX_TOPICS = 5_000
"""Topics kept; the longest silent one makes room for a new one."""
REFRESH_S = 0.5
FILE_WIDTH = 160
"""Columns where the output is no terminal."""
OTHER_COLUMNS = 20
"""Columns that age, kind and the gaps take."""


@dataclass
class Leaf:
    """The last message of one topic."""

    payload: bytes
    seen: float
    messages: int
    retain: bool

    def kind(self) -> str:
        """number, text, json or binary; of what `value` shows."""
        is_text, content = self._content()
        if not is_text:
            return "binary"
        if isinstance(content, dict | list):
            return "json"
        return "number" if isinstance(content, int | float) and not isinstance(content, bool) else "text"

    def value(self) -> str:
        """The value in one line; binary payloads show their size only, `{"timestamp_ms", "value"}` its value."""
        is_text, content = self._content()
        if not is_text:
            return f"{len(self.payload):,} bytes"
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)

    def _content(self) -> tuple[bool, Any]:
        """Whether it is text, and what it holds: JSON's value, else the text itself."""
        text = _text(self.payload)
        if text is None:
            return False, None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return True, text
        is_reading = isinstance(content, dict) and set(content) == {"timestamp_ms", "value"}
        return True, content["value"] if is_reading else content


def _text(payload: bytes) -> str | None:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "tree",
        "Show a broker's topics live: value, age, kind. Binary payloads show their size.",
        ("headgate tree --broker mqtt://127.0.0.1 'acme/+/smt/+/_inference/#'", "headgate tree --once --json 'acme/#'"),
        run_tree,
    )
    parser.add_argument("filter", nargs="*", default=["#"], help="MQTT topic filters (default: #)")
    parser.add_argument("--broker", default="mqtt://127.0.0.1", metavar="URL")
    parser.add_argument("--username")
    parser.add_argument("--password-file", metavar="FILE")
    parser.add_argument("--ca-file", metavar="FILE")
    parser.add_argument("--once", action="store_true", help="print a snapshot after --seconds and end")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long --once listens (default 2)")
    parser.add_argument("--json", action="store_true", help="with --once: one JSON object per topic")


def run_tree(arguments: argparse.Namespace) -> int:
    """`headgate tree`."""
    for text in arguments.filter:
        try:
            validate_filter(text)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from None
    given = {"url": arguments.broker, "username": arguments.username, "password_file": arguments.password_file}
    broker = validate(BrokerConfig, {**given, "ca_file": arguments.ca_file}, "command line")
    leaves: dict[str, Leaf] = {}

    def on_message(message: Message) -> None:
        known = leaves.pop(message.topic, None)
        if not message.payload:
            return
        if len(leaves) >= MAX_TOPICS:
            del leaves[next(iter(leaves))]
        count = known.messages + 1 if known else 1
        leaves[message.topic] = Leaf(message.payload, time.monotonic(), count, message.retain)

    async def main(stop: asyncio.Event) -> int:
        client_id = f"headgate-tree-{os.getpid()}"
        async with PahoConnector(broker).connect(client_id, on_message=on_message) as session:
            await session.subscribe(*arguments.filter, qos=0)
            ending = asyncio.create_task(stop.wait(), name="stop")
            closed = asyncio.create_task(session.wait_closed(), name="session")
            watching = {ending, closed}
            try:
                if arguments.once:
                    await asyncio.wait(watching, timeout=arguments.seconds, return_when=asyncio.FIRST_COMPLETED)
                else:
                    with Live(console=Console(), auto_refresh=False) as live:
                        while not any(task.done() for task in watching):
                            await asyncio.wait(watching, timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)
                            live.update(_table(leaves, live.console.width, live.console.height - 4), refresh=True)
                if closed.done():
                    closed.result()
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
        return Exit.OK

    code = run_service(main)
    if arguments.once:
        _print_once(leaves, as_json=arguments.json)
    return code


def _print_once(leaves: dict[str, Leaf], *, as_json: bool) -> None:
    if not as_json:
        console = Console()
        console.print(_table(leaves, console.width if console.is_terminal else FILE_WIDTH))
        return
    for topic, leaf in sorted(leaves.items()):
        record = {"topic": topic, "kind": leaf.kind(), "value": leaf.value(), "bytes": len(leaf.payload)}
        print(json.dumps({**record, "retain": leaf.retain}, ensure_ascii=False))


def _table(leaves: dict[str, Leaf], width: int, rows: int | None = None) -> Table:
    for_value = max(16, (width - OTHER_COLUMNS) // 3)
    for_topic = max(20, width - OTHER_COLUMNS - for_value)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("topic", no_wrap=True)
    table.add_column("value", overflow="ellipsis", no_wrap=True, max_width=for_value)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    now = time.monotonic()
    shown = sorted(leaves.items())
    for topic, leaf in shown[:rows]:
        age = "kept" if leaf.retain and leaf.messages == 1 else f"{now - leaf.seen:.0f} s"
        table.add_row(Text(_shorten(topic, for_topic)), Text(leaf.value()), age, leaf.kind())
    if rows is not None and len(shown) > rows:
        table.caption = f"{len(shown) - rows} more topics; name a narrower filter"
    return table


def _shorten(topic: str, width: int) -> str:
    """Cut out of the middle: the plant in front and the tag at the end say what it is."""
    if len(topic) <= width:
        return topic
    tail = (width - 1) * 2 // 3
    return f"{topic[: width - 1 - tail]}…{topic[-tail:]}"
