"""When something happened: event time from a payload's own timestamp, its arrival, or both. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from enum import StrEnum

FUTURE_TOLERANCE_S = 1.0
"""A payload may be this far ahead of its arrival before it is clamped: clocks differ and messages are fast."""
OFFSET_MESSAGES = 64
"""The offset of a source's clock is the median over this many messages: a jump is followed after half of them."""


class Clock(StrEnum):
    """Where a source's event time comes from."""

    PAYLOAD = "payload"
    ARRIVAL = "arrival"
    OFFSET = "offset"
    """Payload plus estimated offset: for a source whose clock is wrong but steady."""


class SourceClock:
    """The clock of one source at one instance. A history that is replayed fast keeps its true event times."""

    __slots__ = ("_clock", "_differences", "_ordered")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._differences: deque[float] = deque()
        self._ordered: list[float] = []

    def event_time_s(
        self, payload_s: float | None, arrival_s: float, *, live: bool = True
    ) -> tuple[float | None, bool]:
        """Event time, and whether it had to be clamped because it lay in the future.

        Args:
            payload_s: the payload's timestamp, None where it has none.
            live: it is said as it happens; otherwise its arrival says nothing of the time.

        Returns: None where a payload's timestamp is needed and missing, or there and can't be told from the arrival.
        """
        if self._clock is Clock.ARRIVAL:
            return (arrival_s if live else None), False
        if payload_s is None:
            return None, False
        if self._clock is Clock.OFFSET:
            payload_s += self._offset_s(arrival_s - payload_s) if live else self._known_offset_s()
        if payload_s > arrival_s + FUTURE_TOLERANCE_S:
            return arrival_s, True
        return payload_s, False

    def _offset_s(self, difference_s: float) -> float:
        """Median of arrival - payload over the last messages, this one included."""
        self._differences.append(difference_s)
        insort(self._ordered, difference_s)
        if len(self._differences) > OFFSET_MESSAGES:
            oldest = self._differences.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
        return self._known_offset_s()

    def _known_offset_s(self) -> float:
        return self._ordered[len(self._ordered) // 2] if self._ordered else 0.0
