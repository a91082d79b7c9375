"""The real aggregator as a process of the simulation: it may die at any commit, and starts again from its store."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy.exc import OperationalError

from aggregator.config import AggregatorConfig
from aggregator.service import Surroundings, run_aggregator
from aggregator.state import State
from aggregator.store import Entry, PendingEffect, Store
from tests.faults.broker import FaultyBroker
from tests.faults.process import Mortal
from tests.faults.truth import Truth
from tests.support.tiny_template import fake_golden

DAY_S = 86_400.0
EPOCH_S = 1_700_000_000.0
FAILURE, RESTART_S = 1, 5.0


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


class AggregatorProcess(Mortal):
    """Runs until it is stopped, however often it is killed.

    Attributes:
        kill_at: the store write to die at; None: by chance alone.
        jumps: whether the wall clock jumps by a day while it is down.
        disk_is_full: nothing can be written.
    """

    def __init__(
        self, config: AggregatorConfig, broker: FaultyBroker, truth: Truth, rng: random.Random, now: Callable[[], float]
    ) -> None:
        super().__init__(f"{config.federation}-aggregator", broker, rng)
        self.kill_at: int | None = None
        self.jumps = False
        self.disk_is_full = False
        self.writes = 0
        self._config = config
        self._truth = truth
        self._now = now
        self._wall = EPOCH_S
        self._stop = asyncio.Event()
        self._refused = False

    async def run(self) -> None:
        """One life after the other. Raises: AssertionError: an invariant, or an exit code that isn't 0."""
        while not self._stop.is_set():
            self._refused = False
            offset = self._wall
            around = Surroundings(
                self._broker.connector(),
                fake_golden,
                clock=lambda offset=offset: offset + self._now(),  # type: ignore[misc]
                settle_s=1.0,
                open_store=lambda url: WatchedStore(url, self._truth, self._fate, self._end),
                rng=self._rng,
            )
            life = asyncio.create_task(run_aggregator(self._config, stop=self._stop, around=around))
            if await self.live(life):
                if self.jumps:
                    self._wall += self._rng.choice((-DAY_S, 0.0, DAY_S))
            elif life.result() == FAILURE and self._refused:  # a full disk at the start: it is started again
                await asyncio.sleep(RESTART_S)
            else:
                assert life.result() == 0, f"the aggregator ended with code {life.result()}"

    def stop(self) -> None:
        """As by SIGTERM."""
        self._stop.set()

    def _fate(self) -> None:
        if self.disk_is_full and not self._dead:
            self._refused = True
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        self._end()

    def _end(self) -> None:
        if not self._dead:
            self.writes += 1
        self.write(dies=self.writes == self.kill_at)
