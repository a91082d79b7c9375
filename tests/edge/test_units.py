"""Unit conversions are two numbers; what can't be converted is named."""

from __future__ import annotations

import pytest

from edge.units import UnitError, is_other_unit, linear_conversion


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("degF", "degC", 212.0, 100.0),
        ("degF", "degC", 32.0, 0.0),
        ("degC", "K", 0.0, 273.15),
        ("cP", "Pa.s", 200_000.0, 200.0),
        ("mm", "um", 0.12, 120.0),
        ("psi", "Pa", 1.0, 6894.757),
        ("%", "", 50.0, 0.5),
        ("", "%", 0.5, 50.0),
        ("mm/s", "m/min", 100.0, 6.0),
        ("degR", "degC", 491.67, 0.0),
    ],
)
def test_conversion_is_linear(source: str, target: str, value: float, expected: float) -> None:
    scale, offset = linear_conversion(source, target)
    assert scale * value + offset == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_equal_units_need_no_library() -> None:
    assert linear_conversion("lbm/s per flight", "lbm/s per flight") == (1.0, 0.0)


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("furlongg", "m", ["unknown unit 'furlongg'"]),
        ("m", "furlongg", ["unknown unit 'furlongg'"]),
        ("(((", "m", ["unknown unit '((('"]),
        ("degC", "N", ["'degC'", "'N'"]),
        ("dBm", "mW", ["'dBm'", "'mW'"]),
    ],
)
def test_what_cannot_be_converted_is_named(source: str, target: str, named: list[str]) -> None:
    with pytest.raises(UnitError) as raised:
        linear_conversion(source, target)
    assert all(text in str(raised.value) for text in named)


@pytest.mark.parametrize(
    ("said", "declared"),
    [("degC", "°C"), ("C", "degC"), ("celsius", "degC"), ("Pa*s", "Pa.s"), ("percent", "%"), ("widgets", "N")],
)
def test_the_same_unit_and_what_is_none_say_nothing(said: str, declared: str) -> None:
    assert not is_other_unit(said, declared)


@pytest.mark.parametrize(
    ("said", "declared"), [("degF", "degC"), ("F", "degC"), ("bar", "kPa"), ("N", "mm"), ("C", "A"), ("K", "")]
)
def test_another_unit_is_one(said: str, declared: str) -> None:
    assert is_other_unit(said, declared)
