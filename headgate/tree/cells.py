"""What stands in the columns of a line. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.tree import text
from headgate.tree.model import Node
from headgate.tree.reading import Kind

BINARY = {Kind.CHUNK, Kind.UPDATE, Kind.SPARKPLUG, Kind.PROTOBUF, Kind.MSGPACK, Kind.IMAGE, Kind.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Cells:
    """One line's texts, harmless and not cut yet. Attributes: is_dim: nothing speaks here now."""

    value: str
    unit: str
    note: str
    history: tuple[float, ...]
    rate: str
    age: str
    is_binary: bool
    is_dim: bool
    is_stale: bool


def cells(node: Node, now: float, *, is_open: bool) -> Cells:
    """The columns of a node. A branch tells how much is below it."""
    leaf = node.leaf
    if leaf is None:
        topics = f"{node.topics:,} topic{'' if node.topics == 1 else 's'}" if node.topics else ""
        left_out = f"left out: {node.left_out}" if node.left_out else ""
        age = "" if is_open or not node.topics else text.age(now - node.newest)
        return Cells(
            topics, "", text.printable(left_out), (), text.rate(node.rate), age, False, True, False
        )  # fmt: skip
    reading = leaf.reading
    unit = reading.unit or leaf.unit or ""
    value = reading.text
    if reading.kind is Kind.NUMBER and reading.number is not None:
        value = text.short_number(value, reading.number)
    if reading.kind in BINARY:
        value = f"{reading.kind.value} {value}"
        unit = ""
    is_stale = leaf.is_stale(now)
    age = "kept" if leaf.is_retained else text.age(now - leaf.seen)
    note = "offline" if leaf.offline else "stale" if is_stale else ""
    return Cells(
        value=text.printable(value),
        unit=text.printable(unit) if value else "",
        note=text.printable(", ".join(one for one in (reading.note, note) if one)),
        history=tuple(leaf.history) if len(leaf.history) > 1 and reading.kind is Kind.NUMBER else (),
        rate="" if leaf.is_retained or is_stale else text.rate(leaf.rate(now)),
        age=age,
        is_binary=reading.kind in BINARY,
        is_dim=leaf.is_retained,
        is_stale=is_stale,
    )
