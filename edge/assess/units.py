"""Does a feature come in another unit than the map says? Against the other plants' values, or the contract's range.

What is found is told in the plant's own words: the unit that the map should name. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.unit_check import PURE, is_far, too_large_or_small, unit_finding, units_beside
from edge.units import linear_conversion
from uns_topics.contract import Feature

FACTORS = (1000.0, 100.0, 10.0, 25.4, 60.0)
"""Tried both ways where no unit explains it: prefixes, per cent, a PLC's whole numbers, inches, minutes."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A feature that seems to come in another unit.

    Attributes:
        unit: what the map should say; None where only the factor is known, or nothing explains the values.
        factor: by which the values have to be multiplied (an offset apart); 1 where nothing explains them.
        text: for the plant's own people.
    """

    unit: str | None
    factor: float
    text: str


def suspect_unit(
    quantiles: Sequence[float], feature: Feature, map_unit: str, reference: Sequence[float] | None = None
) -> Suspicion | None:
    """What is wrong with the unit of one feature on one topic; None where nothing speaks for that.

    Args:
        quantiles: of what came at 5, 25, 50, 75 and 95 %, in the contract's unit as the map converts it, not clipped.
        map_unit: what the signal map says.
        reference: the other plants' quantiles at the same levels; None: only the contract's range is known.

    Raises: ValueError: not five rising finite numbers.
    """
    mapped = linear_conversion(map_unit, feature.unit)
    raw = [(q - mapped[1]) / mapped[0] for q in quantiles]
    if reference is not None:
        found = unit_finding(quantiles, reference, feature.unit)
        where = f"median {quantiles[2]:.4g}, elsewhere {reference[2]:.4g} {feature.unit}".rstrip()
        if found is not None:
            return _said(found.scale, found.offset, feature, map_unit, where)
        if is_far(quantiles, reference) and not is_far(raw, reference):
            return _said(1 / mapped[0], -mapped[1] / mapped[0], feature, map_unit, where)
    return _by_range(quantiles, feature, map_unit)


def _by_range(quantiles: Sequence[float], feature: Feature, map_unit: str) -> Suspicion | None:
    """The median lies outside the range, and one conversion puts nearly all of it inside."""
    low, high = feature.minimum, feature.maximum
    median = quantiles[2]
    if low <= median <= high:
        return None
    where = f"median {median:.4g}, the contract has {low:g} to {high:g} {feature.unit}".rstrip()
    middle, best = (low + high) / 2, None
    mapped_scale, mapped_offset = linear_conversion(map_unit, feature.unit)
    units = ((1.0, 0.0), *((scale, offset) for _, scale, offset in units_beside(feature.unit)))
    conversions = [(s / mapped_scale, o - s * mapped_offset / mapped_scale, 0.0) for s, o in units]
    conversions += [(factor, 0.0, 0.1) for one in FACTORS for factor in (one, 1 / one)]
    for scale, offset, malus in conversions:
        inside = sum(low <= scale * q + offset <= high for q in quantiles)
        badness = abs(scale * median + offset - middle) / (high - low) + malus + 0.2 * (len(quantiles) - inside)
        if low <= scale * median + offset <= high and inside >= 3 and (best is None or badness < best[0] - 1e-9):
            best = (badness, scale, offset)
    if best is None:
        return Suspicion(None, 1.0, f"out of range ({where}), and no known unit explains it")
    return _said(best[1], best[2], feature, map_unit, where)


def _said(scale: float, offset: float, feature: Feature, map_unit: str, where: str) -> Suspicion:
    """Args: scale, offset: `true = scale * seen + offset`, both in the contract's unit."""
    mapped_scale, mapped_offset = linear_conversion(map_unit, feature.unit)
    raw_scale, raw_offset = scale * mapped_scale, scale * mapped_offset + offset
    unit = _unit_of(raw_scale, raw_offset, feature.unit)
    if unit is not None:
        text = f"looks like {unit or PURE} where the map says {map_unit or PURE} ({where})"
    else:
        text = f"looks {too_large_or_small(scale)} ({where})"
    return Suspicion(unit, scale, text)


def _unit_of(scale: float, offset: float, unit: str) -> str | None:
    """The unit whose conversion this is."""
    for name, known_scale, known_offset in ((unit, 1.0, 0.0), *units_beside(unit)):
        if abs(known_scale - scale) <= 1e-4 * abs(scale) and abs(known_offset - offset) <= 1e-3 * max(1, abs(offset)):
            return name
    return None
