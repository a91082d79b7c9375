"""One participant's crossing: what it says on the plant's broker, judged, and handed to its own uplink session."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from broker_bridge.bridge.config import BridgeConfig, ParticipantConfig
from broker_bridge.bridge.custody import Custody, CustodyError, Held
from broker_bridge.bridge.delivery import Delivery
from broker_bridge.bridge.egress import Egress
from broker_bridge.bridge.figures import CrossingFigures
from broker_bridge.bridge.inspection import Passed, Refusal, Way, Why, judge_json, judge_update
from broker_bridge.bridge.inventory import Inventory
from broker_bridge.bridge.policy import ExportPolicy
from broker_bridge.bridge.uplink import Hearers, Uplink
from broker_bridge.bridge.upward import Answer, Effect, Judge, Rechunk, Settle, TurnedAway, Upward
from broker_bridge.session import Connector, Message, Session
from broker_bridge.threads import on
from uns_topics.envelope import PayloadError
from uns_topics.payloads import Writer, read
from uns_topics.plan import Plan
from uns_topics.presence import MAX_BRIDGES, BridgeStatus, ParticipantStatus, Route, Want
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind, TopicError, everything_of
from uns_topics.transfers import MIN_CHUNK_BYTES, WRAPPING_BYTES, decode_chunk, make_manifest

log = logging.getLogger("headgate.bridge")

MAX_JOBS = 1000
"""Messages and effects of one participant that wait; what comes on top is counted, and is said again by its sender."""
LOG_EVERY_S = 60.0
_RETAINED = (Kind.STATUS, Kind.STATISTICS, Kind.EVALUATION, Kind.DATA_QUALITY, Kind.LAST_UPDATE)


class Host(Protocol):
    """What a crossing needs of its bridge."""

    def answer(self, federation: str, participant: str, payload: bytes) -> None:
        """Publish a receipt on the plant's broker."""

    def on_uplink(self, crossing: Crossing, session: Session | None) -> None:
        """A new uplink session; None: it ended."""

    def on_shared(self, crossing: Crossing, topic: FlTopic, message: Message) -> None:
        """A message of the federation, not of this participant alone."""

    def on_route(self, crossing: Crossing) -> None:
        """The bridges above, or the chunk limit, changed."""

    def on_wants(self, federation: str, who: str, wants: tuple[Want, ...]) -> None:
        """Somebody behind the bridge says what it is fetching."""

    def wants(self, federation: str) -> tuple[Want, ...]:
        """What the next broker lacks."""

    def make_room(self, payload_bytes: int) -> None:
        """Give the oldest held transfers up until this much fits."""


@dataclass(frozen=True)
class Tools:
    """What all crossings of a bridge share; `disk` is the one thread that writes the store and the record."""

    config: BridgeConfig
    policy: ExportPolicy
    custody: Custody
    egress: Egress
    disk: Executor
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    boot: str
    rng: random.Random


