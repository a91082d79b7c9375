"""Unit conversion as two numbers, worked out once when a signal map is read; no message ever meets the unit library."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pint

_PROBES = (0.0, 100.0, 1000.0)
_TOLERANCE = 1e-9


class UnitError(ValueError):
    """A unit that is unknown, or two units without a linear way from one to the other."""


@cache
def linear_conversion(from_unit: str, to_unit: str) -> tuple[float, float]:
    """Scale and offset such that `value_to = scale * value_from + offset`.

    Two equal texts need no look-up: a unit that only one trade knows is fine as long as all write it alike.

    Args:
        from_unit, to_unit: as pint reads them (`Pa.s`, `cP`, `degF`, `mm/s`, `%`, `um`); '' is a pure number.

    Raises:
        UnitError: an unknown unit, different dimensions, or a scale that is not linear (dB); it names the unit or both.
    """
    if from_unit == to_unit:
        return 1.0, 0.0
    source, target = _unit(from_unit), _unit(to_unit)
    try:
        low, middle, high = (float(_registry().Quantity(probe, source).to(target).magnitude) for probe in _PROBES)
    except Exception as error:  # pint raises many unrelated types: dimensions, offsets, logarithms
        raise UnitError(f"no conversion from {from_unit!r} to {to_unit!r}") from error
    scale = (high - low) / (_PROBES[2] - _PROBES[0])
    if abs(low + scale * _PROBES[1] - middle) > _TOLERANCE * max(1.0, abs(middle)):
        raise UnitError(f"the conversion from {from_unit!r} to {to_unit!r} is not linear")
    offset = 0.0 if abs(low) <= _TOLERANCE * abs(scale) else low
    return scale, offset


@cache
def _registry() -> pint.UnitRegistry[Any]:
    import pint  # slow to import, and most plants write the contract's own units

    return pint.UnitRegistry()


def _unit(text: str) -> Any:
    try:
        return _registry().parse_units(text)
    except Exception as error:  # whatever pint makes of a person's text, it is no unit
        raise UnitError(f"unknown unit {text!r}") from error
