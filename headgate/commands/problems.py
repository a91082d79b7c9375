"""`headgate edge problems`: what an edge could not use of the plant's messages, topic by topic."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headgate.exits import CommandError, Exit

if TYPE_CHECKING:
    from edge.config import EdgeConfig
    from edge.problem_log import ProblemLog, Sighting, TopicProblems

SHOWN_BYTES = 160
WIDTH = 110


def run_problems(config: EdgeConfig, *, as_json: bool) -> int:
    """Print them, the newest first. Returns: 6 where there are any. Raises: CommandError."""
    from edge.problem_file import FILE, read_problems

    if not config.data_dir.is_dir():
        raise CommandError(f"{config.data_dir}: no edge has run on this directory", Exit.NOT_FOUND)
    try:
        found = read_problems(config.data_dir)
    except OSError as error:
        raise CommandError(f"{config.data_dir / FILE} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(f"{config.data_dir / FILE}: {error}", Exit.INTEGRITY) from None
    if as_json:
        topics = [_summary(topic, known) for topic, known in reversed(found.topics.items())]
        print(json.dumps({"topics": topics, "forgotten": found.forgotten}, ensure_ascii=False, indent=2))
    else:
        _show(found)
    return Exit.FINDINGS if found.topics else Exit.OK


def _summary(topic: str, known: TopicProblems) -> dict[str, Any]:
    return {
        "topic": topic,
        "since": _moment(known.since_s),
        "counts": dict(known.counts),
        "last": known.code,
        "detail": known.detail,
        "bad": _payload(known.bad),
        "good": _payload(known.good) if known.good is not None else None,
    }


def _payload(seen: Sighting) -> dict[str, Any]:
    text = seen.text
    body = {"text": text} if text is not None else {"hex": seen.head.hex()}
    return {"time": _moment(seen.time_s), "bytes": seen.size, **body}


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _show(found: ProblemLog) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    if not found.topics:
        console.print("No problems: every message that the signal map covers could be used.")
        return
    table = Table(box=None, pad_edge=False, width=width)
    table.add_column("topic", overflow="fold")
    for name in ("problem", "times", "last seen"):
        table.add_column(name, justify="right" if name == "times" else "left", no_wrap=True)
    for topic, known in reversed(found.topics.items()):
        for code, count in known.counts.most_common():
            last = _moment(known.bad.time_s) if code == known.code else ""
            table.add_row(_text(topic), code, f"{count:,}", last)
    console.print(table)
    for topic, known in reversed(found.topics.items()):
        console.print()
        console.print(Text.assemble((_printable(topic), "bold"), f": {_printable(known.detail)}"))
        console.print(_text(f"  bad   {_line(known.bad)}"))
        console.print(_text(f"  good  {_line(known.good) if known.good is not None else 'none was seen'}"))
    if found.forgotten:
        console.print(f"\nand {found.forgotten} more topics, whose problems lie further back")


def _line(seen: Sighting) -> str:
    text = seen.text
    shown = text[:SHOWN_BYTES] if text is not None else f"hex {seen.head[: SHOWN_BYTES // 2].hex()}"
    is_cut = len(shown) < (len(text) if text is not None else 2 * len(seen.head) + 4) or seen.size > len(seen.head)
    return f"{_moment(seen.time_s)}  {shown}{'…' if is_cut else ''}  ({seen.size:,} bytes)"


def _text(content: str) -> Text:
    """As it stands: a plant's brackets are no markup."""
    return Text(_printable(content))


def _printable(content: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(character if character.isprintable() else "\ufffd" for character in content)