class Crossing:
    """Args: connector: opens sessions with the next broker, as this participant."""

    def __init__(self, participant: ParticipantConfig, connector: Connector, tools: Tools, host: Host) -> None:
        self.federation = participant.federation
        self.participant = participant.participant
        self.refused: Counter[Why] = Counter()
        """What didn't leave, by reason."""
        self._tools = tools
        self._host = host
        self._behind = frozenset(participant.behind)
        custody, key, bridge = tools.custody, (self.federation, self.participant), tools.config.bridge
        self._core = Upward(self.participant, custody.queue(*key), custody.receipts(*key))
        self._core.limit = tools.config.chunk_bytes
        self._plan: Plan | None = None
        self._writer = Writer(self.federation, bridge, tools.boot)
        self._above: Route | None = None
        self._jobs: asyncio.Queue[Message | Effect] = asyncio.Queue()
        self._messages = 0
        """Of the jobs; effects are never turned away, because nobody says them again."""
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting: dict[str, Message] = {}
        self._last: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._logged: dict[Why, float] = {}
        hearers = Hearers(
            session=self._on_session,
            open=self._on_open,
            shared=lambda topic, message: host.on_shared(self, topic, message),
            receipt=self._on_receipt,
            route=self._on_route,
            wants=lambda: host.wants(self.federation),
        )
        with_presence = tools.policy.line(*key, "presence") is not None
        self.uplink = Uplink(*key, bridge, connector, tools.egress, self._writer, hearers, with_presence=with_presence)
        self._inventory = Inventory(custody, tools.disk, self.uplink.reports, "uplink", *key)
        self._delivery = Delivery(
            *key, self, self.uplink, custody, tools.egress, tools.disk,
            max_age_s=tools.config.queue.max_age_s, clock=tools.clock, wall_clock=tools.wall_clock, rng=tools.rng,
        )  # fmt: skip

    # State ------------------------------------------------------------------------------------------------------------

    @property
    def queue(self) -> tuple[Held, ...]:
        """Transfers that wait for their answer, oldest first."""
        return self._core.queue

    @property
    def limit(self) -> int | None:
        """Larger chunks don't pass the uplink."""
        return self._core.limit

    @property
    def route(self) -> Route:
        """The bridges from the plant's broker up, this one first."""
        above = self._above
        limits = [size for size in (self._core.limit, above.chunk_bytes if above is not None else None) if size]
        return Route(
            bridges=(self._tools.config.bridge, *(above.bridges if above is not None else ())),
            chunk_bytes=min(limits, default=None),
        )

    @property
    def filters(self) -> tuple[str, ...]:
        """What the bridge reads of this participant on the plant's broker.

        Exact topics first: some brokers send no retained messages to wildcards. The wildcard then shows everything
        else that is said under the participant's name, so that it is counted.
        """
        exact = [FlTopic(self.federation, kind, self.participant) for kind in _RETAINED]
        exact += [FlTopic(self.federation, Kind.VIA, self.participant, bridge=name) for name in sorted(self._behind)]
        return (*(str(topic) for topic in exact), everything_of(self.federation, self.participant))

    @property
    def figures(self) -> CrossingFigures:
        """What monitoring sees."""
        queue = self._core.queue
        messages, sent_bytes = self._tools.egress.left_by(self.federation, self.participant)
        return CrossingFigures(
            federation=self.federation,
            participant=self.participant,
            is_up=self.uplink.is_up,
            queue=len(queue),
            queue_bytes=sum(held.manifest.bytes for held in queue),
            oldest_s=max(0.0, self._tools.wall_clock() - queue[0].stored_at) if queue else 0.0,
            refused=dict(self.refused),
            messages=messages,
            sent_bytes=sent_bytes,
            chunk_limit_bytes=self._core.limit,
        )

    # Running ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold the uplink and carry over what may leave, until `close`. Raises: BrokerRefused, BrokerMisconfigured."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            name = f"crossing {self.participant} in {self.federation}"
            helpers = [
                tasks.create_task(self._work(), name=name),
                tasks.create_task(self._delivery.run(), name=f"{name} queue"),
            ]
            await self.uplink.run()
            for task in helpers:
                task.cancel()

    def heartbeat(self) -> None:
        """The presence again; open transfers and the queue's age are looked at as well."""
        self.uplink.say_presence()
        self._core.expire(self._tools.clock())
        self._delivery.look_again()

    def retry(self) -> None:
        """What couldn't leave may leave now: a new day's budget, a record that can be written again."""
        if self.uplink.is_open:
            self.uplink.reports.on_up()
            self._delivery.on_open(is_open=True)

    def set_plant(self, up: bool) -> None:
        """Whether the plant's broker is there."""
        if not up:
            self._seen.clear()
        self.uplink.set_plant(up)

    def on_plan(self, plan: Plan) -> None:
        """The federation's plan: what waited for it is looked at again."""
        self._plan = plan
        self._core.on_plan(plan)
        waiting, self._waiting = self._waiting, {}
        for message in waiting.values():
            self._enqueue(message)

    def reconcile(self) -> None:
        """Some time after the plant's broker came back: what a participant cleared meanwhile is cleared above."""
        if not self._seen:  # a broker that lost everything has cleared nothing: its participant says it all again
            return
        for text in sorted(self._inventory.topics - self._seen):
            self._enqueue(Message(text, b""))

    # The queue, for whoever delivers it -------------------------------------------------------------------------------

    def lower(self, chunk_bytes: int) -> None:
        """Larger chunks than these don't pass: said in the route."""
        known = self._core.limit
        if known is None or chunk_bytes < known:
            self._core.limit = chunk_bytes
            self._host.on_route(self)

    def give_up(self, held: Held, why: Why, detail: str) -> None:
        """A held transfer is not sent after all; its participant hears of it."""
        self._do(self._core.on_dropped(held.manifest.id, why, detail))

    def begun(self, held: Held) -> None:
        """From now on some of it may have left."""
        self._core.on_begun(held.manifest.id)

    def gone(self, held: Held) -> None:
        """The store has no bytes of it."""
        self._core.on_gone(held.manifest.id)

    def give_up_oldest(self) -> int:
        """Give up the oldest transfer that isn't being sent; returns its bytes, 0 where there is none."""
        for held in self._core.queue:
            if self._delivery.sending is None or held.position != self._delivery.sending.position:
                self.give_up(held, Why.OVERFLOW, "the queue is full, and newer updates need the room")
                return held.manifest.bytes
        return 0

    def answered(self, receipt: Receipt) -> None:
        """The final answer from above."""
        self._do(self._core.on_answered(receipt))

    # From the uplink --------------------------------------------------------------------------------------------------

    def _on_session(self, session: Session | None) -> None:
        if session is not None and session.max_packet_bytes is not None:
            size = session.max_packet_bytes - WRAPPING_BYTES
            if size < MIN_CHUNK_BYTES:
                log.error("the next broker takes messages of %d bytes only: raise its limit", session.max_packet_bytes)
            else:
                self.lower(size)
            if self._core.limit is not None:
                self._delivery.on_limit(self._core.limit)
        self._host.on_uplink(self, session)

    def _on_open(self, is_open: bool) -> None:
        self._delivery.on_open(is_open)

    def _on_receipt(self, receipt: Receipt) -> None:
        if not self._delivery.on_receipt(receipt) and receipt.result != "missing":
            self.answered(receipt)

    def _on_route(self, route: Route | None) -> None:
        if route is not None and len(route.bridges) >= MAX_BRIDGES:
            log.error("there are %d bridges above, more than a participant's way can have", len(route.bridges))
            return
        self._above = route
        self._host.on_route(self)

    # From the plant ---------------------------------------------------------------------------------------------------

    def on_plant_message(self, message: Message) -> None:
        """A message under this participant's name on the plant's broker; never raises for what it holds."""
        try:
            topic = FlTopic.parse(message.topic)
        except TopicError:
            self._turn_away(Refusal(Why.TOPIC, "a topic under the participant's name that nobody declared"))
            return
        if not topic.kind.retained and (message.retain or not message.payload):
            if message.payload:
                self._turn_away(Refusal(Why.TOPIC, f"a retained message on {topic.kind.path}"))
            return
        if topic.kind.retained:
            self._seen.add(message.topic)
        self._enqueue(message)

    def _enqueue(self, job: Message | Effect) -> None:
        if isinstance(job, Message):
            if self._messages >= MAX_JOBS:
                self._turn_away(Refusal(Why.OVERFLOW, "more messages than can be looked at"))
                return
            self._messages += 1
        self._jobs.put_nowait(job)

    async def _work(self) -> None:
        """Everything of this participant in its order."""
        while True:
            job = await self._jobs.get()
            try:
                if isinstance(job, Message):
                    self._messages -= 1
                    self._do(await self._look_at(FlTopic.parse(job.topic), job))
                else:
                    await self._perform(job)
            except CustodyError as error:
                log.error("%s", error)  # noqa: TRY400 - a sentence for people
                self._forget(job)
            except Exception:
                log.exception("a message of %s in %s failed; the bridge goes on", self.participant, self.federation)
                self._forget(job)

    def _forget(self, job: Message | Effect) -> None:
        """A transfer that couldn't be stored is asked for again."""
        if isinstance(job, Judge):
            self._core.on_not_held(job.manifest.id)

    async def _look_at(self, topic: FlTopic, message: Message) -> Iterable[Effect]:
        if not message.payload:
            self._clear(topic)
            return []
        if topic.kind is Kind.UPDATE_CHUNK:
            return self._on_chunk(topic, message.payload)
        self._hear_wants(topic, message.payload)
        way = Way(self._behind, frozenset(self.route.bridges))
        judged = judge_json(topic, message.payload, self._tools.policy, self._plan, way)
        if isinstance(judged, Refusal):
            if judged.why is Why.NO_PLAN:
                self._waiting[message.topic] = message
            if topic.kind is Kind.UPDATE_MANIFEST:
                return self._core.refuse(topic.transfer, judged)
            return [TurnedAway(judged)]
        if topic.kind is Kind.UPDATE_MANIFEST:
            return self._core.on_manifest(judged, self._tools.clock())
        await self._report(judged)
        return []

    def _on_chunk(self, topic: FlTopic, payload: bytes) -> list[Effect]:
        if self._plan is None:
            return []  # its manifest wasn't taken either; its sender asks again
        try:
            chunk = decode_chunk(payload, self._core.max_bytes)
            if (chunk.id, chunk.index) != (topic.transfer, topic.index):
                raise PayloadError("a chunk of another transfer or index than its topic's")
        except PayloadError as error:
            return self._core.refuse(topic.transfer, Refusal(Why.PAYLOAD, str(error)))
        return self._core.on_chunk(chunk, self._tools.clock())

    def _hear_wants(self, topic: FlTopic, payload: bytes) -> None:
        """What is wanted stays in the plant, so no policy line is needed to hear it."""
        if topic.kind not in (Kind.STATUS, Kind.VIA):
            return
        try:
            body = read(topic, payload)[1]
        except PayloadError:
            return
        if isinstance(body, ParticipantStatus):
            self._host.on_wants(self.federation, self.participant, body.wants)
        elif isinstance(body, BridgeStatus) and topic.bridge in self._behind:
            self._host.on_wants(self.federation, f"{self.participant}/{topic.bridge}", body.wants)

    async def _report(self, passed: Passed) -> None:
        """A retained report: the newest one of its topic is what leaves."""
        text = str(passed.topic)
        if self._last.get(text) == passed.payload:
            return  # the broker's retained copy of what we know, or a redelivery
        await self._inventory.put(text, lambda: passed.payload)
        self._last[text] = passed.payload

    def _clear(self, topic: FlTopic) -> None:
        text = str(topic)
        self._waiting.pop(text, None)
        if topic.kind.retained and self._inventory.clear(text):
            self._last.pop(text, None)
            assert self._tasks is not None
            self._tasks.create_task(self._inventory.strike(text), name=f"crossing strike {text}")

    # Effects ----------------------------------------------------------------------------------------------------------

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case TurnedAway(refusal):
                    self._turn_away(refusal)
                case Answer(receipt):
                    self._say(receipt)
                case _:
                    self._enqueue(effect)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Judge():
                self._do(await self._judge(effect))
            case Rechunk():
                await self._rechunk(effect)
            case Settle(receipt):
                await self._settle(receipt)

    async def _judge(self, job: Judge) -> list[Effect]:
        plan, manifest = self._plan, job.manifest
        if plan is None:
            self._core.on_not_held(manifest.id)
            return []
        refusal = await asyncio.to_thread(judge_update, job.content, self.participant, manifest, plan)
        if refusal is not None:
            return self._core.on_refused(manifest.id, refusal)
        self._host.make_room(manifest.bytes)
        fresh = Held(0, job.envelope, manifest, job.line, self._tools.wall_clock())
        custody, disk = self._tools.custody, self._tools.disk
        self._core.on_held(await on(disk, lambda: custody.hold(self.participant, fresh, job.content)))
        self._delivery.look_again()
        return []

    async def _rechunk(self, job: Rechunk) -> None:
        held, manifest, custody, disk = job.held, job.manifest, self._tools.custody, self._tools.disk
        content = await on(disk, lambda: custody.content(held.position))
        judged = held.manifest  # only the chunking may differ: the rest was set against the header
        due = make_manifest(
            content, "update", manifest.chunk_bytes,
            base=judged.base, round_number=judged.round_number, attempt=judged.attempt,
        )  # fmt: skip
        if due != manifest:
            self._turn_away(Refusal(Why.INTEGRITY, "another manifest of the same bytes that doesn't fit them"))
            return
        limit = self._core.limit
        if limit is not None and manifest.chunk_bytes > limit:
            return
        await on(disk, lambda: custody.rechunk(held.position, job.envelope, manifest))
        renewed = self._core.on_rechunked(job.envelope, manifest)
        if renewed is not None:
            self._delivery.on_rechunked(renewed)

    async def _settle(self, receipt: Receipt) -> None:
        custody, key = self._tools.custody, (self.federation, self.participant)
        await on(self._tools.disk, lambda: custody.settle(*key, receipt))
        self._delivery.on_settled(receipt.id)
        self._say(receipt)

    def _say(self, receipt: Receipt) -> None:
        self._host.answer(self.federation, self.participant, self._writer.seal(receipt))

    def _turn_away(self, refusal: Refusal) -> None:
        self.refused[refusal.why] += 1
        now = self._tools.clock()
        if now - self._logged.get(refusal.why, float("-inf")) >= LOG_EVERY_S:
            self._logged[refusal.why] = now
            log.warning(
                "not let out for %s in %s (%s, %d so far): %s",
                self.participant, self.federation, refusal.why, self.refused[refusal.why], refusal.detail,
            )  # fmt: skip
