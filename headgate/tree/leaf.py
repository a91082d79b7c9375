"""One topic's state: its last reading, how often and when it speaks, its last numbers. Pure; time is an argument."""

from __future__ import annotations

import math
from collections import deque

from headgate.tree.reading import Kind, Reading

HISTORY = 32
"""Numbers kept of each leaf."""
DECAY_S = 10.0
"""Time constant of the rates of messages and bytes."""
STALE_INTERVALS = 5.0
"""A leaf that was silent for this many of its usual intervals is stale."""
STALE_AFTER_S = 5.0
"""But none is stale sooner."""
_GAP_WEIGHT = 0.2
_FEW_GAPS = 3
_NOTHING = Reading(Kind.UNKNOWN, "")


class Leaf:
    """The messages of one topic, or of one Sparkplug metric.

    The rate is S / tau with S the decayed count of messages, corrected for a leaf younger than tau. A leaf slower than
    that window is told by its usual interval instead, an exponential mean of the gaps.
    """

    __slots__ = (
        "_amount", "_count", "_first", "gap", "gaps", "history", "is_retained", "messages", "offline", "payload",
        "payload_bytes", "reading", "seen", "unit",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.messages = 0
        """Live ones; copies that a broker had retained don't count."""
        self.is_retained = False
        """All that is known of it is a retained copy."""
        self.seen = now
        self.gap = math.inf
        """Usual seconds between two messages."""
        self.gaps = 0
        self.payload: bytes | None = None
        """Not read yet."""
        self.payload_bytes = 0
        self.reading = _NOTHING
        self.history: deque[float] = deque(maxlen=HISTORY)
        self.unit: str | None = None
        """From a configuration, where messages state none."""
        self.offline = False
        """Its Sparkplug node or device said its death since."""
        self._first = now
        self._count = 0.0
        self._amount = 0.0

    def arrived(self, payload_bytes: int, now: float, *, retain: bool) -> None:
        """Count one message. A retained copy says what the last value was, not that anything speaks."""
        self.payload_bytes = payload_bytes
        if retain and self.messages:
            return  # the copy of a new subscription
        decay = math.exp(-max(0.0, now - self.seen) / DECAY_S)
        self._amount = self._amount * decay + payload_bytes
        if retain:
            self.is_retained, self.seen = True, now
            return
        self._count = self._count * decay + 1
        if self.messages:
            gap = max(0.0, now - self.seen)
            self.gap = gap if self.gaps == 0 else self.gap + _GAP_WEIGHT * (gap - self.gap)
            self.gaps += 1
        self.messages += 1
        self.is_retained = self.offline = False
        self.seen = now

    def read(self, reading: Reading) -> None:
        """Take the last message as read; a number goes into the history, unless it is a retained copy."""
        self.reading = reading
        self.payload = None
        if reading.number is not None and not self.is_retained:
            self.history.append(reading.number)

    def rate(self, now: float) -> float:
        """Messages a second; 0 before the second one, for nobody knows how often it will speak."""
        if not self.gaps:
            return 0.0
        age = max(0.0, now - self.seen)
        if self.gap > DECAY_S / 2:
            return 1 / max(self.gap, age)
        return self._decayed(self._count, now)

    def load(self, now: float) -> float:
        """Messages a second in the last window, whatever they tell of the usual rate."""
        return self._decayed(self._count, now)

    def byte_rate(self, now: float) -> float:
        """Payload bytes a second."""
        return self._decayed(self._amount, now)

    def is_stale(self, now: float) -> bool:
        """Silent for far longer than usual, or told dead. A leaf of few messages has no usual interval."""
        if self.offline:
            return True
        usual = self.gap if self.gaps >= _FEW_GAPS else math.inf
        return now - self.seen > max(STALE_AFTER_S, STALE_INTERVALS * usual)

    def copy(self) -> Leaf:
        """The same for a display that stands still."""
        twin = Leaf(self._first)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.history = self.history.copy()
        return twin

    def _decayed(self, amount: float, now: float) -> float:
        observed = max(1.0, now - self._first)
        window = DECAY_S * -math.expm1(-observed / DECAY_S)
        return amount * math.exp(-max(0.0, now - self.seen) / DECAY_S) / window
