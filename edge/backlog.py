"""Which samples are replayed: those that arrive later after their event than is usual. Pure, one instance at a time.

Clocks of plants are off, so what counts is not the lag itself but how far it lies above the smallest one of the last
day or two. A gateway that was away and sends what it has kept shows up so, a clock that is an hour behind does not.
"""

from __future__ import annotations

from dataclasses import dataclass

REMEMBERED_S = 86_400.0
"""Time of arrival over which the smallest lag is taken: the last whole one of these, and the one that runs."""
REPLAYED_AFTER_S = 120.0
"""A lag above the usual one by more is a replay, where the site says nothing else."""


@dataclass(frozen=True, slots=True)
class Lag:
    """The smallest lag, in seconds, of the period that runs and of the one before."""

    since_s: float
    least_s: float
    before_s: float


def follow(lag: Lag | None, time_s: float, arrival_s: float, after_s: float) -> tuple[Lag, bool]:
    """Take one sample in.

    Args: time_s: event time; arrival_s: when it was complete; after_s: a lag above the usual one by more is a replay.
    Returns: what to remember, and whether it is replayed.
    """
    seen = arrival_s - time_s
    if lag is None:
        return Lag(arrival_s, seen, seen), False
    if arrival_s >= lag.since_s + REMEMBERED_S:
        lag = Lag(arrival_s, seen, lag.least_s)
    lag = Lag(lag.since_s, min(lag.least_s, seen), lag.before_s)
    return lag, seen > min(lag.least_s, lag.before_s) + after_s
