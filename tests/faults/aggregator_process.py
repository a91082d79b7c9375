"""The real aggregator as a process of the simulation: it may die at any commit, and starts again from its store."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sqlalchemy.exc import OperationalError

from aggregator.config import AggregatorConfig
from aggregator.service import Surroundings, run_aggregator
from aggregator.state import State
from aggregator.store import Entry, PendingEffect, Store
from tests.faults.broker import FaultyBroker, Killed
from tests.faults.truth import Truth
from tests.support.tiny_template import fake_golden

DAY_S = 86_400.0
EPOCH_S = 1_700_000_000.0
FAILURE, RESTART_S = 1, 5.0
DOWN_S = 60.0
"""The longest that a killed process stays away."""


class WatchedStore(Store):
    """Tells what became durable, and is where the process may die.

    Args: fate: called before a write; end: behind it. Both raise `Killed` where it dies, `fate` also what a disk says.
    """

    def __init__(self, url: str, truth: Truth, fate: Callable[[], None], end: Callable[[], None]) -> None:
        self._fate: Callable[[], None] = lambda: None  # opening is no write of the service
        super().__init__(url)
        self._truth = truth
        self._fate, self._end = fate, end

    def commit(self, entries: Sequence[Entry], state: State, done: Iterable[int] = ()) -> list[PendingEffect]:
        self._fate()
        found = super().commit(entries, state, done)
        self._truth.on_commit(entries, state)
        self._end()
        return found

    def put(self, name: str, value: object) -> None:
        self._fate()
        super().put(name, value)


class AggregatorProcess:
    """Runs until it is stopped, however often it is killed.

    Attributes:
        mortality: chance to die at a store write, before it or behind it.
        kill_at: the store write to die at; None: by chance alone.
        jumps: whether the wall clock jumps by a day while it is down.
        disk_is_full: nothing can be written.
    """

    def __init__(
        self, config: AggregatorConfig, broker: FaultyBroker, truth: Truth, rng: random.Random, now: Callable[[], float]
    ) -> None:
        self.mortality = 0.0
        self.kill_at: int | None = None
        self.jumps = False
        self.disk_is_full = False
        self.writes = 0
        self.deaths = 0
        self._config = config
        self._broker = broker
        self._truth = truth
        self._rng = rng
        self._now = now
        self._wall = EPOCH_S
        self._stop = asyncio.Event()
        self._life: asyncio.Task[int] | None = None
        self._dead = self._refused = False

    async def run(self) -> None:
        """One life after the other. Raises: AssertionError: an invariant, or an exit code that isn't 0."""
        while not self._stop.is_set():
            self._dead = self._refused = False
            offset = self._wall
            around = Surroundings(
                self._broker.connector(),
                fake_golden,
                clock=lambda offset=offset: offset + self._now(),  # type: ignore[misc]
                settle_s=1.0,
                open_store=lambda url: WatchedStore(url, self._truth, self._fate, self._end),
                rng=self._rng,
            )
            self._life = asyncio.create_task(run_aggregator(self._config, stop=self._stop, around=around))
            await asyncio.wait({self._life})
            if self._dead:
                self._life.cancelled() or self._life.exception()
                self.deaths += 1
                await asyncio.sleep(self._rng.uniform(0.0, DOWN_S))
                if self.jumps:
                    self._wall += self._rng.choice((-DAY_S, 0.0, DAY_S))
                continue
            code = self._life.result()
            if code == FAILURE and self._refused:  # a full disk at the start: who looks after it starts it again
                await asyncio.sleep(RESTART_S)
                continue
            assert code == 0, f"the aggregator ended with code {code}"

    def kill(self) -> None:
        """As by kill -9: the broker sees the connection end, and nothing more is written."""
        if self._life is None or self._life.done():
            return
        self._die()
        self._life.cancel()

    def stop(self) -> None:
        """As by SIGTERM."""
        self._stop.set()

    def _fate(self) -> None:
        if self._dead:
            raise Killed
        if self.disk_is_full:
            self._refused = True
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        self._end()

    def _end(self) -> None:
        if self._dead:
            raise Killed
        self.writes += 1
        if self.writes == self.kill_at or self._rng.random() < self.mortality:
            self._die()
            raise Killed

    def _die(self) -> None:
        self._dead = True
        client = f"{self._config.federation}-aggregator"
        if client in self._broker.clients:
            self._broker.drop(client)


def database(folder: Path) -> str:
    """A store that outlives a process as a disk does. Without waiting for one: each write is whole or not there."""
    return f"sqlite:///{folder / 'aggregator.db'}"
