"""All plants' quantiles, and the same without one's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from uns_topics.reference import LEVELS, FeatureReference, Reference, without
from uns_topics.sketch import Counts, Sketch, grid_of_range, quantiles, suppress
from uns_topics.standardisation import capped_shares

GRID = grid_of_range(0.0, 100.0)


def plant(seed: int, mean: float, deviation: float, n: int = 1000) -> Counts:
    return suppress(GRID.count(np.random.default_rng(seed).normal(mean, deviation, n)))


def reference_of(*plants: Counts) -> FeatureReference:
    shares = capped_shares([int(counts.sum()) for counts in plants])
    pooled = np.sum([counts * share for counts, share in zip(plants, shares, strict=True)], axis=0)
    low, lower, median, upper, high = quantiles(pooled, GRID, LEVELS)
    return FeatureReference(
        feature="oven", sites=len(plants), rows=int(pooled.sum()), quantiles=(low, lower, median, upper, high)
    )


@pytest.mark.parametrize("mine", [100, 1000, 5000])
def test_without_one_s_own_the_others_are_left(mine: int) -> None:
    others = [plant(1, 25, 3), plant(2, 26, 3)]
    own = plant(3, 77, 5, mine)  # degF
    found = without(reference_of(*others, own), own, GRID)
    assert found is not None
    expected = quantiles(np.sum(others, axis=0), GRID, LEVELS)
    np.testing.assert_allclose(found[1:4], expected[1:4], atol=3.0)  # of 52 between the two; outer ones are rough


@given(st.integers(0, 1000), st.lists(st.tuples(st.floats(5, 95), st.floats(0.1, 30)), min_size=3, max_size=6))
def test_what_is_left_rises_within_the_range(seed: int, plants: list[tuple[float, float]]) -> None:
    counts = [plant(seed + i, mean, deviation, 200) for i, (mean, deviation) in enumerate(plants)]
    found = without(reference_of(*counts), counts[0], GRID)
    assert found is not None
    assert list(found) == sorted(found)
    assert found[0] >= 0
    assert found[-1] <= 100


def test_who_told_nothing_takes_the_reference_as_it_is() -> None:
    reference = reference_of(*(plant(i, 50, 5) for i in range(3)))
    assert without(reference, np.zeros(len(GRID), np.int64), GRID) == reference.quantiles


def test_a_reference_of_another_range_or_of_few_rows_breaks_nothing() -> None:
    strange = FeatureReference(feature="oven", sites=3, rows=1, quantiles=(-1e9, -5.0, 0.0, 7e5, 1e300))
    found = without(strange, plant(1, 50, 5), GRID)
    assert found is None or list(found) == sorted(found)


@pytest.mark.parametrize(
    "wrong",
    [
        '{"feature":"oven","sites":2,"rows":100,"quantiles":[1.0,2.0,3.0,4.0,5.0]}',
        '{"feature":"oven","sites":3,"rows":0,"quantiles":[1.0,2.0,3.0,4.0,5.0]}',
        '{"feature":"oven","sites":3,"rows":100,"quantiles":[1.0,2.0,3.0,5.0,4.0]}',
        '{"feature":"oven","sites":3,"rows":100,"quantiles":[1.0,2.0,3.0,4.0]}',
        '{"feature":"oven 1","sites":3,"rows":100,"quantiles":[1.0,2.0,3.0,4.0,5.0]}',
    ],
)
def test_what_is_no_reference_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Reference.model_validate_json(f'{{"generation":1,"participants":[],"features":[{wrong}]}}')


def test_a_sketch_on_the_wire_is_the_same_share() -> None:
    counts = plant(1, 50, 5)
    sketch = Sketch.of(counts)
    assert sketch is not None
    np.testing.assert_array_equal(sketch.counts(GRID), counts)
