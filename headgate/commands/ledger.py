"""`headgate ledger show|summary|canary`: what left a plant, and whether a value is in it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker_bridge.bridge.ledger import FOLDER, Damaged, Entry, day_files, read
from broker_bridge.settings import ConfigError, read_yaml
from headgate.exits import CommandError, Exit
from headgate.parsers import Parser, Subparsers, add_command

WIDTH = 100
"""Columns where the output is no terminal, and the most that a table needs."""
_NAME_WIDTH = 32
_NUMBERS = ("n", "messages", "bytes")


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    parser = add_command(
        subparsers,
        "ledger",
        "Show what left a plant, and search it for values that must not have.",
        ("headgate ledger show --config bridge.yaml", "headgate ledger canary --config bridge.yaml 271.8281 LOT-4711"),
        None,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = add_command(
        actions,
        "show",
        "List messages that left, newest last.",
        (
            "headgate ledger show --config bridge.yaml --last 20",
            "headgate ledger show --dir data/ledger --since 2026-11-01 --json",
        ),
        run_show,
    )
    _add_selection(show)
    show.add_argument("--last", type=_count, default=50, metavar="N", help="the newest N (default 50)")
    show.add_argument("--json", action="store_true", help="one JSON object per message, as it is recorded")
    summary = add_command(
        actions,
        "summary",
        "Messages and bytes that left, by day and kind, and by participant.",
        (
            "headgate ledger summary --config bridge.yaml",
            "headgate ledger summary --dir data/ledger --since 2026-11-01 --json",
        ),
        run_summary,
    )
    _add_selection(summary)
    summary.add_argument("--json", action="store_true", help="one JSON object")
    canary = add_command(
        actions,
        "canary",
        "Search what left for values: as text, as numbers in any writing, in binary, inside decoded tensors.",
        (
            "headgate ledger canary --config bridge.yaml 271.8281 LOT-4711",
            "headgate ledger canary --dir data/ledger --values-file canaries.txt --payloads recorded",
        ),
        run_canary,
    )
    canary.add_argument("values", nargs="*", metavar="VALUE", help="text, or a number (3.14 or 3,14)")
    canary.add_argument("--values-file", type=Path, metavar="FILE", help="one value per line")
    _add_selection(canary)
    canary.add_argument("--payloads", type=Path, metavar="PATH", help="also search this file, or all in this folder")
    canary.add_argument("--all", action="store_true", help="also what chance alone may well hit in so much")
    canary.add_argument("--json", action="store_true", help="one JSON object")


def _add_selection(parser: Parser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="of the bridge; only its data_dir is read")
    where.add_argument("--dir", type=Path, metavar="FOLDER", help="the ledger's folder")
    parser.add_argument("--since", type=_since, metavar="TIME", help="a day or an ISO 8601 time; UTC unless it says")
    parser.add_argument("--until", type=_until, metavar="TIME", help="through this day, or before this time")
    parser.add_argument("--kind", help="update, status, statistics, ...")
    parser.add_argument("--participant")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _since(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-25 or 2026-11-25T08:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _until(text: str) -> datetime:
    moment = _since(text)
    try:
        date.fromisoformat(text)
    except ValueError:
        return moment
    return moment + timedelta(days=1)


def ledger_folder(arguments: argparse.Namespace) -> Path:
    """The folder that is meant. Raises: CommandError: there is no ledger; ConfigError: no bridge's configuration."""
    folder: Path = arguments.dir if arguments.dir is not None else _data_dir(arguments.config) / FOLDER
    if not folder.is_dir() or not day_files(folder):
        raise CommandError(f"{folder}: no ledger there: nothing has left yet, or it is another folder", Exit.NOT_FOUND)
    return folder


def _data_dir(config: Path) -> Path:
    content = read_yaml(config)
    data_dir = content.get("data_dir") if isinstance(content, dict) else None
    if not isinstance(data_dir, str):
        raise ConfigError(f"{config}: data_dir: a bridge's configuration names a folder here")
    return config.resolve().parent / Path(data_dir).expanduser()


