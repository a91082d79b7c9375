"""Units that look wrong: what is found, how it is said, and what is no reason to speak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.unit_check import unit_finding

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, LEVELS).tolist()


def normal(mean: float, deviation: float) -> list[float]:
    return (mean + deviation * np.array([-1.645, -0.674, 0, 0.674, 1.645])).tolist()


def seen(values: list[float], scale: float, offset: float = 0.0) -> list[float]:
    """What arrives of true values: the inverse of `declared = scale * seen + offset`."""
    return [(value - offset) / scale for value in values]


CASES = [
    ("degC", normal(25, 2), (5 / 9, -160 / 9), "looks like degF where degC is declared"),
    ("degC", normal(240, 5), (5 / 9, -160 / 9), "looks like degF where degC is declared"),
    ("degC", normal(60, 8), (1, -273.15), "looks like K where degC is declared"),
    ("K", normal(500, 10), (1, 273.15), "looks like degC where K is declared"),
    ("mm", normal(80, 20), (25.4, 0), "looks like inch where mm is declared"),
    ("mm", normal(0.15, 0.03), (0.001, 0), "looks like um where mm is declared"),
    ("um", normal(120, 30), (1000, 0), "looks like mm where um is declared"),
    ("bar", normal(6, 0.4), (0.0689476, 0), "looks like psi where bar is declared"),
    ("kPa", normal(600, 40), (6.89476, 0), "looks like psi where kPa is declared"),
    ("psi", normal(600, 40), (0.145038, 0), "looks like kPa where psi is declared"),
    ("s", normal(30, 3), (60, 0), "looks like min where s is declared"),
    ("h", normal(30, 3), (1 / 3600, 0), "looks like s where h is declared"),
    ("%", normal(60, 10), (100, 0), "looks like a pure number where % is declared"),
    ("", normal(0.6, 0.1), (0.01, 0), "looks like % where a pure number is declared"),
    ("mm/s", normal(0, 2), (25.4, 0), "looks like inch/s where mm/s is declared"),
    ("widget", normal(5, 1), (1 / 60, 0), "looks 60 times too large for widget"),
    ("", normal(5, 1), (1000, 0), "looks 1000 times too small"),
]


@pytest.mark.parametrize(("unit", "true", "conversion", "text"), CASES, ids=[case[3] for case in CASES])
def test_a_wrong_unit_is_named(unit: str, true: list[float], conversion: tuple[float, float], text: str) -> None:
    found = unit_finding(seen(true, *conversion), true, unit)
    assert found is not None
    assert found.text.startswith(text)
    assert found.scale == pytest.approx(conversion[0], rel=1e-4)
    assert found.offset == pytest.approx(conversion[1], abs=1e-3)


@pytest.mark.parametrize(("unit", "true", "conversion", "text"), CASES, ids=[case[3] for case in CASES])
def test_it_is_named_at_a_plant_that_differs_too(
    unit: str, true: list[float], conversion: tuple[float, float], text: str
) -> None:
    spread = true[3] - true[1]
    other = [value + 0.4 * spread for value in true]
    found = unit_finding(seen(other, *conversion), true, unit)
    assert found is not None
    assert found.text.startswith(text)


def test_the_sentence_has_both_medians() -> None:
    found = unit_finding(normal(77, 4), normal(25, 2), "degC")
    assert found is not None
    assert found.unit == "degF"
    assert found.text == "looks like degF where degC is declared (median 77 here, 25 elsewhere)"


@pytest.mark.parametrize("unit", ["degC", "mm", "bar", "%", "", "widget"])
@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5])
@pytest.mark.parametrize("wider", [0.3, 1.0, 3.0])
def test_plants_that_merely_differ_are_left_alone(unit: str, shift: float, wider: float) -> None:
    there = normal(50, 5)
    here = normal(50 + shift * (there[3] - there[1]), 5 * wider)
    assert unit_finding(here, there, unit) is None


def test_far_away_in_no_known_way_is_no_finding() -> None:
    assert unit_finding(normal(33, 1), normal(5, 1), "bar") is None


def test_a_tag_that_stands_still_is_no_finding() -> None:
    assert unit_finding([20.0] * 5, normal(25, 2), "degC") is None
    assert unit_finding([0.0] * 5, normal(25, 2), "degC") is None
    assert unit_finding([0.0] * 5, [0.0] * 5, "degC") is None


def test_setpoints_without_any_spread_are_compared_by_their_median() -> None:
    found = unit_finding([464.0] * 5, [240.0] * 5, "degC")
    assert found is not None
    assert found.unit == "degF"
    assert unit_finding([241.0] * 5, [240.0] * 5, "degC") is None


@given(st.integers(0, 10**6), st.sampled_from(["degC", "mm/s", "bar", "%", "", "um"]))
def test_two_plants_of_one_kind_are_never_accused(seed: int, unit: str) -> None:
    rng = np.random.default_rng(seed)
    mean, deviation = rng.uniform(-50, 300), rng.uniform(1, 30)
    there = quantiles(rng.normal(mean, deviation, 400))
    here = quantiles(rng.normal(mean + rng.normal() * deviation * 0.5, deviation * rng.uniform(0.5, 2), 400))
    assert unit_finding(here, there, unit) is None


@pytest.mark.parametrize(
    "wrong",
    [[1.0, 2.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, float("nan"), 4.0, 5.0], [0, 1, 2, 3, float("inf")]],
)
def test_what_are_no_quantiles(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="quantiles"):
        unit_finding(wrong, normal(1, 1), "bar")
    with pytest.raises(ValueError, match="quantiles"):
        unit_finding(normal(1, 1), wrong, "bar")
