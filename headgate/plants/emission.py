"""What a plant says: one message, with the time at which the thing it tells happened."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Emission"]


@dataclass(frozen=True, slots=True)
class Emission:
    """One message of a plant.

    Generators yield emissions in the order of publishing. `time_s` is event time (seconds since the epoch); it never
    runs ahead of the order of publishing, but a late or repeated message has a time before that of its predecessor.
    """

    time_s: float
    topic: str
    payload: bytes
    retain: bool = False
