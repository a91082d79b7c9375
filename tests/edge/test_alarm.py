"""Alarms with hysteresis: they come and go once, and the array form agrees with the one for single samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.alarm import AlarmMemory, AlarmState, Trip, activations, course, step

NAN = float("nan")


def states(trip: Trip, values: list[float]) -> list[bool]:
    state, found = AlarmState(), []
    for value in values:
        state = step(trip, state, value)
        found.append(state.active)
    return found


def test_an_alarm_ends_below_the_clear_level_only() -> None:
    trip = Trip(0.5, hysteresis=0.2)
    assert states(trip, [0.49, 0.5, 0.45, 0.401, 0.5, 0.4, 0.45]) == [False, True, True, True, True, False, False]


def test_low_values_may_be_the_bad_ones() -> None:
    trip = Trip(30, above=False, hysteresis=0.1)
    assert states(trip, [31, 30, 32, 29, 33, 34]) == [False, True, True, True, False, False]


def test_it_may_take_several_samples_in_a_row_to_end() -> None:
    trip = Trip(1.0, hysteresis=0.0, clear_samples=3)
    assert states(trip, [1, 0, 0, 1, 0, 0, NAN, 0, 0]) == [True] * 7 + [False, False]


def test_without_hysteresis_the_threshold_itself_decides() -> None:
    assert states(Trip(0.5, hysteresis=0.0), [0.5, 0.4999, 0.5]) == [True, False, True]
    assert states(Trip(0.0, hysteresis=0.5), [0.0, -1e-9]) == [True, False]


@pytest.mark.parametrize("threshold", [-2.0, -0.5])
def test_the_clear_level_lies_on_the_good_side_of_a_negative_threshold(threshold: float) -> None:
    assert Trip(threshold, above=True).clear < threshold
    assert Trip(threshold, above=False).clear > threshold


value = st.one_of(st.sampled_from([0.0, 0.3, 0.44, 0.45, 0.46, 0.5, 0.7, NAN]), st.floats(-1, 2))


@given(
    st.lists(value, max_size=40),
    st.builds(
        Trip, st.floats(-0.5, 1), st.booleans(), st.sampled_from([0.0, 0.1, 0.5]), st.integers(1, 4)
    ),
)  # fmt: skip
def test_activations_are_where_the_single_steps_turn_on(values: list[float], trip: Trip) -> None:
    on = states(trip, values)
    on_after = course(trip, np.array(values, np.float64))
    assert on_after.tolist() == on
    expected = [i for i, active in enumerate(on) if active and not (i and on[i - 1])]
    assert activations(on_after).tolist() == expected


def test_a_swap_judges_the_newest_sample_again_and_an_older_sample_changes_nothing() -> None:
    trip = Trip(0.5, clear_samples=2)
    memory = AlarmMemory().on(trip, 0.9, 10).on(trip, 0.1, 20)
    assert memory.now == AlarmState(True, 1)
    assert memory.on(trip, 0.1, 20).now == AlarmState(True, 1)  # not the second clear sample
    assert memory.on(trip, 0.1, 15) == memory
    assert memory.on(trip, 0.1, 30).now == AlarmState(False)


def test_boards_of_one_time_are_as_many_samples() -> None:
    memory = AlarmMemory().on(Trip(0.5, clear_samples=2), 0.9, 10, "a").on(Trip(0.5, clear_samples=2), 0.1, 10, "b")
    assert memory.now == AlarmState(True, 1)
    assert memory.on(Trip(0.5, clear_samples=2), 0.1, 10, "b").now == AlarmState(True, 1)
