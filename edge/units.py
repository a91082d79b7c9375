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


_DEGREES = {"C": "degC", "F": "degF"}
"""How devices write temperatures; to pint these two letters are a coulomb and a farad."""


@cache
def is_other_unit(said: str, declared: str) -> bool:
    """Whether a device's own word for its unit surely means another one than the signal map declares.

    A word that pint doesn't know says nothing; another spelling (`°C`, `degC`, `celsius`) is the same unit.
    """
    if said == declared:
        return False
    if said in _DEGREES and _is_known_pair("degC", declared):
        said = _DEGREES[said]
    try:
        _unit(said), _unit(declared)
    except UnitError:
        return False
    return not _is_known_pair(said, declared) or linear_conversion(said, declared) != (1.0, 0.0)


def _is_known_pair(from_unit: str, to_unit: str) -> bool:
    try:
        linear_conversion(from_unit, to_unit)
    except UnitError:
        return False
    return True


@cache
def _registry() -> pint.UnitRegistry[Any]:
    import pint  # slow to import, and most plants write the contract's own units

    return pint.UnitRegistry()


def _unit(text: str) -> Any:
    try:
        return _registry().parse_units(text)
    except Exception as error:  # whatever pint makes of a person's text, it is no unit
        raise UnitError(f"unknown unit {text!r}") from error
