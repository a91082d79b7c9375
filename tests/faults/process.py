"""A process of a simulation, which may die as by kill -9: its connection ends, and nothing more of it is written."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.faults.broker import FaultyBroker

DOWN_S = 60.0
"""The longest that a killed process stays away."""


class Killed(BaseException):
    """A process of the simulation dies here. Nothing that catches errors may catch it."""


class Mortal:
    """What can be killed.

    Attributes:
        mortality: chance to die at a write.
        deaths: so far.
    """

    def __init__(self, client: str, broker: FaultyBroker, rng: random.Random) -> None:
        self.mortality = 0.0
        self.deaths = 0
        self._client = client
        self._broker = broker
        self._rng = rng
        self._dead = False
        self._life: asyncio.Task[Any] | None = None

    async def live(self, life: asyncio.Task[Any]) -> bool:
        """One life. Returns: whether it was killed; it stays away for a while then. Raises: what ended it otherwise."""
        self._dead, self._life = False, life
        await asyncio.wait({life})
        if not self._dead:
            life.result()
            return False
        life.cancelled() or life.exception()
        self.deaths += 1
        await asyncio.sleep(self._rng.uniform(0.0, DOWN_S))
        return True

    def kill(self) -> None:
        """At any time, not at a write alone."""
        if self._life is None or self._life.done():
            return
        self._die()
        self._life.cancel()

    def write(self, *, dies: bool = False) -> None:
        """Called at each write, before it or behind it. Raises: Killed. Args: dies: by more than chance."""
        if self._dead:
            raise Killed
        if dies or self._rng.random() < self.mortality:
            self._die()
            raise Killed

    def _die(self) -> None:
        self._dead = True
        if self._client in self._broker.clients:
            self._broker.drop(self._client)
