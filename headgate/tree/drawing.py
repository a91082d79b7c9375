"""The lines of the display, as text in styles, to the width of the terminal. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from headgate.tree import text
from headgate.tree.cells import Cells
from headgate.tree.rows import Row

_NARROW, _TINY = 64, 44
"""Columns below which the sparkline goes, then the rate."""
DIM = Style(dim=True)
BRANCH = Style(bold=True)
UNIT = Style(color="cyan")
NOTE = Style(color="yellow")
BINARY = Style(color="cyan")
SPARK = Style(color="green")
CURSOR = Style(bgcolor="#33506b")
_PLAIN = Style()


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths; 0 for a column that has no room. One space stands between two."""

    name: int
    value: int
    spark: int
    rate: int
    age: int


def columns(width: int) -> Columns:
    """How a terminal's width is shared."""
    spark = 0 if width < _NARROW else 8 if width < 100 else 16 if width < 130 else 32
    rate, age = (6 if width >= _TINY else 0), 4
    room = width - 3 - sum(1 + one for one in (spark, rate, age) if one)  # margins, and between topic and value
    value = max(6, min(room * 2 // 5, 60))
    return Columns(max(4, room - value), value, spark, rate, age)


def header(widths: Columns) -> Text:
    """The columns' titles."""
    parts = [" " + text.column("topic", widths.name), text.column("value", widths.value)]
    parts += [text.column("trend", widths.spark)] if widths.spark else []
    parts += [text.column("rate", widths.rate, right=True)] if widths.rate else []
    return Text(" ".join([*parts, text.column("age", widths.age, right=True)]), DIM, no_wrap=True)


def line(row: Row, cells: Cells, widths: Columns, *, is_cursor: bool) -> Text:
    """One line of the tree."""
    value_width, spark = widths.value, text.sparkline(cells.history, widths.spark)
    if widths.spark and not spark:
        value_width += 1 + widths.spark  # nothing to draw: the value has the room
    drawn = Text(" ", no_wrap=True, end="")
    drawn.append(text.column(_name(row, widths.name), widths.name), _name_style(row, cells))
    drawn.append(" ")
    drawn.append_text(_value(cells, value_width))
    if spark:
        drawn.append(" " + text.column(spark, widths.spark), DIM if cells.is_stale else SPARK)
    if widths.rate:
        drawn.append(" " + text.column(cells.rate, widths.rate, right=True), DIM if row.is_branch else _PLAIN)
    drawn.append(" " + text.column(cells.age, widths.age, right=True), NOTE if cells.is_stale else DIM)
    drawn.append(" ")
    if is_cursor:
        drawn.stylize(CURSOR)
    return drawn


def _name(row: Row, width: int) -> str:
    indent = " " * min(2 * row.depth, width // 2)
    mark = ("▾ " if row.is_open else "▸ ") if row.is_branch else "  "
    room = width - len(indent) - 2
    return f"{indent}{mark}{text.cut_middle(row.label, room) if '/' in row.label else text.cut(row.label, room)}"


def _name_style(row: Row, cells: Cells) -> Style:
    if row.is_branch and row.node.leaf is None:
        return BRANCH
    return DIM if cells.is_stale else _PLAIN


def _value(cells: Cells, width: int) -> Text:
    """Value, unit and note; what doesn't fit is cut from the value, for a note must not be missed."""
    note = text.cut(cells.note, max(0, width * 2 // 3)) if cells.note else ""
    unit = cells.unit if text.width_of(cells.unit) <= width // 3 else ""
    room = width - sum(1 + text.width_of(one) for one in (note, unit) if one)
    shown = text.cut(cells.value, room)
    drawn = Text(shown, DIM if cells.is_dim or cells.is_stale else BINARY if cells.is_binary else _PLAIN)
    for one, style in ((unit, UNIT), (note, NOTE)):
        if one:
            drawn.append(" " if drawn.plain else "")
            drawn.append(one, style)
    drawn.append(" " * max(0, width - text.width_of(drawn.plain)))
    return drawn
