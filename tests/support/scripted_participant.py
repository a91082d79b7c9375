"""A participant with a script instead of data: it moves weights half of the way to its target, and says how far it is.

It speaks the whole protocol over a session (statistics, updates in chunks, evaluations), built from `uns_topics` and
`broker_bridge` alone, so that the aggregator is tested against the wire and not against the edge's code.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import numpy as np

from broker_bridge.assembly import Assembly
from broker_bridge.link import Link
from broker_bridge.outgoing import Done, Outgoing, Send
from broker_bridge.session import Connector, Message, Session, SessionLost, Will
from uns_topics.contract import Metric
from uns_topics.controls import split_full
from uns_topics.encodings import ENCODINGS
from uns_topics.envelope import PayloadError
from uns_topics.payloads import Writer, read
from uns_topics.plan import Plan
from uns_topics.presence import AggregatorStatus, ParticipantState, ParticipantStatus, Want
from uns_topics.reports import Evaluation, FeatureCell, Figure, ModelScores, PartScores, Statistics, Sums
from uns_topics.rounds import History, Receipt, RoundAnnouncement, VersionManifest
from uns_topics.sketch import Sketch
from uns_topics.standardisation import Moments
from uns_topics.tensors import Role, Vector
from uns_topics.topics import FlTopic, Kind, participant_filters
from uns_topics.transfers import chunk_of, decode_chunk, encode_chunk, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups


class ScriptedParticipant:
    """Run with `async with`; turn its knobs, and wait with `until`.

    Attributes:
        target: every weight goes towards this number.
        trains: answer rounds by itself.
        lose: this many of the next chunks never leave.
        loss_of: the loss that it reports of a vector; by default the mean squared distance to its target.
    """

    def __init__(self, connector: Connector, name: str, federation: str = "tiny", *, target: float = 1.0) -> None:
        self.name = name
        self.target = target + 0.001 * (sum(name.encode()) % 97)  # two alike would be taken for copies
        self.trains = True
        self.evaluates = True
        self.can_train = True
        self.examples = 100
        self.chunk_bytes: int | None = None
        self.loss_of: Callable[[Vector], float] = self._distance
        self.plan: Plan | None = None
        self.round: RoundAnnouncement | None = None
        self.current: VersionManifest | None = None
        self.candidate: VersionManifest | None = None
        self.history: History | None = None
        self.aggregator: AggregatorStatus | None = None
        self.aggregator_boots: list[str] = []
        self.held: dict[str, Vector] = {}
        self.receipts: list[Receipt] = []
        self.sent: dict[str, Outgoing] = {}
        self.rounds_seen: list[tuple[int, int]] = []
        self.lose = 0
        self.wants: tuple[Want, ...] = ()
        self.new_samples = 10
        self._federation = federation
        self._boot = secrets.token_hex(4)
        self._writer = Writer(federation, name, self._boot)
        self._birth = 0
        self._fetching: dict[str, tuple[Assembly, VersionManifest]] = {}
        self._told: set[int] = set()
        self._answered: set[tuple[int, int]] = set()
        self._scored: set[tuple[int, int, str]] = set()
        self._changed = asyncio.Condition()
        self._work: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()
        self.client_id = f"{name}-fl"
        self._link = Link(
            connector,
            self.client_id,
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=lambda reason: None,
            make_will=self._will,
            sleep=lambda _: asyncio.sleep(0.01),
        )
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._link.run()), asyncio.create_task(self._run())]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._later(self._notify))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._link.close(self._status(ParticipantState.OFFLINE))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until something that arrives makes this true."""

        def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return bool(condition())

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(reached)

    async def say_status(self) -> None:
        """Status anew."""
        topic, payload, qos, retain = self._status()
        await self._link.publish(topic, payload, qos=qos, retain=retain)

    async def send_update(self, announcement: RoundAnnouncement, **changes: Any) -> Outgoing:
        """Make and send an update for a round; `changes` go into its header."""
        assert self.plan is not None
        table = self.plan.template.table
        base = self.held[announcement.base_sha256]
        delta = np.zeros_like(base)
        step = (np.float32(self.target) - table.gather(base, Role.WEIGHT)) * np.float32(0.5)
        table.scatter(delta, Role.WEIGHT, step)
        control = np.full(step.size, 0.01 * self.target, np.float32) if self.plan.control else None
        groups, body = pack_groups(delta, table, announcement.client.encoding, control)
        fields: dict[str, Any] = {
            "federation": self._federation,
            "participant": self.name,
            "round_number": announcement.round_number,
            "attempt": announcement.attempt,
            "base": announcement.base_sha256,
            "generation": announcement.generation,
            "num_examples": self.examples,
            "num_steps": 1,
            "groups": groups,
        }
        header = UpdateHeader(**{**fields, **changes})
        content = encode_update(header, body)
        manifest = make_manifest(
            content,
            "update",
            self.chunk_bytes or self.plan.chunk_bytes,
            base=header.base,
            round_number=header.round_number,
            attempt=header.attempt,
        )
        outgoing = Outgoing(content, manifest)
        self.sent[manifest.id] = outgoing
        await self._perform(outgoing, outgoing.start(0.0, 0.5))
        return outgoing

    async def repeat_manifest(self, outgoing: Outgoing) -> None:
        """Ask what became of a transfer, also of one that was answered."""
        await self._perform(outgoing, outgoing.on_connected(0.0, 0.5) or [Send(outgoing.manifest)])

    # ------------------------------------------------------------------------------------------------------------------

    def _distance(self, vector: Vector) -> float:
        assert self.plan is not None
        weights = self.plan.template.table.gather(vector, Role.WEIGHT)
        return float(np.mean(np.square(weights.astype(np.float64) - self.target)))

    def _status(self, state: ParticipantState = ParticipantState.ONLINE) -> tuple[str, bytes, int, bool]:
        plan = self.plan
        body = ParticipantStatus(
            birth=max(1, self._birth),
            state=state,
            samples=1000,
            new_samples=self.new_samples,
            contract_hash=plan.contract_hash if plan else None,
            generation=plan.generation if plan else None,
            can_train=self.can_train and plan is not None,
            encodings=tuple(ENCODINGS),
            wants=self.wants,
        )
        return self._topic(Kind.STATUS), self._writer.seal(body), 1, True

    def _will(self, birth: int) -> Will:
        self._birth = birth
        topic, payload, qos, retain = self._status(ParticipantState.OFFLINE)
        return Will(topic, payload, qos, retain)

    async def _on_up(self, session: Session, birth: int) -> None:
        self._birth = birth
        await session.subscribe(*participant_filters(self._federation, self.name))
        await session.subscribe(str(FlTopic(self._federation, Kind.HISTORY)))
        for assembly, manifest in list(self._fetching.values()):
            await session.subscribe(*self._chunk_topics(assembly, manifest))
        topic, payload, qos, retain = self._status()
        await session.publish(topic, payload, qos=qos, retain=retain)
        self._told.clear()
        self._tell_statistics()

    def _on_message(self, message: Message) -> None:
        topic = FlTopic.parse(message.topic)
        if not message.payload:
            if topic.kind is Kind.MODEL_CANDIDATE:
                self.candidate = None
        elif topic.kind is Kind.MODEL_CHUNK:
            self._on_chunk(message.payload)
        else:
            try:
                envelope, body = read(topic, message.payload)
            except PayloadError:
                return
            if isinstance(body, AggregatorStatus) and envelope.boot not in self.aggregator_boots:
                self.aggregator_boots.append(envelope.boot)
            self._on_body(topic, body)
        self._later(self._notify)

    def _on_body(self, topic: FlTopic, body: Any) -> None:
        match body:
            case Plan():
                self.plan = body
                self._tell_statistics()
                for manifest in (self.current, self.candidate):
                    if manifest is not None:
                        self._fetch(manifest)
                self._later(self.say_status)
            case RoundAnnouncement():
                self.round = body
                self.rounds_seen.append((body.round_number, body.attempt))
            case VersionManifest():
                if topic.kind is Kind.MODEL_CURRENT:
                    self.current = body
                else:
                    self.candidate = body
                self._fetch(body)
            case AggregatorStatus():
                self.aggregator = body
            case History():
                self.history = body
            case Receipt():
                self.receipts.append(body)
                outgoing = self.sent.get(body.id)
                if outgoing is not None:
                    effects = outgoing.on_receipt(body, 0.0, 0.5)
                    self._later(lambda: self._perform(outgoing, effects))
        self._later(self._act)

    def _tell_statistics(self) -> None:
        plan = self.plan
        if plan is None or plan.generation in self._told:
            return
        self._told.add(plan.generation)
        cells = tuple(
            FeatureCell(
                slot=0,
                feature=name,
                moments=Moments(n=100, sum=40.0, sum_squares=20.0),
                sketch=Sketch(steps=(60, 10), rows=(40, 60)),
            )
            for name in plan.contract.feature_names
        )
        body = Statistics(generation=plan.generation, rows=100, label_counts=(90, 10), cells=cells)
        self._later(lambda: self._say(Kind.STATISTICS, body))

    async def _act(self) -> None:
        """Train and evaluate what is due."""
        announcement = self.round
        if (
            self.trains
            and announcement is not None
            and announcement.state == "open"
            and self.name in announcement.cohort
            and announcement.base_sha256 in self.held
            and (announcement.epoch, announcement.round_number) not in self._answered
        ):
            self._answered.add((announcement.epoch, announcement.round_number))
            await self.send_update(announcement)
        candidate, current = self.candidate, self.current
        if self.evaluates and candidate is not None and candidate.sha256 in self.held and self.plan is not None:
            known = current.sha256 if current is not None and current.sha256 in self.held else None
            if known is not None and (candidate.epoch, candidate.version, known) not in self._scored:
                self._scored.add((candidate.epoch, candidate.version, known))
                await self._say(Kind.EVALUATION, self._evaluation(candidate, current, known))

    def _evaluation(self, candidate: VersionManifest, current: VersionManifest | None, known: str) -> Evaluation:
        new, old = self.loss_of(self.held[candidate.sha256]), self.loss_of(self.held[known])
        figure = Figure(value=None, n=50, undecided=True)

        def rows(value: float) -> Sums:
            return Sums(n=50, sum=50 * value, sum_squares=50 * value * value)

        part = PartScores(
            n=50,
            models={
                "candidate": ModelScores(loss=rows(new), metric=figure),
                "current": ModelScores(loss=rows(old), metric=figure),
            },
            candidate_minus_current=rows(new - old),
        )
        assert self.plan is not None
        return Evaluation(
            generation=self.plan.generation,
            candidate=candidate.version,
            current=current.version if current is not None else None,
            metric=Metric.AVERAGE_PRECISION,
            select=part,
        )

    def _fetch(self, manifest: VersionManifest) -> None:
        if self.plan is None or manifest.sha256 in self.held:
            return
        known = self._fetching.get(manifest.full.id)
        if known is not None and known[0].manifest == manifest.full:
            return
        assembly = Assembly(manifest.full)
        self._fetching[manifest.full.id] = (assembly, manifest)
        topics = self._chunk_topics(assembly, manifest)
        self._later(lambda: self._subscribe(topics))

    async def _subscribe(self, topics: list[str]) -> None:
        if self._link.session is not None:
            await self._link.session.subscribe(*topics)

    def _chunk_topics(self, assembly: Assembly, manifest: VersionManifest) -> list[str]:
        return [
            str(FlTopic(self._federation, Kind.MODEL_CHUNK, version=manifest.version, index=i))
            for i in assembly.missing
        ]

    def _on_chunk(self, payload: bytes) -> None:
        chunk = decode_chunk(payload, 2**22)
        found = self._fetching.get(chunk.id)
        if found is None:
            return
        assembly, manifest = found
        assembly.add(chunk)
        if assembly.is_whole:
            del self._fetching[chunk.id]
            assert self.plan is not None
            table, content = self.plan.template.table, assembly.content()
            self.held[manifest.sha256], _ = split_full(content, table, control=self.plan.control)
            self._later(self._act)

    async def _perform(self, outgoing: Outgoing, effects: Any) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                manifest = effect.manifest
                topic = FlTopic(self._federation, Kind.UPDATE_MANIFEST, participant=self.name, transfer=manifest.id)
                if effect.announce:
                    await self._link.publish(str(topic), self._writer.seal(manifest))
                for i in effect.chunks:
                    if self.lose:
                        self.lose -= 1
                        continue
                    where = FlTopic(
                        self._federation, Kind.UPDATE_CHUNK, participant=self.name, transfer=manifest.id, index=i
                    )
                    await self._link.publish(str(where), encode_chunk(chunk_of(outgoing.content, manifest, i)))
            elif isinstance(effect, Done):
                self.new_samples += 1
                await self.say_status()

    async def _say(self, kind: Kind, body: Any) -> None:
        await self._link.publish(self._topic(kind), self._writer.seal(body), retain=True)

    def _topic(self, kind: Kind) -> str:
        return str(FlTopic(self._federation, kind, participant=self.name))

    def _later(self, work: Callable[[], Any]) -> None:
        self._work.put_nowait(work)

    async def _run(self) -> None:
        while True:
            work = await self._work.get()
            with suppress(SessionLost):
                await work()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
