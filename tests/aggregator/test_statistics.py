"""What all plants look like: pooled from their sketches, told of three plants at least."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from aggregator.statistics import overview, reference
from tests.aggregator.sketched import oven_contract, told_of
from uns_topics.reference import LEVELS
from uns_topics.reports import Statistics
from uns_topics.standardisation import Moments

CONTRACT = oven_contract(300)


def by_name(plants: Iterable[Statistics]) -> dict[str, Statistics]:
    return {f"plant-{i}": one for i, one in enumerate(plants)}


def told(values: np.ndarray, *features: str, slot: int = 0) -> Statistics:
    return told_of(CONTRACT, dict.fromkeys(features, values), rows=len(values), slot=slot)


def oven(seed: int, n: int = 1000, mean: float = 240.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 5, n)


def test_quantiles_are_those_of_all_rows() -> None:
    plants = [oven(i) for i in range(4)]
    found = reference(1, CONTRACT, by_name(told(values, "oven") for values in plants), 100_000)
    assert found is not None
    assert found.participants == ("plant-0", "plant-1", "plant-2", "plant-3")
    (only,) = found.features
    assert (only.feature, only.sites, only.rows) == ("oven", 4, 4000)
    np.testing.assert_allclose(only.quantiles, np.quantile(np.concatenate(plants), LEVELS), atol=1.2)


def test_of_two_plants_nothing_is_told() -> None:
    assert reference(1, CONTRACT, by_name(told(oven(i), "oven") for i in range(2)), 100_000) is None
    three = [told(oven(0), "oven"), told(oven(1), "oven", "current"), told(oven(2), "oven", "current")]
    found = reference(1, CONTRACT, by_name(three), 100_000)
    assert found is not None
    assert [one.feature for one in found.features] == ["oven"]


def test_of_very_many_plants_nobody_is_named() -> None:
    one = told(oven(0, 50), "oven")
    found = reference(1, CONTRACT, {f"plant-{i}": one for i in range(201)}, 100_000)
    assert found is not None
    assert (found.participants, found.features[0].sites) == ((), 201)


def test_a_large_plant_weighs_half_as_in_the_standardisation() -> None:
    parts = [told(oven(0, 100_000, 280), "oven"), told(oven(1, 500, 220), "oven"), told(oven(2, 500, 220), "oven")]
    found = reference(1, CONTRACT, by_name(parts), 100_000)
    assert found is not None
    (only,) = found.features
    assert only.rows == pytest.approx(2000, abs=1)
    assert only.quantiles[1] == pytest.approx(220, abs=2)
    assert only.quantiles[3] == pytest.approx(280, abs=2)


def test_cells_without_a_sketch_or_of_one_operating_point_don_t_count() -> None:
    whole = [told(oven(i), "oven") for i in range(2)]
    without_sketch = Statistics(
        generation=1, rows=10, label_counts=(), cells=(whole[0].cells[0].model_copy(update={"sketch": None}),)
    )
    assert reference(1, CONTRACT, by_name([*whole, without_sketch]), 100_000) is None
    assert reference(1, CONTRACT, by_name([*whole, told(oven(3), "oven", slot=1)]), 100_000) is None


def test_features_that_no_longer_fit_are_left_out() -> None:
    plants = [told(oven(i), "oven", "current") for i in range(3)]
    whole = reference(1, CONTRACT, by_name(plants), 100_000)
    assert whole is not None
    assert len(whole.features) == 2
    less = reference(1, CONTRACT, by_name(plants), len(whole.model_dump_json()) - 1)
    assert less is not None
    assert [one.feature for one in less.features] == ["oven"]
    assert reference(1, CONTRACT, by_name(plants), 10) is None


def test_federated_statistics_are_those_of_all_rows() -> None:
    plants = [np.clip(oven(i, n), 0, 300) for i, n in ((0, 500), (1, 2000), (2, 700))]
    given = []
    for values in plants:
        scaled = values / 300
        moments = Moments(n=len(values), sum=float(scaled.sum()), sum_squares=float(np.square(scaled).sum()))
        one = told(values, "oven")
        given.append(one.model_copy(update={"cells": (one.cells[0].model_copy(update={"moments": moments}),)}))
    (found,) = overview(CONTRACT, given)
    whole = np.concatenate(plants)
    assert (found.feature, found.unit, found.sites, found.rows) == ("oven", "degC", 3, 3200)
    assert found.mean == pytest.approx(whole.mean())
    assert found.deviation == pytest.approx(whole.std())
    assert found.quantiles is not None
    np.testing.assert_allclose(found.quantiles, np.quantile(whole, LEVELS), atol=1.2)
    assert found.minimum is not None
    assert found.maximum is not None
    assert 0 < found.minimum < np.sort(whole)[30]
    assert np.sort(whole)[-30] < found.maximum < 300
    bare = given[0].model_copy(update={"cells": (given[0].cells[0].model_copy(update={"sketch": None}),)})
    (only,) = overview(CONTRACT, [bare])
    assert (only.minimum, only.maximum, only.quantiles) == (None, None, None)
