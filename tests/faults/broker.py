"""The broker of a simulation: it loses, repeats, delays and reorders what it delivers, while the weather is bad."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import Message

JITTER_S = 0.05
REPEATS = 10
"""Copies of one message, at most."""
REPEATED_WITHIN_S = 60.0
_ANY_TIME = ("/update/", "/receipt/", "/evaluation")
"""Topics whose copies may come at any time; those of others stay in order, as MQTT promises for one topic."""


@dataclass(frozen=True)
class Weather:
    """Shares of deliveries. Attributes: late_s: the longest delay."""

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    late_s: float = 0.0


class FaultyBroker(MemoryBroker):
    """Args: now: the simulation's clock."""

    def __init__(self, rng: random.Random, weather: Weather, now: Callable[[], float]) -> None:
        super().__init__()
        self.weather: Weather | None = weather
        """None: it is calm, and everything arrives at once."""
        self._rng = rng
        self._now = now
        self._not_before: dict[tuple[str, str], float] = {}

    def deliveries(self, client_id: str, message: Message) -> Sequence[float]:
        """Seconds after which it comes, in order for each topic; nothing where it is lost."""
        rng, weather = self._rng, self.weather
        if weather is None:
            return (0.0,)
        drawn = rng.random()
        if drawn < weather.lost:
            return ()
        after = rng.uniform(0.0, JITTER_S)
        if drawn < weather.lost + weather.late:
            after = rng.uniform(0.0, weather.late_s)
        copies = [after]
        if rng.random() < weather.repeated:
            spread = REPEATED_WITHIN_S if any(part in message.topic for part in _ANY_TIME) else 0.0
            copies += [after + rng.uniform(0.0, spread) for _ in range(rng.randint(1, REPEATS - 1))]
        return self._in_order(client_id, message.topic, copies)

    def _in_order(self, client_id: str, topic: str, copies: Sequence[float]) -> Sequence[float]:
        now = self._now()
        key = (client_id, topic)
        earliest = self._not_before.get(key, 0.0)
        self._not_before[key] = max(earliest, now + copies[0])
        return [max(after, earliest - now) for after in copies]
