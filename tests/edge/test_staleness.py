"""Inputs that have stopped, and inputs that come late."""

from __future__ import annotations

import pytest

from edge.backlog import REMEMBERED_S, Lag, follow
from edge.staleness import SHORTEST_S, UNKNOWN_S, USUAL_GAPS, Staleness


def test_an_instance_is_stale_once_and_comes_back_by_itself() -> None:
    known = Staleness(30)
    assert known.due_s is None
    known.heard("a", 100)
    known.heard("b", 110)
    assert known.due_s == 130
    assert known.newly(129.9) == []
    assert known.newly(130) == ["a"]
    assert (known.newly(135), known.due_s, known.share) == ([], 140, 0.5)
    known.heard("a", 136)
    assert (known.share, known.due_s) == (0.0, 140)
    assert known.newly(170) == ["a", "b"]


def test_the_age_follows_what_is_usual_and_a_pause_is_not() -> None:
    known = Staleness()
    known.heard("a", 0)
    assert known.due_s == UNKNOWN_S
    for index in range(1, 50):
        known.heard("a", index * 30)
    assert known.due_s == pytest.approx(49 * 30 + USUAL_GAPS * 30)
    assert known.newly(5000) == ["a"]
    known.heard("a", 100_000)
    assert known.usual_s("a") == pytest.approx(30)
    fast = Staleness()
    for index in range(50):
        fast.heard("a", index * 0.01)
    assert fast.due_s == pytest.approx(0.49 + SHORTEST_S)


def test_after_a_restart_the_age_counts_from_then() -> None:
    known = Staleness()
    known.restore("a", 1000, 30)
    known.restore("b", 1000, None)
    assert known.newly(1000 + USUAL_GAPS * 30) == ["a"]
    assert known.due_s == 1000 + UNKNOWN_S


def flags(samples: list[tuple[float, float]], after_s: float = 60, lag: Lag | None = None) -> list[bool]:
    found = []
    for time_s, arrival_s in samples:
        lag, replayed = follow(lag, time_s, arrival_s, after_s)
        found.append(replayed)
    return found


def test_what_a_gateway_kept_is_replayed_and_a_clock_that_is_off_is_not() -> None:
    live = [(t, t + 3600 + 0.1) for t in range(0, 300, 30)]  # an hour behind
    kept = [(t, 1000 + 3600 + t / 1000) for t in range(300, 900, 30)]
    assert not any(flags(live))
    assert flags([*live, *kept, (1000, 4600.5)])[len(live) :] == [*[True] * len(kept), False]


def test_a_simulation_that_runs_fast_is_not_replayed() -> None:
    assert not any(flags([(t * 1000.0, 1e9 + t) for t in range(100)]))


def test_a_clock_that_was_set_back_is_the_new_usual_in_two_days() -> None:
    live = [(float(t), float(t)) for t in range(0, 3600, 600)]
    later = [(t - 3600.0, float(t)) for t in range(3600, int(2.2 * REMEMBERED_S), 600)]
    found = flags([*live, *later])
    assert found[len(live)]
    assert not found[-1]