@dataclass
class Selection:
    """The entries that are asked for, and what could not be read on the way."""

    folder: Path
    arguments: argparse.Namespace
    damaged: list[Damaged] = field(default_factory=list)

    def __iter__(self) -> Iterator[Entry]:
        given = self.arguments
        for entry in read(self.folder, given.since, given.until, given.kind, given.participant):
            if isinstance(entry, Damaged):
                self.damaged.append(entry)
            else:
                yield entry

    def say_damaged(self) -> None:
        """On stderr, because stdout may be read by a program."""
        whole = [line for line in self.damaged if not line.at_end]
        if whole:
            places = ", ".join(f"{d.file} line {d.line}" for d in whole[:5]) + (", ..." if len(whole) > 5 else "")
            print(
                f"headgate: damaged lines: {len(whole)} (a power cut, or a change by hand): {places}", file=sys.stderr
            )
        if len(whole) < len(self.damaged):
            print("headgate: the last line is not complete: it is being written, or a power cut", file=sys.stderr)


def run_show(arguments: argparse.Namespace) -> int:
    """`headgate ledger show`."""
    selection = Selection(ledger_folder(arguments), arguments)
    entries = deque(selection, maxlen=arguments.last)
    if arguments.json:
        for entry in entries:
            print(entry.model_dump_json())
    else:
        _print_entries(list(entries))
    selection.say_damaged()
    return Exit.OK


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _table(*columns: str, **widths: int) -> Table:
    """Columns by name; those that hold names may be cut to a width, so that numbers never are."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        side: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", max_width=widths.get(name))
    return table


def _print_entries(entries: list[Entry]) -> None:
    rows = [
        (
            str(entry.n),
            entry.time[:19].replace("T", " "),
            entry.participant,
            entry.topic.removeprefix(f"fl/v1/{entry.federation}/up/{entry.participant}/"),
            f"{entry.bytes:,}",
            entry.policy,
        )
        for entry in entries
    ]
    console = _console()
    columns = ("n", "time", "participant", "topic", "bytes", "policy")
    longest = [max(len(text) for text in texts) for texts in zip(columns, *rows, strict=True)]
    widths = {"participant": min(longest[2], 20), "policy": min(longest[5], 12)}
    taken = longest[0] + longest[1] + longest[4] + sum(widths.values()) + 2 * len(columns)
    table = _table(*columns, **widths, topic=max(20, console.width - taken))
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@dataclass
class Tally:
    """Messages and payload bytes."""

    messages: int = 0
    bytes: int = 0

    def add(self, entry: Entry) -> None:
        """Count one message."""
        self.messages += 1
        self.bytes += entry.bytes


def run_summary(arguments: argparse.Namespace) -> int:
    """`headgate ledger summary`."""
    selection = Selection(ledger_folder(arguments), arguments)
    days: dict[tuple[str, str], Tally] = {}
    participants: dict[tuple[str, str], Tally] = {}
    total = Tally()
    for entry in selection:
        days.setdefault((entry.time[:10], entry.kind), Tally()).add(entry)
        participants.setdefault((entry.federation, entry.participant), Tally()).add(entry)
        total.add(entry)
    if arguments.json:
        print(json.dumps(_summary(days, participants, total, selection)))
        return Exit.OK
    console = _console()
    by_day = _table("day", "kind", "messages", "bytes", kind=_NAME_WIDTH)
    for (day, kind), tally in sorted(days.items()):
        by_day.add_row(day, Text(kind), f"{tally.messages:,}", f"{tally.bytes:,}")
    by_participant = _table(
        "federation", "participant", "messages", "bytes", federation=_NAME_WIDTH, participant=_NAME_WIDTH
    )
    for (federation, participant), tally in sorted(participants.items()):
        by_participant.add_row(Text(federation), Text(participant), f"{tally.messages:,}", f"{tally.bytes:,}")
    console.print(by_day)
    console.print()
    console.print(by_participant)
    console.print(f"\ntotal: {total.messages:,} messages, {total.bytes:,} bytes")
    selection.say_damaged()
    return Exit.OK


def _summary(
    days: dict[tuple[str, str], Tally],
    participants: dict[tuple[str, str], Tally],
    total: Tally,
    selection: Selection,
) -> dict[str, Any]:
    return {
        "days": [{"day": d, "kind": k, **vars(tally)} for (d, k), tally in sorted(days.items())],
        "participants": [
            {"federation": f, "participant": p, **vars(tally)} for (f, p), tally in sorted(participants.items())
        ],
        **vars(total),
        "damaged": len(selection.damaged),
    }


def run_canary(arguments: argparse.Namespace) -> int:
    """`headgate ledger canary`."""
    from headgate.commands.ledger_search import run_search  # numpy and the codecs: not for every start of the program

    return run_search(arguments, Selection(ledger_folder(arguments), arguments))
