"""Does a feature come in another unit than the signal map says? Quantiles beside the other plants' tell. Pure.

Two plants never look alike, so a finding needs both: as declared, the values can't be what the others call by this
name; and one known conversion puts median and spread where the others have theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from edge.units import UnitError, linear_conversion

FAR_SPREADS = 2.0
"""A median further from the others' than this many spreads (between the quartiles) is out of place."""
FAR_RATIO = 8.0
"""A spread this many times the others' is out of place wherever the median is."""
VERY_FAR_SPREADS = 5.0
"""From here on the median alone tells: plants that make one product stand beside those that make many."""
NEAR_SPREADS = 1.0
NEAR_RATIOS = (0.2, 2.5)
"""Converted, the median lies within so many spreads of the others', and the spread is so many times theirs."""
BETTER = 3.0
"""Converted, the median is at least this many times nearer."""
RESOLUTION = 0.01
"""A spread below this part of the median is not told apart from none: sketches are no finer."""

_UNITS = (
    *("degC", "degF", "K", "degR"),
    *("bar", "mbar", "Pa", "kPa", "MPa", "psi", "inHg"),
    *("mm", "um", "m", "cm", "inch", "ft"),
    *("s", "ms", "us", "min", "h"),
    *("mm/s", "m/s", "m/min", "inch/s", "ft/min", "km/h"),
    *("m/s**2", "g_0", "mm/s**2"),
    *("kg", "g", "mg", "t", "lb", "oz"),
    *("N", "kN", "lbf", "N*m", "lbf*ft", "lbf*inch"),
    *("V", "mV", "kV", "A", "mA", "uA", "ohm", "kohm"),
    *("W", "kW", "MW", "hp", "J", "kJ", "kWh"),
    *("Hz", "kHz", "MHz"),
    *("l", "ml", "m**3", "gal", "l/min", "l/h", "m**3/h", "ml/min", "gal/min"),
    *("Pa*s", "mPa*s", "", "%", "ppm"),
)
"""What plants write; those that convert to the declared unit are tried."""
_FACTORS = (1000.0, 100.0, 60.0, 3600.0, 25.4)
"""Tried both ways where no unit explains it: prefixes, per cent, minutes and hours, inches."""
_QUARTILES = slice(1, 4)
PURE = "a pure number"


@dataclass(frozen=True, slots=True)
class UnitFinding:
    """A feature that seems to come in another unit.

    Attributes:
        unit: what it looks like; None where only the factor is known.
        scale, offset: `declared = scale * seen + offset`.
        text: for the plant's own people: what it looks like, and where both medians are.
    """

    unit: str | None
    scale: float
    offset: float
    text: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where values lie: median and spread between the quartiles."""

    median: float
    spread: float

    def converted(self, scale: float, offset: float) -> _Place:
        return _Place(scale * self.median + offset, abs(scale) * self.spread)


def unit_finding(own: Sequence[float], reference: Sequence[float], unit: str) -> UnitFinding | None:
    """What unit the values seem to come in, where it isn't the declared one; None where nothing speaks for that.

    Args:
        own: this plant's quantiles at 5, 25, 50, 75 and 95 %, in what it takes for `unit`, not clipped.
        reference: the other plants' quantiles of this feature, at the same levels.
        unit: of the contract, as pint reads it.

    Raises: ValueError: not five rising finite numbers.
    """
    here, there = _place(own), _place(reference)
    distance = _distance(here, there)
    ratio = _ratio(here, there)
    if distance <= FAR_SPREADS and 1 / (3 * FAR_RATIO) <= ratio <= FAR_RATIO:
        return None
    least_ratio = NEAR_RATIOS[0] if distance < VERY_FAR_SPREADS else 0.0
    best: tuple[float, str | None, float, float] | None = None
    for name, scale, offset in (*units_beside(unit), *_factors()):
        placed = here.converted(scale, offset)
        away, wide = _distance(placed, there), _ratio(placed, there)
        is_near = away <= NEAR_SPREADS and least_ratio <= wide <= NEAR_RATIOS[1]
        explains = distance <= FAR_SPREADS or away * BETTER <= distance
        badness = away + abs(math.log(wide)) + (0.2 if name is None else 0.0)
        if is_near and explains and (best is None or badness < best[0] - 1e-9):
            best = (badness, name, scale, offset)
    if best is None:
        return None
    _, name, scale, offset = best
    medians = f"median {here.median:.4g} here, {there.median:.4g} elsewhere"
    return UnitFinding(name, scale, offset, f"{_appearance(name, scale, unit)} ({medians})")


def _appearance(name: str | None, scale: float, unit: str) -> str:
    if name is not None:
        return f"looks like {name or PURE} where {unit or PURE} is declared"
    return f"looks {too_large_or_small(scale)} for {unit}" if unit else f"looks {too_large_or_small(scale)}"


def too_large_or_small(scale: float) -> str:
    """What values are that have to be multiplied by this."""
    return f"{1 / scale:.4g} times too large" if scale < 1 else f"{scale:.4g} times too small"


def is_far(own: Sequence[float], reference: Sequence[float]) -> bool:
    """Whether a median is out of place beside the others'. Args and Raises: as `unit_finding`."""
    return _distance(_place(own), _place(reference)) > FAR_SPREADS


def _place(quantiles: Sequence[float]) -> _Place:
    rising = len(quantiles) == 5 and all(low <= high for low, high in pairwise(quantiles))
    if not rising or not all(math.isfinite(q) for q in quantiles):
        raise ValueError("five rising finite quantiles were expected")
    low, median, high = quantiles[_QUARTILES]
    return _Place(median, high - low)


def _least(there: _Place) -> float:
    """The smallest spread that says something."""
    return max(RESOLUTION * abs(there.median), 1e-12)


def _distance(one: _Place, there: _Place) -> float:
    """Between the medians, in spreads of whoever has the larger one."""
    return abs(one.median - there.median) / max(one.spread, there.spread, _least(there))


def _ratio(one: _Place, there: _Place) -> float:
    return max(one.spread, _least(there)) / max(there.spread, _least(there))


def _factors() -> Iterator[tuple[None, float, float]]:
    for factor in _FACTORS:
        yield None, 1 / factor, 0.0
        yield None, factor, 0.0


@cache
def units_beside(unit: str) -> tuple[tuple[str, float, float], ...]:
    """Units that convert to this one, each conversion once: name, scale, offset."""
    found: dict[tuple[float, float], tuple[str, float, float]] = {}
    for name in _UNITS:
        try:
            scale, offset = linear_conversion(name, unit)
        except UnitError:
            continue
        rounded = (float(f"{scale:.6g}"), float(f"{offset:.6g}"))
        if rounded != (1.0, 0.0):
            found.setdefault(rounded, (name, scale, offset))
    return tuple(found.values())
