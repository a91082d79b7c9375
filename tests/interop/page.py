"""The table of docs/brokers.md: what was run, row by row; checked by the run that makes it, or written by it."""

from __future__ import annotations

from pathlib import Path

from tests.interop.probes import PROBES

PAGE = Path(__file__).parent.parent.parent / "docs" / "brokers.md"
COLUMNS = ("broker", "version", "MQTT", "the loop", *PROBES)


def row(name: str, version: str, protocol: str, answers: dict[str, str]) -> str:
    """One line of the table."""
    return f"| {' | '.join([name, version, protocol, *(answers[column] for column in COLUMNS[3:])])} |"


def check(line: str) -> str | None:
    """What the page says otherwise of this broker, version and MQTT version; None where it says the same.

    A version that the page doesn't speak of is no contradiction: the page tells what was run.
    """
    key = line.split(" | ")[:3]
    for known in PAGE.read_text("utf-8").splitlines():
        if known.split(" | ")[:3] == key and known != line:
            return known
    return None


def write(line: str) -> None:
    """Put a row into the page, in place of the one of this broker and MQTT version."""
    name, _, protocol = line.split(" | ")[:3]
    lines = PAGE.read_text("utf-8").splitlines()
    head = next(i for i, known in enumerate(lines) if known.startswith("| broker | version |"))
    lines[head] = f"| {' | '.join(COLUMNS)} |"
    lines[head + 1] = "|" + "---|" * len(COLUMNS)
    at = next(
        (i for i, known in enumerate(lines) if known.split(" | ")[::2][:2] == [name, protocol]),
        None,
    )
    if at is None:
        at = next(i for i in range(head, len(lines) + 1) if i == len(lines) or not lines[i].startswith("|"))
        lines.insert(at, line)
    else:
        lines[at] = line
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")
