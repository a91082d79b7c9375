"""The loop around the reducer: events in order, each batch committed before anything is done about it.

While one batch is being written the next one gathers, so that a burst of events costs few commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from aggregator.events import Event, Tick
from aggregator.narrate import lines
from aggregator.reducer import next_deadline, step
from aggregator.state import State
from aggregator.store import Entry, PendingEffect, Store
from aggregator.tally import Tally

_LOG = logging.getLogger("headgate.aggregator")
MAX_BATCH = 256
MAX_WAITING = 10_000
"""Events that wait to be committed before nothing more is taken from outside."""
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between tries to write the store, the last one from then on."""
Result = TypeVar("Result")
_TIMES = ("at", "presence", "bridges")


@dataclass
class _Input:
    event: Event
    attachments: Mapping[str, bytes]
    committed: asyncio.Future[None] | None = field(default=None)


class Core:
    """Owns the state of a running aggregator.

    Args:
        clock: the aggregator's clock, seconds; it never goes back.
        perform: called with each effect once its event is durable, in order; must not block.
    """

    def __init__(
        self, store: Store, state: State, clock: Callable[[], float], perform: Callable[[PendingEffect], None]
    ) -> None:
        self._store = store
        self._state = state
        self._clock = clock
        self._perform = perform
        self._inputs: asyncio.Queue[_Input] = asyncio.Queue()
        self._done: list[int] = []
        self.tally = Tally()
        """What happened since the start."""
        self.stuck: str | None = None
        """Why the store can't be written; None while it can."""

    @property
    def state(self) -> State:
        """The state after the last durable event."""
        return self._state

    def now(self) -> float:
        """The aggregator's clock."""
        return self._clock()

    @property
    def has_room(self) -> bool:
        """Whether more may be taken from outside. Answers to effects always find room: there are few."""
        return self._inputs.qsize() < MAX_WAITING

    def submit(self, event: Event, attachments: Mapping[str, bytes] | None = None) -> None:
        """Something happened."""
        self._inputs.put_nowait(_Input(event, attachments or {}))

    async def apply(self, event: Event) -> None:
        """Something happened; return once it is durable and `state` knows."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inputs.put_nowait(_Input(event, {}, committed))
        await committed

    def performed(self, effect: int) -> None:
        """An effect was performed; the next commit takes it from the pending ones."""
        self._done.append(effect)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._handle(await self._next_batch())

    async def _next_batch(self) -> list[_Input]:
        due = next_deadline(self._state)
        wait_s = None if due is None else max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(wait_s):
                batch = [await self._inputs.get()]
        except TimeoutError:
            return [_Input(Tick(), {})]
        while len(batch) < MAX_BATCH and not self._inputs.empty():
            batch.append(self._inputs.get_nowait())
        return batch

    async def _handle(self, batch: list[_Input]) -> None:
        state, entries = self._state, []
        for one in batch:
            now = max(self._clock(), state.at)
            after, outputs = step(state, one.event, now)
            if outputs or _is_material(state, after):
                entries.append(Entry(one.event, now, outputs, one.attachments))
            state = after
        pending: list[PendingEffect] = []
        if entries:
            done, self._done = self._done, []
            pending = await self._commit(entries, state, done)
        self._state = state
        for entry in entries:
            self.tally.take(entry.outputs)
            for level, text in lines(entry.outputs, state):
                _LOG.log(level, text)
        for one in batch:
            if one.committed is not None and not one.committed.done():
                one.committed.set_result(None)
        for effect in pending:
            self._perform(effect)

    async def _commit(self, entries: Sequence[Entry], state: State, done: Iterable[int]) -> list[PendingEffect]:
        """Write until it is written.

        A commit of which nobody knows whether it came through is written again: its effects are idempotent, its records
        replace themselves, and of receipts the first one counts. Its events stand twice in the log then.
        """

        def on_failure(why: str) -> None:
            if self.stuck is None:
                _LOG.error("the store can't be written (%s): nothing is decided until it can; trying again", why)
            self.stuck = why

        found = await persist(lambda: asyncio.to_thread(self._store.commit, entries, state, done), on_failure)
        if self.stuck is not None:
            _LOG.warning("the store can be written again")
            self.stuck = None
        return found


async def persist(work: Callable[[], Awaitable[Result]], on_failure: Callable[[str], None]) -> Result:
    """What `work` returns once the store lets it: a full disk, or a database that is away, ends no federation.

    Args: work: may be begun again. on_failure: told why, each time that it has to be.
    """
    tried = 0
    while True:
        try:
            return await work()
        except OperationalError as error:
            on_failure(str(error.orig or error).partition("\n")[0])
            await asyncio.sleep(RETRY_S[min(tried, len(RETRY_S) - 1)])
            tried += 1


def _is_material(before: State, after: State) -> bool:
    """Whether an event without outputs changed more than when somebody was last heard.

    A heartbeat that says nothing new needs no commit: after a restart presence is learnt anew.
    """
    for name in State.model_fields:
        if name not in _TIMES and getattr(before, name) is not getattr(after, name):
            return True
    if before.presence is not after.presence:
        if before.presence.keys() != after.presence.keys():
            return True
        for participant, known in after.presence.items():
            old = before.presence[participant]
            if known is not old and (known.boot, known.status, known.offline_since) != (
                old.boot,
                old.status,
                old.offline_since,
            ):
                return True
    if before.bridges is not after.bridges:
        return {n: (b.boot, b.birth, b.online) for n, b in before.bridges.items()} != {
            n: (b.boot, b.birth, b.online) for n, b in after.bridges.items()
        }
    return False
