"""The quantile sketch: its error by the paper's guarantee, its sums, what it doesn't tell, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from uns_topics.contract import Feature
from uns_topics.sketch import (
    ALPHA,
    MAX_BINS,
    MAX_FILLED,
    RANGE_BINS,
    ZERO_SHARE,
    Counts,
    Grid,
    Sketch,
    grid_of,
    grid_of_range,
    merge,
    quantiles,
    reach,
    suppress,
)
from uns_topics.standardisation import MIN_CELL

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
RANGES = ((0.0, 100.0), (-40.0, 125.0), (400.0, 650.0), (-300.0, -200.0), (-5.0, 0.0), (1e-3, 1.0), (-1.0, 1.0))
ranges = st.sampled_from(RANGES)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int, minimum: float, maximum: float) -> npt.NDArray[np.float64]:
    """Rows of one of several shapes, some of them beyond the range."""
    rng = np.random.default_rng(seed)
    span = maximum - minimum
    shape = seed % 4
    if shape == 0:
        values = rng.uniform(minimum, maximum, n)
    elif shape == 1:
        values = rng.normal(minimum + span * rng.uniform(), span * 10 ** rng.uniform(-4, 0), n)
    elif shape == 2:
        values = minimum + span * 10 ** rng.uniform(-6, 0, n)
    else:
        values = np.round(rng.normal(0, span / 50, n), 2)
    return values


def limit(exact: float, minimum: float, maximum: float) -> float:
    """What a grid promises: the relative error, but near zero that of the zero bin, and never a wider bin."""
    span = maximum - minimum
    return min(max(ALPHA * abs(exact), span * ZERO_SHARE), span / RANGE_BINS) * (1 + 1e-9)


def counted(values: npt.NDArray[np.float64], grid: Grid) -> Counts:
    return grid.count(values)


@given(ranges, seeds, st.integers(1, 3000))
def test_a_quantile_is_within_the_relative_error(bounds: tuple[float, float], seed: int, n: int) -> None:
    values = np.clip(drawn(seed, n, *bounds), *bounds)
    grid = grid_of_range(*bounds)
    exact = np.quantile(values, LEVELS, method="lower")
    for level, found, true in zip(LEVELS, quantiles(counted(values, grid), grid, LEVELS), exact, strict=True):
        assert abs(found - true) <= limit(true, *bounds), level


@given(seeds, st.integers(1, 2000))
def test_the_reference_implementation_agrees(seed: int, n: int) -> None:
    values = np.clip(drawn(seed, n, 1e-3, 1.0), 1e-3, 1.0)
    theirs = DDSketch(ALPHA)
    for value in values:
        theirs.add(float(value))
    grid = grid_of_range(1e-3, 1.0)
    ours = quantiles(counted(values, grid), grid, LEVELS)
    for level, mine in zip(LEVELS, ours, strict=True):
        other = theirs.get_quantile_value(level)
        assert other is not None
        assert abs(mine - other) <= 2 * ALPHA * max(mine, other) / (1 - ALPHA), level


@given(ranges)
def test_each_value_stands_for_its_whole_bin(bounds: tuple[float, float]) -> None:
    grid = grid_of_range(*bounds)
    for low, high, value in zip(grid.edges[:-1], grid.edges[1:], grid.values, strict=True):
        assert low <= value <= high
        for edge in (low, high):
            assert abs(value - edge) <= limit(edge, *bounds)


@given(
    st.floats(-1e300, 1e300, allow_subnormal=False),
    st.floats(1e-300, 1e300, allow_subnormal=False),
)
def test_every_range_has_a_bounded_grid(minimum: float, span: float) -> None:
    maximum = minimum + span
    if not minimum < maximum:
        return
    grid = grid_of_range(minimum, maximum)
    assert 1 <= len(grid) <= MAX_BINS
    assert (np.diff(grid.edges) > 0).all()
    assert (grid.edges[0], grid.edges[-1]) == (minimum, maximum)
    assert np.isfinite(grid.values).all()


@pytest.mark.parametrize(("minimum", "maximum"), [(1.0, 1.0), (2.0, 1.0), (-1.5e308, 1.5e308), (0.0, math.inf)])
def test_a_range_without_width_or_without_end_has_no_grid(minimum: float, maximum: float) -> None:
    with pytest.raises(ValueError, match="no grid"):
        grid_of_range(minimum, maximum)


def test_the_grid_is_the_contract_s_alone() -> None:
    feature = Feature(name="oven", unit="degC", minimum=0, maximum=300)
    assert grid_of(feature) is grid_of_range(0.0, 300.0)


def test_the_number_of_bins_is_part_of_the_wire() -> None:
    assert [len(grid_of_range(*bounds)) for bounds in RANGES] == [382, 507, 256, 256, 382, 347, 507]


def test_clipping_and_missing_values() -> None:
    grid = grid_of_range(0.0, 100.0)
    counts = grid.count(np.array([-50.0, 0.0, np.nan, 100.0, 1e9], np.float32))
    assert counts.sum() == 4
    assert (counts[0], counts[-1]) == (2, 2)


@given(ranges, seeds, st.lists(st.integers(0, 500), min_size=2, max_size=5))
def test_merging_is_the_sketch_of_all_rows(bounds: tuple[float, float], seed: int, sizes: list[int]) -> None:
    grid = grid_of_range(*bounds)
    parts = [drawn(seed + i, n, *bounds) for i, n in enumerate(sizes)]
    counts = [grid.count(part) for part in parts]
    whole = grid.count(np.concatenate(parts))
    np.testing.assert_array_equal(merge(counts), whole)
    np.testing.assert_array_equal(merge([counts[0], merge(counts[1:])]), merge([merge(counts[:-1]), counts[-1]]))
    np.testing.assert_array_equal(merge(counts[::-1]), whole)


def test_sketches_of_different_grids_don_t_add() -> None:
    with pytest.raises(ValueError, match="different grids"):
        merge([np.zeros(3, np.int64), np.zeros(4, np.int64)])
    with pytest.raises(ValueError, match="0 sketches"):
        merge([])


small_counts = st.lists(st.integers(0, 40) | st.just(0), min_size=1, max_size=60).map(lambda c: np.array(c, np.int64))


@given(small_counts, st.integers(2, 30))
def test_no_bin_tells_fewer_rows_and_none_is_lost(counts: Counts, minimum: int) -> None:
    told = suppress(counts, minimum)
    assert ((told == 0) | (told >= minimum)).all()
    assert told.sum() == (counts.sum() if counts.sum() >= minimum else 0)


@given(small_counts, st.integers(2, 30))
def test_fewer_rows_than_a_cell_pass_any_point(counts: Counts, minimum: int) -> None:
    if counts.sum() >= minimum:
        moved = np.cumsum(suppress(counts, minimum)) - np.cumsum(counts)
        assert np.abs(moved).max() < minimum


def test_rows_are_moved_to_the_middle_row_of_their_group() -> None:
    # 4 + 5 + 3 = 12 rows make a group; its middle row is the 6th, in the second bin. 20 stand alone, and take the 2.
    counts = np.array([4, 5, 0, 3, 20, 0, 2])
    assert suppress(counts, 10).tolist() == [0, 12, 0, 0, 22, 0, 0]
    assert suppress(np.array([4, 5]), 10).tolist() == [0, 0]


@given(ranges, seeds, st.integers(MIN_CELL, 3000))
def test_a_told_quantile_is_at_most_nine_ranks_and_the_error_away(
    bounds: tuple[float, float], seed: int, n: int
) -> None:
    values = np.sort(np.clip(drawn(seed, n, *bounds), *bounds))
    grid = grid_of_range(*bounds)
    told = suppress(grid.count(values))
    for level, found in zip(LEVELS, quantiles(told, grid, LEVELS), strict=True):
        rank = math.floor(level * (n - 1))
        low, high = values[max(0, rank - MIN_CELL + 1)], values[min(n - 1, rank + MIN_CELL - 1)]
        assert low - limit(low, *bounds) <= found <= high + limit(high, *bounds)


@given(ranges, seeds, st.integers(MIN_CELL, 5000), st.integers(1, 60))
def test_a_sketch_is_as_small_as_it_has_to_be(bounds: tuple[float, float], seed: int, n: int, most: int) -> None:
    grid = grid_of_range(*bounds)
    sketch = Sketch.of(grid.count(drawn(seed, n, *bounds)), most)
    assert sketch is not None
    assert 1 <= len(sketch.rows) <= most
    assert sketch.n == n
    assert min(sketch.rows) >= MIN_CELL
    again = Sketch.model_validate_json(sketch.model_dump_json())
    assert again == sketch
    np.testing.assert_array_equal(again.counts(grid).nonzero()[0], np.cumsum(sketch.steps) - 1)


def test_nine_rows_are_not_told() -> None:
    grid = grid_of_range(0.0, 1.0)
    assert Sketch.of(grid.count(np.full(9, 0.5))) is None
    assert Sketch.of(grid.count(np.full(10, 0.5))) is not None


def test_minimum_and_maximum_are_told_of_ten_rows_at_least() -> None:
    grid = grid_of_range(0.0, 100.0)
    alone = np.concatenate([np.full(500, 50.0), [1.0, 99.0]])  # two rows that nobody may find
    sketch = Sketch.of(grid.count(alone))
    assert sketch is not None
    low, high = reach(sketch.counts(grid), grid)
    assert 49 < low <= 50.0 <= high < 51
    both = Sketch.of(grid.count(np.concatenate([alone, np.full(9, 1.0), np.full(9, 99.0)])))
    assert both is not None
    low, high = reach(both.counts(grid), grid)
    assert 0.9 < low <= 1.0
    assert 99.0 <= high < 100


def test_quantiles_of_nothing() -> None:
    with pytest.raises(ValueError, match="no rows"):
        quantiles(np.zeros(5, np.int64), grid_of_range(0.0, 1.0), LEVELS)
    with pytest.raises(ValueError, match="no rows"):
        reach(np.zeros(5, np.int64), grid_of_range(0.0, 1.0))


@pytest.mark.parametrize(
    "text",
    [
        '{"steps":[1],"rows":[]}',
        '{"steps":[1,2],"rows":[10]}',
        '{"steps":[0],"rows":[10]}',
        '{"steps":[-1],"rows":[10]}',
        '{"steps":[1],"rows":[9]}',
        '{"steps":[1],"rows":[-10]}',
        '{"steps":[1],"rows":[1e3]}',
        '{"steps":[1],"rows":[10.5]}',
        '{"steps":[1],"rows":["10"]}',
        '{"steps":[true],"rows":[10]}',
        '{"steps":[641],"rows":[10]}',
        '{"steps":[600,41],"rows":[10,10]}',
        f'{{"steps":[1,1],"rows":[{2**53},10]}}',
        f'{{"steps":[1],"rows":[{2**63}]}}',
        f'{{"steps":[{2**70}],"rows":[10]}}',
        '{"steps":[1],"rows":[NaN]}',
        '{"steps":[1],"rows":[10],"note":"x"}',
        '{"steps":[1]}',
        "[]",
        f'{{"steps":[{",".join(["1"] * (MAX_FILLED + 1))}],"rows":[{",".join(["10"] * (MAX_FILLED + 1))}]}}',
    ],
)
def test_what_is_no_sketch_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Sketch.model_validate_json(text)


def test_a_bin_beyond_this_grid() -> None:
    grid = grid_of_range(400.0, 650.0)
    sketch = Sketch(steps=(257,), rows=(10,))
    assert not sketch.fits(grid)
    with pytest.raises(ValueError, match="doesn't have"):
        sketch.counts(grid)
    assert Sketch(steps=(256,), rows=(10,)).fits(grid)
