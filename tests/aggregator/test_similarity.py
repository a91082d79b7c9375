"""Distances between sites by numbers that can be checked by hand, groups, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.similarity import similarity, wasserstein
from tests.aggregator.sketched import oven_contract, told_of
from uns_topics.reports import Statistics
from uns_topics.sketch import grid_of_range

CONTRACT = oven_contract(100)


def told(**features: np.ndarray) -> Statistics:
    return told_of(CONTRACT, features, rows=100)


def at(mean: float, seed: int = 0, deviation: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, 2000)


def test_the_distance_is_how_far_values_have_to_move() -> None:
    grid = grid_of_range(0.0, 100.0)
    one, other = (grid.count(np.full(50, value)) / 50 for value in (20.0, 60.0))
    assert wasserstein(one, other, grid) == pytest.approx(0.4, abs=0.01)
    half = (one + other) / 2
    assert wasserstein(one, half, grid) == pytest.approx(0.2, abs=0.01)
    assert wasserstein(one, one, grid) == 0.0


def test_over_features_it_is_the_root_of_the_mean_square() -> None:
    found = similarity(
        CONTRACT,
        {"berlin": told(oven=at(20), current=at(0.0)), "lyon": told(oven=at(60), current=at(3.0))},
    )
    (pair,) = found.pairs
    assert pair.distance == pytest.approx(np.sqrt((0.4**2 + 0.15**2) / 2), abs=0.01)
    assert pair.features == 2
    assert pair.most is not None
    assert pair.most[0] == "oven"
    assert pair.most[1] == pytest.approx(0.4, abs=0.01)


def test_sites_that_are_alike_are_grouped_and_one_is_apart() -> None:
    sites = {
        "berlin": told(oven=at(25, 1), current=at(0, 1)),
        "lyon": told(oven=at(26, 2), current=at(0, 2)),
        "gdansk": told(oven=at(77, 3), current=at(0, 3)),
        "turin": told(oven=at(24, 4), current=at(0.2, 4)),
    }
    found = similarity(CONTRACT, sites)
    assert found.groups == (("berlin", "lyon", "turin"), ("gdansk",))
    assert found.unknown == ()
    assert similarity(CONTRACT, sites, threshold=0.0).groups == (("berlin",), ("gdansk",), ("lyon",), ("turin",))
    assert len(similarity(CONTRACT, sites, threshold=1.0).groups) == 1


def test_what_is_not_told_is_unknown_and_never_zero() -> None:
    few = told(oven=at(25))
    bare = few.model_copy(update={"cells": (few.cells[0].model_copy(update={"sketch": None}),)})
    found = similarity(
        CONTRACT, {"berlin": told(oven=at(25)), "lyon": None, "gdansk": bare, "turin": told(oven=at(25))}
    )
    known = {(pair.one, pair.other): pair.distance for pair in found.pairs}
    assert [key for key, distance in known.items() if distance is not None] == [("berlin", "turin")]
    assert found.unknown == ("gdansk", "lyon")
    assert found.groups == (("berlin", "turin"),)


def test_sites_without_a_common_feature_are_not_alike() -> None:
    found = similarity(CONTRACT, {"berlin": told(oven=at(25)), "lyon": told(current=at(0))})
    assert found.pairs[0].distance is None
    assert found.groups == (("berlin",), ("lyon",))


def test_a_pair_that_is_unknown_keeps_groups_apart() -> None:
    """Two that agree with a third each, in another feature, are not shown to agree with each other."""
    found = similarity(
        CONTRACT,
        {"berlin": told(oven=at(25)), "lyon": told(current=at(0)), "turin": told(oven=at(25), current=at(0))},
    )
    assert max(len(group) for group in found.groups) == 2


def test_nobody_and_one_site() -> None:
    assert similarity(CONTRACT, {}).groups == ()
    assert similarity(CONTRACT, {"berlin": told(oven=at(25))}).groups == (("berlin",),)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 20)), min_size=3, max_size=3), st.integers(0, 99))
def test_it_is_a_metric(sites: list[tuple[float, float]], seed: int) -> None:
    grid = grid_of_range(0.0, 100.0)
    a, b, c = (
        grid.count(np.clip(at(mean, seed + i, deviation), 0, 100)) / 2000 for i, (mean, deviation) in enumerate(sites)
    )
    assert 0 <= wasserstein(a, b, grid) <= 1
    assert wasserstein(a, b, grid) == pytest.approx(wasserstein(b, a, grid))
    assert wasserstein(a, c, grid) <= wasserstein(a, b, grid) + wasserstein(b, c, grid) + 1e-12


def test_it_agrees_with_the_rows_themselves() -> None:
    one, other = np.clip(at(40, 1, 10), 0, 100), np.clip(at(55, 2, 5), 0, 100)
    exact = np.abs(np.sort(one) - np.sort(other)).mean() / 100  # of equally many rows
    pair = similarity(CONTRACT, {"berlin": told(oven=one), "lyon": told(oven=other)}).pairs[0]
    assert pair.distance == pytest.approx(exact, abs=0.004)
