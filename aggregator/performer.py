"""Doing what the reducer decided. Each effect is idempotent: it shows or makes what the state says now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import OperationalError

from aggregator import statistics
from aggregator.combine import combine, control_of, decode_state, encode_state
from aggregator.core import Core, persist
from aggregator.effects import (
    Aggregate,
    AnnounceRound,
    Effect,
    FillBootstrap,
    PrepareVersion,
    PublishCandidate,
    PublishCurrent,
    PublishHistory,
    PublishReference,
    PublishStatus,
    RefreshRound,
    SendReceipt,
)
from aggregator.events import Event, RoundAnnounced, VersionMade, VersionPrepared, VersionPublished, WorkFailed
from aggregator.registry import Registry
from aggregator.showcase import Showcase
from aggregator.state import Phase, State, VersionRef
from aggregator.store import MANIFEST, STEP, STEP_RESIDUAL, STRATEGY_STATE, PendingEffect, Store
from aggregator.strategies.base import CONTROL, Strategy
from aggregator.updates import decoded
from uns_topics.rounds import Receipt
from uns_topics.steps import make_step
from uns_topics.template import Lineage
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes

KEPT_VECTORS = 20
_LOG = logging.getLogger("headgate.aggregator")


@dataclass(frozen=True)
class Workshop:
    """What versions are made with."""

    store: Store
    registry: Registry
    strategy: Strategy
    encodings: tuple[str, ...]
    scratch: Path
    downlink: str | None = None
    """Encoding of steps from version to version."""
    control: bool = False
    """Whether versions and updates carry control variates."""
    keep_rounds: int = 2
    """Rounds whose updates are kept whole."""


_SHOWN = (RefreshRound, PublishStatus, PublishReference, PublishHistory, PublishCurrent)
"""Effects that are quick and whose order people see: performed one after the other."""


class Performer:
    """Performs effects as named tasks of one group; what only shows something is performed in order by `run`.

    Args: answer: sends a receipt.
    """

    def __init__(
        self,
        core: Core,
        workshop: Workshop,
        showcase: Showcase,
        answer: Callable[[str, Receipt], None],
        group: asyncio.TaskGroup,
    ) -> None:
        self._core = core
        self._workshop = workshop
        self._showcase = showcase
        self._answer = answer
        self._group = group
        self._lane: asyncio.Queue[PendingEffect] = asyncio.Queue()

    async def run(self) -> None:
        """Show what is to be shown, until cancelled."""
        while True:
            await self._through(await self._lane.get())

    def perform(self, pending: PendingEffect) -> None:
        """Start it; it counts as performed when it is through."""
        effect = pending.effect
        if isinstance(effect, SendReceipt):
            self._answer(effect.participant, Receipt(id=effect.transfer, result=effect.result, code=effect.code))
            self._core.performed(pending.id)
        elif isinstance(effect, _SHOWN):
            self._lane.put_nowait(pending)
        else:
            self._group.create_task(self._through(pending), name=f"aggregator {effect.kind}")

    async def _through(self, pending: PendingEffect) -> None:
        effect = pending.effect

        async def work() -> None:
            if is_due(self._core.state, effect):
                await self._do(effect)

        await persist(work, lambda why: _LOG.warning("%s waits for the store: %s", effect.kind, why))
        self._core.performed(pending.id)

    async def _do(self, effect: Effect) -> None:
        match effect:
            case AnnounceRound():
                await self._showcase.show_round()
                self._core.submit(RoundAnnounced(round_number=effect.round_number, attempt=effect.attempt))
            case RefreshRound():
                self._showcase.refresh_round()
            case PublishStatus():
                self._showcase.refresh_status()
            case PublishReference():
                await self._showcase.show_reference()
            case PublishHistory():
                await self._showcase.show_history()
                await self._tidy()
            case PublishCurrent():
                await self._showcase.show_versions()
            case PublishCandidate():
                await self._showcase.show_versions()
                await self._showcase.flush_versions()
                self._core.submit(VersionPublished(version=effect.version))
            case Aggregate():
                await self._work(effect.version, lambda: aggregate(self._workshop, self._core.state, effect))
            case FillBootstrap():
                await self._work(effect.version, lambda: fill(self._workshop, self._core.state, effect))
            case PrepareVersion():
                chunk_bytes = self._showcase.chunk_bytes
                await self._work(effect.version, lambda: prepare(self._workshop, self._core.state, effect, chunk_bytes))
            case SendReceipt():
                pass  # sent at once, in `perform`

    async def _tidy(self) -> None:
        try:
            await asyncio.to_thread(tidy, self._workshop, self._core.state)
        except (OperationalError, OSError) as error:  # a full disk: the next round's end tidies for both
            _LOG.warning("what is no longer needed couldn't be let go of: %s", str(error).splitlines()[0])

    async def _work(self, version: int, work: Callable[[], tuple[Event, dict[str, bytes]]]) -> None:
        """Work in a thread. Whatever it raises fails the round, never the service: the next round may do better."""
        try:
            event, attachments = await asyncio.to_thread(work)
        except Exception as error:
            _LOG.exception("version %d couldn't be made", version)
            self._core.submit(WorkFailed(version=version, detail=f"{type(error).__name__}: {error}"[:500]))
        else:
            self._core.submit(event, attachments)


def is_due(state: State, effect: Effect) -> bool:
    """Whether the state still waits for this: after a crash an effect may be pending whose answer is stored already."""
    bootstrap, candidate, current = state.bootstrap, state.candidate, state.round
    match effect:
        case AnnounceRound():
            if state.phase is not Phase.OPEN or current is None:
                return False
            return (current.number, current.attempt) == (effect.round_number, effect.attempt)
        case FillBootstrap():
            return bootstrap is not None and bootstrap.filling and bootstrap.version == effect.version
        case Aggregate():
            return state.phase is Phase.AGGREGATING and candidate is not None and candidate.version == effect.version
        case PrepareVersion():
            if bootstrap is not None and bootstrap.made is not None:
                return bootstrap.made.version == effect.version
            return state.phase is Phase.COMMITTED and candidate is not None and candidate.version == effect.version
        case PublishCandidate():
            return state.phase is Phase.PUBLISHING and candidate is not None and candidate.version == effect.version
    return True


def tidy(workshop: Workshop, state: State) -> None:
    """Let go of what neither recovery nor a look back needs."""
    store, keep_rounds = workshop.store, workshop.keep_rounds
    # What is current can always be made again from its parent, however many rounds came to nothing since.
    lineage = Lineage.model_validate_json(store.lineage(state.current.version))
    kept = [*store.newest_versions(max(KEPT_VECTORS, 1 + keep_rounds)), (state.current.version, state.current.sha256)]
    if lineage.parent is not None and (parent := store.version(lineage.parent)) is not None:
        kept.append((lineage.parent, parent[0]))
    if state.former is not None:  # plants run it on, and the next change of meaning would start from it
        kept.append((state.former.version, state.former.sha256))
    oldest = min(version for version, _ in kept)
    store.prune(state.last_round, oldest, keep_rounds=keep_rounds, spared_round=lineage.round_number)
    workshop.registry.prune(kept)


def aggregate(workshop: Workshop, state: State, effect: Aggregate) -> tuple[Event, dict[str, bytes]]:
    """Fold the round's accepted updates onto its base; the vector is durable when this returns."""
    assert state.round is not None
    vector, attachments = make_version(workshop, effect, state.round.base.sha256)
    sha256 = workshop.registry.keep(effect.version, vector)
    return VersionMade(made=VersionRef(version=effect.version, sha256=sha256)), attachments


