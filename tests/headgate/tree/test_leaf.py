"""Rates, ages, staleness and history of one topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.tree.leaf import DECAY_S, HISTORY, Leaf
from headgate.tree.reading import Kind, Reading


def spoken(times: list[float], payload_bytes: int = 10) -> Leaf:
    leaf = Leaf(times[0])
    for at in times:
        leaf.arrived(payload_bytes, at, retain=False)
    return leaf


@pytest.mark.parametrize("per_second", [1.0, 7.0, 100.0])
@pytest.mark.parametrize("seconds", [5, 60])
def test_a_steady_rate_is_found_soon(per_second: float, seconds: int) -> None:
    times = [i / per_second for i in range(int(seconds * per_second) + 1)]
    leaf = spoken(times)
    assert leaf.rate(times[-1]) == pytest.approx(per_second, rel=0.25)
    assert leaf.byte_rate(times[-1]) == pytest.approx(10 * per_second, rel=0.25)


def test_a_slow_topic_is_told_by_its_interval() -> None:
    leaf = spoken([0.0, 60.0, 120.0])
    assert leaf.rate(121.0) == leaf.rate(170.0) == pytest.approx(1 / 60)
    assert leaf.rate(240.0) == pytest.approx(1 / 120)


def test_a_rate_decays_and_one_message_has_none() -> None:
    leaf = spoken([i / 10 for i in range(600)])
    assert leaf.rate(60.0 + 10 * DECAY_S) < 0.01
    once = spoken([0.0])
    assert once.rate(0.1) == 0.0
    assert once.load(0.1) == pytest.approx(1.0, rel=0.1)


def test_stale_is_silence_for_long_compared_with_the_usual() -> None:
    leaf = spoken([0.0, 10.0, 20.0, 30.0])
    assert not leaf.is_stale(79.0)
    assert leaf.is_stale(81.0)
    fast = spoken([0.0, 0.1, 0.2, 0.3])
    assert not fast.is_stale(5.2)
    assert fast.is_stale(5.4)
    assert not spoken([0.0, 0.1]).is_stale(1e6)  # nobody knows how often it speaks


def test_a_retained_copy_is_a_value_and_no_message() -> None:
    leaf = Leaf(0.0)
    leaf.arrived(10, 0.0, retain=True)
    leaf.read(Reading(Kind.NUMBER, "1", 1.0))
    assert (leaf.is_retained, leaf.messages, list(leaf.history)) == (True, 0, [])
    leaf.arrived(10, 5.0, retain=False)
    leaf.read(Reading(Kind.NUMBER, "2", 2.0))
    assert (leaf.is_retained, leaf.messages, list(leaf.history)) == (False, 1, [2.0])
    leaf.arrived(10, 50.0, retain=True)
    assert (leaf.is_retained, leaf.messages, leaf.seen) == (False, 1, 5.0)


@given(st.lists(st.tuples(st.floats(-1e3, 1e6), st.booleans()), min_size=1, max_size=60))
def test_any_times_give_finite_figures(said: list[tuple[float, bool]]) -> None:
    leaf = Leaf(said[0][0])
    for at, retain in said:
        leaf.arrived(10, at, retain=retain)
        leaf.read(Reading(Kind.NUMBER, "1", at))
    for at in (said[-1][0], said[0][0], 1e7):
        assert 0 <= leaf.load(at) <= len(said) + 1
        assert 0 <= leaf.byte_rate(at) < 1e6
        assert leaf.rate(at) >= 0
    assert len(leaf.history) <= HISTORY


def test_a_copy_stands_still() -> None:
    leaf = spoken([0.0, 1.0])
    leaf.read(Reading(Kind.NUMBER, "1", 1.0))
    twin = leaf.copy()
    leaf.arrived(10, 2.0, retain=False)
    leaf.read(Reading(Kind.NUMBER, "2", 2.0))
    assert (twin.messages, twin.seen, list(twin.history), twin.reading.text) == (2, 1.0, [1.0], "1")
