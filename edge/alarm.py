"""One instance's alarm: on where its value passes the threshold, off only once it is clearly back. Pure.

A value that wavers around the threshold would switch lamps and fill alarm lists (ISA-18.2 calls it chattering, and
names deadband and off-delay as its cures). So an alarm ends below `threshold - hysteresis * |threshold|`, and after as
many samples in a row as the site asks for. "Past" and "below" are turned round where low values are bad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trip:
    """When an alarm comes and goes.

    Attributes:
        above: high values are bad. hysteresis: of the threshold, in [0, 1).
        clear_samples: in a row past the clear level before it ends.
    """

    threshold: float
    above: bool = True
    hysteresis: float = 0.1
    clear_samples: int = 1

    @property
    def clear(self) -> float:
        """The level beyond which an alarm may end."""
        width = self.hysteresis * abs(self.threshold)
        return self.threshold - width if self.above else self.threshold + width

    def is_past(self, value: float) -> bool:
        """Whether one value is past the threshold; NaN is not."""
        return value >= self.threshold if self.above else value <= self.threshold

    def flags(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Which values are past the threshold, each by itself; NaN is not."""
        return values >= self.threshold if self.above else values <= self.threshold

    def clears(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Which values are clearly back; NaN is not. One on the clear level is, where that is not the threshold."""
        back = values <= self.clear if self.above else values >= self.clear
        return back & ~self.flags(values)


@dataclass(frozen=True, slots=True)
class AlarmState:
    """Attributes: active: the alarm is on; cleared: samples in a row that were clearly back."""

    active: bool = False
    cleared: int = 0


def step(trip: Trip, state: AlarmState, value: float) -> AlarmState:
    """The next sample in event time; one that is no number changes nothing."""
    back = value <= trip.clear if trip.above else value >= trip.clear
    if trip.is_past(value):
        return AlarmState(True)
    if not state.active or not back:
        return AlarmState(state.active) if value == value else state
    cleared = state.cleared + 1
    return AlarmState() if cleared >= trip.clear_samples else AlarmState(True, cleared)


def course(trip: Trip, values: Floats) -> npt.NDArray[np.bool_]:
    """Whether the alarm is on after each sample of one instance, in event time. Args, returns: shape (n,)."""
    known = np.flatnonzero(~np.isnan(values))
    place = np.arange(len(known))
    flagged, back = trip.flags(values[known]), trip.clears(values[known])
    last_other = np.maximum.accumulate(np.where(back, -1, place))
    ends = back & (place - last_other >= trip.clear_samples)
    last_on = np.maximum.accumulate(np.where(flagged, place, -1))
    last_off = np.maximum.accumulate(np.where(ends, place, -1))
    before = np.searchsorted(known, np.arange(len(values)), side="right") - 1  # NaN changes nothing
    return np.where(before >= 0, (last_on > last_off)[before], False) if len(known) else np.zeros(len(values), bool)


def activations(on: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Places at which an alarm comes on. Args: on: its `course`."""
    return np.flatnonzero(on & ~np.concatenate(([False], on[:-1])))


@dataclass(frozen=True, slots=True)
class AlarmMemory:
    """What outlives a sample, and a restart: a model that is swapped in judges the newest sample once more.

    Attributes: before: the newest sample; now: after it; time_s: its event time, minus infinity before any; key: its
    key, since boards of one panel may bear the same time.
    """

    before: AlarmState = AlarmState()
    now: AlarmState = AlarmState()
    time_s: float = float("-inf")
    key: str = ""

    def on(self, trip: Trip, value: float, time_s: float, key: str = "") -> AlarmMemory:
        """One more sample, or the newest once more; one that is older than the newest changes nothing."""
        if time_s < self.time_s:
            return self
        before = self.before if (time_s, key) == (self.time_s, self.key) else self.now
        return AlarmMemory(before, step(trip, before, value), time_s, key)
