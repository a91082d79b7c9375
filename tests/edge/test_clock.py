"""Event time: the payload's, the arrival's, or the payload's on a clock that is off."""

from __future__ import annotations

import pytest

from edge.clock import FUTURE_TOLERANCE_S, OFFSET_MESSAGES, Clock, SourceClock


def test_payload_time_counts_however_old_it_is() -> None:
    assert SourceClock(Clock.PAYLOAD).event_time_s(10.0, 1e9) == (10.0, False)


def test_future_is_clamped_to_arrival() -> None:
    clock = SourceClock(Clock.PAYLOAD)
    assert clock.event_time_s(100.0 + FUTURE_TOLERANCE_S, 100.0) == (101.0, False)
    assert clock.event_time_s(101.5, 100.0) == (100.0, True)


def test_arrival_ignores_the_payload() -> None:
    assert SourceClock(Clock.ARRIVAL).event_time_s(None, 7.0) == (7.0, False)
    assert SourceClock(Clock.ARRIVAL).event_time_s(99.0, 7.0) == (7.0, False)


@pytest.mark.parametrize("clock", [Clock.PAYLOAD, Clock.OFFSET])
def test_a_missing_timestamp_is_no_time(clock: Clock) -> None:
    assert SourceClock(clock).event_time_s(None, 7.0) == (None, False)


def test_offset_is_the_median_and_follows_a_jump() -> None:
    clock = SourceClock(Clock.OFFSET)
    for second in range(100):  # one hour slow, each fourth message 5 s late
        arrival_s = 10_000.0 + second + (5.0 if second % 4 == 3 else 0.0)
        time_s, clamped = clock.event_time_s(10_000.0 + second - 3600.0, arrival_s)
        assert not clamped
    assert time_s == 10_000.0 + 99
    for second in range(100, 100 + OFFSET_MESSAGES):  # somebody sets the clock
        time_s, _ = clock.event_time_s(10_000.0 + second, 10_000.0 + second)
    assert time_s == 10_000.0 + 99 + OFFSET_MESSAGES
