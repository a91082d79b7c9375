"""What stands on `down/`: plan, skeleton, round, versions, history, made from state and store whenever they change.

Chunks are kept for current and candidate only. What was published before, also by an earlier process, stands in an
inventory and is cleared when it is superseded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aggregator import announce
from aggregator.combine import control_of
from aggregator.core import Core
from aggregator.registry import Held, Registry
from aggregator.state import Phase, State
from aggregator.statistics import reference
from aggregator.store import Store
from broker_bridge.publisher import Payload, Publisher
from uns_topics.envelope import MAX_JSON_BYTES
from uns_topics.model import Value
from uns_topics.payloads import Writer
from uns_topics.plan import Plan
from uns_topics.presence import Want
from uns_topics.rounds import VersionManifest
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest, chunk_of, encode_chunk

_INVENTORY = "published-chunks"
_SKELETON = "skeleton"
_STEP = "step-"
REPEAT_S = 5.0
"""What somebody wants is republished at most once in this time, whoever else wants it too."""


class Showcase:
    """Owns the retained topics of a federation.

    Args: plan: as it stands; replaced by `set_plan` when the chunk size changes.
    """

    def __init__(
        self,
        federation: str,
        plan: Plan,
        core: Core,
        store: Store,
        registry: Registry,
        publisher: Publisher,
        writer: Writer,
    ) -> None:
        self._federation = federation
        self._plan = plan
        self._core = core
        self._store = store
        self._registry = registry
        self._publisher = publisher
        self._writer = writer
        self._held: dict[int, Held] = {}
        self._chunked: dict[str, TransferManifest] = {}
        self._cleared: set[str] = set()
        self._showing = asyncio.Lock()
        self._repeated: dict[Want, float] = {}
        self._birth = 0

    @property
    def chunk_bytes(self) -> int:
        """The plan's chunk size."""
        return self._plan.chunk_bytes

    async def show_all(self) -> None:
        """Everything that the state calls for: at start, and after the plan changed."""
        self._put(Kind.PLAN, lambda: self._plan)
        await self._show_chunks(_SKELETON, self._plan.template.skeleton, self._registry.template.skeleton)
        self._show_round()
        await self.show_versions()
        await self.show_reference()
        await self.show_history()

    async def set_plan(self, plan: Plan) -> None:
        """Another chunk size: plan, skeleton and manifests anew."""
        async with self._showing:
            self._plan = plan
            self._held.clear()
        await self.show_all()

    def set_birth(self, birth: int) -> None:
        """A new connection: what our status says from now on."""
        self._birth = birth
        self._put(Kind.AGGREGATOR_STATUS, lambda: announce.status(self._core.state, self._birth))

    def refresh_status(self) -> None:
        """Heartbeat."""
        self._publisher.refresh([self._topic(Kind.AGGREGATOR_STATUS)])

    def refresh_round(self) -> None:
        """The round once more: seconds left, or that it is closed."""
        self._show_round()

    def refresh_open_round(self) -> None:
        """With each heartbeat while a round is open: a retained copy's seconds left are an upper bound."""
        if self._core.state.open_round is not None:
            self._show_round()

    async def show_round(self) -> None:
        """Announce the open round; return when the broker has it."""
        self._show_round()
        await self._publisher.flushed([self._topic(Kind.ROUND)])

    async def show_reference(self) -> None:
        """What all plants look like, from the statistics that the generation starts from; none before that."""
        state, plan = self._core.state, self._plan
        made = None
        if state.bootstrap is None:
            given = await asyncio.to_thread(self._store.all_statistics, plan.generation)
            most = min(plan.chunk_bytes, MAX_JSON_BYTES - 1024)
            made = await asyncio.to_thread(reference, plan.generation, plan.contract, given, most)
        if made is None:
            self._publisher.clear(self._topic(Kind.REFERENCE))
        else:
            self._put(Kind.REFERENCE, lambda: made)

    async def show_history(self) -> None:
        """The last rounds, for people."""
        if self._plan.visibility == "none":
            self._publisher.clear(self._topic(Kind.HISTORY))
            return
        rounds = await asyncio.to_thread(self._store.history, announce.SHOWN_ROUNDS)
        # Behind the manifests: who reads that a round was promoted finds its version there.
        self._put(Kind.HISTORY, lambda: announce.history(self._core.state, rounds), after_chunks=True)

    async def show_versions(self) -> None:
        """Chunks and manifests of current and candidate; everything else is cleared."""
        async with self._showing:
            shown = _shown(self._core.state)
            for version in shown:
                await self._hold(version)
            for version in shown:
                held = self._held[version]
                await self._show_chunks(str(version), held.manifest.full, held.content)
                if held.manifest.delta is not None and held.step is not None:
                    await self._show_chunks(_step_name(version), held.manifest.delta, held.step)
            state = self._core.state
            if _shown(state) != shown:
                return  # it moved on: the effect that belongs to that comes next
            self._put_manifest(Kind.MODEL_CURRENT, shown[0])
            if len(shown) > 1:
                self._put_manifest(Kind.MODEL_CANDIDATE, shown[1])
            else:
                self._publisher.clear(self._topic(Kind.MODEL_CANDIDATE))
            self._held = {version: self._held[version] for version in shown}
            await self._clear_superseded({name for version in shown for name in (str(version), _step_name(version))})

    async def flush_versions(self) -> None:
        """Return when the broker has the manifests and chunks of current and candidate."""
        topics = [self._topic(Kind.MODEL_CURRENT), self._topic(Kind.MODEL_CANDIDATE)]
        for version in _shown(self._core.state):
            topics += self._chunks_of(version)
        await self._publisher.flushed(topics)

    def repeat(self, wants: tuple[Want, ...]) -> None:
        """Publish once more what somebody could not get."""
        now = self._core.now()
        shown = _shown(self._core.state)
        by_want: dict[Want, list[str]] = {
            Want.PLAN: [self._topic(Kind.PLAN)],
            Want.SKELETON: self._chunk_topics(_SKELETON),
            Want.CURRENT: [self._topic(Kind.MODEL_CURRENT), *self._chunks_of(shown[0])],
            Want.CANDIDATE: [self._topic(Kind.MODEL_CANDIDATE)] if len(shown) > 1 else [],
        }
        if len(shown) > 1:
            by_want[Want.CANDIDATE] += self._chunks_of(shown[1])
        for want in wants:
            if now - self._repeated.get(want, -REPEAT_S) >= REPEAT_S:
                self._repeated[want] = now
                self._publisher.refresh(by_want[want])

    # ------------------------------------------------------------------------------------------------------------------

    def _show_round(self) -> None:
        if announce.round_announcement(self._core.state, self._core.now()) is None:
            self._publisher.clear(self._topic(Kind.ROUND))  # one that an earlier generation left
            return

        def announcement() -> bytes:
            body = announce.round_announcement(self._core.state, self._core.now())
            return b"" if body is None else self._writer.seal(body)

        self._publisher.put(self._topic(Kind.ROUND), announcement)

    async def _hold(self, version: int) -> None:
        if version in self._held:
            return
        found = await asyncio.to_thread(self._store.version, version)
        assert found is not None
        assert found[1] is not None
        step = await asyncio.to_thread(self._store.step, version)
        control = None
        if self._plan.control:
            control = control_of(await asyncio.to_thread(self._store.strategy_state, version))
        self._held[version] = await asyncio.to_thread(
            self._registry.hold, found[1], self._plan.chunk_bytes, step, control
        )

    def _put_manifest(self, kind: Kind, version: int) -> None:
        manifest = self._held[version].manifest

        def now() -> VersionManifest:
            state = self._core.state
            final = kind is Kind.MODEL_CURRENT and state.phase is Phase.RESTING
            return manifest.model_copy(update={"epoch": state.epoch, "final": final})

        self._put(kind, now, after_chunks=True)

    async def _show_chunks(self, name: str, manifest: TransferManifest, content: bytes) -> None:
        if self._chunked.get(name) == manifest:
            return
        self._chunked[name] = manifest
        self._cleared.discard(name)
        inventory = await self._inventory()
        count = max(len(manifest.chunks), inventory.get(name, 0))
        if inventory.get(name) != count:
            await self._write_inventory({**inventory, name: count})
        for index in range(count):
            topic = self._chunk_topic(name, index)
            if index < len(manifest.chunks):
                self._publisher.put(topic, _chunk_payload(content, manifest, index), chunk=True)
            else:
                self._publisher.clear(topic)

    async def _clear_superseded(self, kept: set[str]) -> None:
        inventory = await self._inventory()
        gone: set[str] = set()
        for name, count in inventory.items():
            if name in kept or name == _SKELETON:
                continue
            topics = [self._chunk_topic(name, index) for index in range(count)]
            if name not in self._cleared:
                self._cleared.add(name)
                self._chunked.pop(name, None)
                for topic in topics:
                    self._publisher.clear(topic)
            elif self._publisher.is_flushed(topics):
                gone.add(name)  # not before the broker has forgotten them: it may be away, or we may be killed
        if gone:
            self._cleared -= gone
            await self._write_inventory({name: count for name, count in inventory.items() if name not in gone})

    async def _inventory(self) -> dict[str, int]:
        found = await asyncio.to_thread(self._store.get, _INVENTORY)
        return dict(found) if found else {}

    async def _write_inventory(self, inventory: dict[str, int]) -> None:
        await asyncio.to_thread(self._store.put, _INVENTORY, inventory)

    def _put(self, kind: Kind, body: Callable[[], Value], *, after_chunks: bool = False) -> None:
        self._publisher.put(self._topic(kind), lambda: self._writer.seal(body()), after_chunks=after_chunks)

    def _topic(self, kind: Kind) -> str:
        return str(FlTopic(self._federation, kind))

    def _chunk_topic(self, name: str, index: int) -> str:
        if name == _SKELETON:
            return str(FlTopic(self._federation, Kind.SKELETON_CHUNK, index=index))
        kind = Kind.DELTA_CHUNK if name.startswith(_STEP) else Kind.MODEL_CHUNK
        return str(FlTopic(self._federation, kind, version=int(name.removeprefix(_STEP)), index=index))

    def _chunks_of(self, version: int) -> list[str]:
        return [*self._chunk_topics(str(version)), *self._chunk_topics(_step_name(version))]

    def _chunk_topics(self, name: str) -> list[str]:
        first = self._chunk_topic(name, 0)
        return list(self._publisher.topics(first[: -len("0")]))


def _step_name(version: int) -> str:
    return f"{_STEP}{version}"


def _shown(state: State) -> tuple[int, ...]:
    """Versions that stand on the broker: current, and the candidate from its manifest on."""
    if state.candidate is not None and state.phase in (Phase.PUBLISHING, Phase.EVALUATING):
        return (state.current.version, state.candidate.version)
    return (state.current.version,)


def _chunk_payload(content: bytes, manifest: TransferManifest, index: int) -> Payload:
    return lambda: encode_chunk(chunk_of(content, manifest, index))
