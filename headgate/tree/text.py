"""Text for a terminal: what brokers say made harmless, cut to columns, and figures in few of them. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

BARS = "▁▂▃▄▅▆▇█"
_LONG_NUMBER = 10
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """The text with all that a terminal would act on written as an escape.

    Control characters (ESC among them), line ends, changes of direction and characters of no width; a space of
    another kind becomes a space.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def json_safe(text: str) -> str:
    """JSON text in which such characters inside strings stand as `\\u` escapes: the same JSON, and harmless."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _unit_escapes(c) for c in text)


def width_of(text: str) -> int:
    """Columns that a text takes."""
    return cell_len(text)


def cut(text: str, width: int) -> str:
    """At most `width` columns of it, with an ellipsis where something is missing."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """The same out of the middle: the plant in front and the tag at the end say what it is."""
    if cell_len(text) <= width:
        return text
    if width < 3:
        return cut(text, width)
    front = set_cell_size(text, (width - 1) // 3)
    back = text[-(width - 1 - cell_len(front)) :]
    while cell_len(front) + 1 + cell_len(back) > width:
        back = back[1:]
    return f"{front}…{back}"


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, which together are the text."""
    lines = [""]
    for character in text:
        if cell_len(lines[-1] + character) > max(2, width):
            lines.append("")
        lines[-1] += character
    return lines


def column(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` columns."""
    text = cut(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars between their own least and greatest; level where they are all the same."""
    shown = [value for value in values if math.isfinite(value)][-width:] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low
    if span == 0:
        return BARS[3] * len(shown)
    if not math.isfinite(span):  # of the two largest floats of either sign
        low, high = low / 2, high / 2
        span, shown = high - low, [value / 2 for value in shown]
    top = len(BARS) - 1
    return "".join(BARS[min(top, int((value - low) / span * len(BARS)))] for value in shown)


def short_number(text: str, number: float) -> str:
    """A number as it was written where that is short, else with seven digits."""
    return text if len(text) <= _LONG_NUMBER else f"{number:.7g}"


def age(seconds: float) -> str:
    """Four columns at most: 12s, 59m, 23h, 99d."""
    seconds = max(0.0, seconds)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)}{name}"
    return f"{min(9999, int(seconds // 86_400))}d"


def rate(per_second: float) -> str:
    """Six columns up to a million: 12k/s, 5.0/s, 12/min, 3/h; nothing where there is hardly any."""
    if per_second >= 9_950:
        return f"{min(9_999, per_second / 1000):.0f}k/s"
    if per_second >= 995:
        return f"{per_second / 1000:.1f}k/s"
    if per_second >= 9.95:
        return f"{per_second:.0f}/s"
    if per_second >= 0.95:
        return f"{per_second:.1f}/s"
    if per_second * 60 >= 0.95:
        return f"{per_second * 60:.0f}/min"
    return f"{per_second * 3600:.0f}/h" if per_second * 3600 >= 0.95 else ""


def size(number: float) -> str:
    """Bytes: 12 B, 3.4 KiB, 5.6 MiB."""
    if number < 1024:
        return f"{number:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1000:
            return f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"
    return f"{number / 1024:.1f} TiB"


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unit_escapes(character: str) -> str:
    raw = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[i : i + 2].hex()}" for i in range(0, len(raw), 2))
