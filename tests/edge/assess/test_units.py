"""Units that look wrong, told in the words of the signal map."""

from __future__ import annotations

import pytest

from edge.assess.units import suspect_unit
from uns_topics.contract import Feature


def feature(unit: str, minimum: float, maximum: float) -> Feature:
    return Feature(name="f", unit=unit, minimum=minimum, maximum=maximum)


def around(median: float, spread: float) -> list[float]:
    return [median + spread * step for step in (-2, -1, 0, 1, 2)]


CASES = [
    # the contract's unit and range, the map's unit, what comes of it, what the map should say
    ("degC", (10, 45), "degC", around(75, 1), "degF"),
    ("degC", (10, 45), "degF", [(q - 32) / 1.8 for q in around(24, 0.5)], "degC"),
    ("degC", (10, 45), "degC", around(297, 1), "K"),
    ("um", (50, 200), "um", around(0.12, 0.01), "mm"),
    ("um", (50, 200), "mm", around(120_000, 5000), "um"),
    ("Pa.s", (80, 320), "Pa.s", around(200_000, 5000), "mPa*s"),
    ("Pa.s", (80, 320), "cP", around(0.2, 0.01), "Pa.s"),
    ("bar", (4, 8), "bar", around(87, 2), "psi"),
    ("kPa", (400, 800), "kPa", around(87, 2), "psi"),
    ("%", (5, 95), "%", around(0.45, 0.02), ""),
    ("mm", (20, 120), "mm", around(2.6, 0.1), "inch"),
]


@pytest.mark.parametrize(
    ("unit", "limits", "map_unit", "seen", "expected"), CASES, ids=[f"{c[0]}-{c[4]}" for c in CASES]
)
def test_against_the_contracts_range(
    unit: str, limits: tuple[float, float], map_unit: str, seen: list[float], expected: str
) -> None:
    found = suspect_unit(seen, feature(unit, *limits), map_unit)
    assert found is not None
    assert found.unit == expected
    assert f"looks like {expected or 'a pure number'} where the map says {map_unit or 'a pure number'}" in found.text


def test_against_the_other_plants() -> None:
    found = suspect_unit(around(77, 2), feature("degC", 0, 300), "degC", around(25, 1))
    assert found is not None
    assert found.unit == "degF"
    assert "median 77, elsewhere 25 degC" in found.text
    assert suspect_unit(around(77, 2), feature("degC", 0, 300), "degC") is None
    assert suspect_unit(around(26, 2), feature("degC", 0, 300), "degC", around(25, 1)) is None
    back = suspect_unit([(q - 32) / 1.8 for q in around(25, 1)], feature("degC", -50, 300), "degF", around(25, 1))
    assert back is not None
    assert back.unit == "degC"


def test_a_decimal_place_is_a_factor() -> None:
    found = suspect_unit(around(240, 5), feature("degC", 10, 45), "degC")
    assert found is not None
    assert found.unit is None or found.unit == "K"
    found = suspect_unit(around(600, 5), feature("rpm", 20, 100), "rpm")
    assert found is not None
    assert "10 times too large" in found.text


def test_nothing_explains_it() -> None:
    found = suspect_unit(around(-5000, 5), feature("bar", 4, 8), "bar")
    assert found is not None
    assert (found.unit, found.factor) == (None, 1.0)
    assert "no known unit explains it" in found.text


@pytest.mark.parametrize("quantiles", [[1.0], [2.0, 1, 3, 4, 5]])
def test_what_are_no_quantiles(quantiles: list[float]) -> None:
    with pytest.raises(ValueError, match="quantiles"):
        suspect_unit(quantiles, feature("bar", 4, 8), "bar", around(5, 1))