def make_version(workshop: Workshop, effect: Aggregate, base_sha256: str) -> tuple[Vector, dict[str, bytes]]:
    """A round's vector from stored updates alone, and what is recorded with it: now, and whenever it is replayed."""
    store, registry = workshop.store, workshop.registry
    table = registry.template.table
    raw = store.strategy_state(effect.base)
    before = decode_state(raw) if raw is not None else workshop.strategy.init(table.elements(Role.WEIGHT))
    updates = store.counted(effect.round_number)
    participants = tuple(one.participant for one in updates)
    if participants != effect.participants:
        raise ValueError(f"round {effect.round_number}: the store has other updates than those that count")
    with decoded(
        participants,
        [one.num_examples for one in updates],
        lambda index: store.update_bytes(updates[index].participant, updates[index].round_number),
        table,
        workshop.encodings,
        workshop.scratch,
        [one.staleness for one in updates],
        control=workshop.control,
    ) as (weights, buffers):
        base = registry.vector(effect.base, base_sha256)
        made = combine(base, workshop.strategy, before, weights, buffers, table)
    for name, value in made.diagnostics.items():
        _LOG.debug("round %d: %s = %.6g", effect.round_number, name, value)
    attachments = {STRATEGY_STATE: encode_state(made.state)}
    if workshop.downlink is None:
        return made.vector, attachments
    left = store.step_residual(effect.base)
    residual = vector_from_bytes(left, table.elements(Role.WEIGHT)) if left is not None else None
    control = made.state[CONTROL] if workshop.control else None
    step = make_step(effect.version, base, made.vector, residual, table, workshop.downlink, control)
    return step.vector, {**attachments, STEP: step.content, STEP_RESIDUAL: vector_bytes(step.residual)}


def fill(workshop: Workshop, state: State, effect: FillBootstrap) -> tuple[Event, dict[str, bytes]]:
    """The first base with its standardisation filled from the participants' statistics."""
    registry = workshop.registry
    template = registry.template
    base = registry.vector(effect.base, state.current.sha256)
    given = (workshop.store.statistics(p, state.rules.generation) for p in effect.participants)
    vector = statistics.fill(base, template.table, template.contract, given, effect.kept)
    sha256 = registry.keep(effect.version, vector)
    initial = workshop.strategy.init(template.table.elements(Role.WEIGHT))
    event = VersionMade(made=VersionRef(version=effect.version, sha256=sha256))
    return event, {STRATEGY_STATE: encode_state(initial)}


def prepare(
    workshop: Workshop, state: State, effect: PrepareVersion, chunk_bytes: int
) -> tuple[Event, dict[str, bytes]]:
    """The manifest of a version that is durable."""
    found = workshop.store.version(effect.version)
    assert found is not None
    vector = workshop.registry.vector(effect.version, found[0])
    lineage = Lineage.model_validate_json(workshop.store.lineage(effect.version))
    step = workshop.store.step(effect.version)
    control = control_of(workshop.store.strategy_state(effect.version)) if workshop.control else None
    manifest = workshop.registry.prepare(effect.version, vector, lineage, state.epoch, chunk_bytes, step, control)
    return VersionPrepared(version=effect.version), {MANIFEST: manifest.model_dump_json().encode()}
