"""The weighted mean: right, the same bits whatever the order, and with named errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import kept
from aggregator.fold import BLOCK, GROUP, EmptyCohort, FoldError, ZeroWeight, capped, weighted_mean, weighted_sum
from aggregator.updates import ArrayUpdates, decoded
from tests.support.tiny_template import tiny_template
from uns_topics.tensors import Role
from uns_topics.update import UpdateHeader, encode_update, pack_groups

RNG = np.random.default_rng(0)
SIZE = 2 * BLOCK + 17
ROWS = [RNG.normal(0, 1, SIZE).astype(np.float32) for _ in range(7)]
NAMES = tuple("gfedcba")
WEIGHTS = (1, 10, 100, 7, 3, 50_000, 2)


def test_against_float64() -> None:
    mean = weighted_mean(ArrayUpdates(NAMES, WEIGHTS, ROWS))
    expected = np.average(np.array(ROWS, np.float64), axis=0, weights=WEIGHTS)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=2e-6, atol=1e-7)


def test_one_participant_may_come_twice() -> None:
    updates = ArrayUpdates(("b", "a", "b"), (1, 2, 3), ROWS[:3], steps=(4, 5, 6), staleness=(1, 0, 0))
    assert updates.participants == ("a", "b", "b")
    assert (updates.weights, updates.steps, updates.staleness) == ((2, 1, 3), (5, 4, 6), (0, 1, 0))
    for block, row in zip(updates.blocks(0, 9), (ROWS[1], ROWS[0], ROWS[2]), strict=True):
        np.testing.assert_array_equal(block, row[:9])


@pytest.mark.parametrize("count", [1, 2, GROUP, GROUP + 1, 100, 1000])
def test_the_error_does_not_grow_with_the_cohort(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = rng.normal(1, 1, (count, 257)).astype(np.float32)
    factors = (rng.uniform(0.1, 1, count) / count).tolist()
    found = weighted_sum(ArrayUpdates([f"{i:04}" for i in range(count)], [1] * count, rows), factors)
    terms = np.array(factors)[:, None] * rows.astype(np.float64)
    bound = (GROUP + 2) * 2.0**-24 * np.abs(terms).sum(axis=0)
    assert (np.abs(found - terms.sum(axis=0)) <= bound).all()


@given(st.permutations(range(len(NAMES))))
def test_any_order_of_arrival_gives_the_same_bits(order: list[int]) -> None:
    mixed = ArrayUpdates([NAMES[i] for i in order], [WEIGHTS[i] for i in order], [ROWS[i] for i in order])
    assert mixed.participants == tuple(sorted(NAMES))
    assert weighted_mean(mixed).tobytes() == weighted_mean(ArrayUpdates(NAMES, WEIGHTS, ROWS)).tobytes()


def test_updates_can_be_read_again_and_not_written() -> None:
    updates = ArrayUpdates(NAMES, WEIGHTS, ROWS)
    first = [block.copy() for block in updates.blocks(3, 9)]
    assert all(np.array_equal(a, b) for a, b in zip(first, updates.blocks(3, 9), strict=True))
    with pytest.raises(ValueError, match="read-only"):
        next(updates.blocks(0, 2))[0] = 1.0


def test_named_errors() -> None:
    with pytest.raises(EmptyCohort):
        weighted_mean(ArrayUpdates((), (), []))
    with pytest.raises(ZeroWeight):
        weighted_mean(ArrayUpdates(["a"], [0], ROWS[:1]))
    with pytest.raises(FoldError, match="negative"):
        weighted_mean(ArrayUpdates(["a", "b"], [1, 1], ROWS[:2]), [2.0, -1.0])


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any), st.floats(0.05, 1.0))
def test_a_cap_on_shares(weights: list[int], cap: float) -> None:
    shares = capped(weights, cap)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0
    assert max(shares) <= max(cap, 1 / len(weights)) + 1e-12


def test_a_cap_leaves_small_ones_in_proportion() -> None:
    assert capped([80, 15, 5], 0.5) == pytest.approx((0.5, 0.375, 0.125))
    assert capped([1, 2, 1], 1.0) == (0.25, 0.5, 0.25)


@pytest.mark.parametrize("spooled", [False, True])
def test_stored_updates_are_decoded_by_role(spooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if spooled:
        monkeypatch.setattr(kept, "SPOOL_ABOVE_BYTES", 0)
    table = tiny_template(buffer=True).table
    stored, vectors = {}, {}
    for i, name in enumerate(("b", "a")):
        delta = np.full(table.size, i + 1.0, np.float32)
        groups, body = pack_groups(delta, table, "f32")
        header = UpdateHeader(
            federation="tiny",
            participant=name,
            round_number=1,
            attempt=1,
            base="0" * 64,
            generation=1,
            num_examples=1,
            num_steps=11 + i,
            groups=groups,
        )
        stored[name], vectors[name] = encode_update(header, body), delta
    with decoded(("b", "a"), (1, 3), lambda i: stored["ba"[i]], table, ("f32",), tmp_path) as (weights, buffers):
        assert weights.participants == ("a", "b")
        assert weights.weights == (3, 1)
        assert weights.steps == (12, 11)
        for _ in range(2):
            for start, stop in ((0, 1), (3, weights.size)):
                expected = [np.full(stop - start, value, np.float32) for value in (2.0, 1.0)]
                np.testing.assert_array_equal(list(weights.blocks(start, stop)), expected)
        with pytest.raises(ValueError, match="read-only"):
            next(weights.blocks(0, 2))[0] = 1.0
        assert buffers.size == table.elements(Role.BUFFER) == 1
        assert weights.size == table.elements(Role.WEIGHT)
        assert weights.controls is None
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spooled", [False, True])
def test_control_variates_are_decoded_beside_their_deltas(
    spooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spooled:
        monkeypatch.setattr(kept, "SPOOL_ABOVE_BYTES", 0)
    table = tiny_template(buffer=True).table
    size = table.elements(Role.WEIGHT)
    stored = {}
    for i, name in enumerate(("b", "a")):
        control = np.full(size, 5.0 + i, np.float32)
        groups, body = pack_groups(np.full(table.size, i + 1.0, np.float32), table, "ternary", control)
        header = UpdateHeader(
            federation="tiny", participant=name, round_number=1, attempt=1, base="0" * 64, generation=1,
            num_examples=1, num_steps=11, groups=groups,
        )  # fmt: skip
        stored[name] = encode_update(header, body)
    with decoded(("b", "a"), (1, 3), lambda i: stored["ba"[i]], table, ("ternary",), tmp_path, control=True) as (
        weights,
        _,
    ):
        controls = weights.controls
        assert controls is not None
        assert (controls.participants, controls.size) == (weights.participants, size)
        np.testing.assert_array_equal(list(controls.blocks(2, size)), [[6.0] * (size - 2), [5.0] * (size - 2)])
    with (
        pytest.raises(ValueError, match="doesn't fit"),
        decoded(("b", "a"), (1, 3), lambda i: stored["ba"[i]], table, ("ternary",), tmp_path),
    ):
        pass
