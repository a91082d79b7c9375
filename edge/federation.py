"""The fl side of an edge: one session, the participation core, and the performers of its effects.

The broker's callback only parses and decides (both are quick and pure); everything that waits is done by tasks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from broker_bridge.downloads import IntegrityError, Subscribe, Unsubscribe
from broker_bridge.link import Link
from broker_bridge.outgoing import Outgoing
from broker_bridge.session import BrokerRefused, Connector, Message, PublishRefused, Session, SessionLost, Will
from broker_bridge.unusable import Unusable
from broker_bridge.upload import Upload
from edge.participation import Participation
from edge.participation_effects import (
    AskAgain,
    CheckTemplate,
    Effect,
    Evaluate,
    FinalFigures,
    PublishStatistics,
    PublishStatus,
    Swap,
    Train,
    VerifyVersion,
    Warn,
)
from edge.store_file import StoreError
from edge.succession import LOOK_AGAIN_AT
from edge.updates import TrainedUpdate
from edge.variants import Served
from edge.workshop import ModelGone, Workshop
from uns_topics.codes import Reason
from uns_topics.envelope import PayloadError
from uns_topics.model import Value
from uns_topics.payloads import Writer, read
from uns_topics.plan import Plan
from uns_topics.presence import AggregatorStatus, ParticipantState, ParticipantStatus, Route
from uns_topics.reference import Reference
from uns_topics.reports import LastUpdate
from uns_topics.rounds import Receipt, RoundAnnouncement, VersionManifest
from uns_topics.topics import FlTopic, Kind, TopicError, participant_filters
from uns_topics.transfers import WRAPPING_BYTES, decode_chunk, make_manifest

log = logging.getLogger("headgate.edge")

Work = Callable[[], Awaitable[None]]
STATUS_EVERY_S = 0.25
"""Changes of the status within this time are said once."""
HEARTBEAT_S = 10.0
"""Until a plan says otherwise."""


class Federation:
    """One participant's fl session.

    Args:
        workshop: does the heavy work (checks, training, evaluation) off the loop.
        serve: called with what is to run on the tags from now on.
        chunk_bytes: the participant's own limit going up, or None for the plan's.
        traffic: bytes of the plant's own messages so far, for the status.
    """

    def __init__(
        self,
        connector: Connector,
        federation: str,
        core: Participation,
        workshop: Workshop,
        *,
        participant: str,
        boot: str,
        chunk_bytes: int | None,
        serve: Callable[[Served], None],
        on_plan: Callable[[Plan], None],
        on_reference: Callable[[Reference | None], None],
        traffic: Callable[[], dict[str, int]],
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = core
        self.rejected = Unusable(log, "from the federation")
        """Messages of the fl tree that were not what their topic declares, by reason."""
        self.failed: Counter[str] = Counter()
        """Effects that came to nothing, by name."""
        self._federation = federation
        self._participant = participant
        self._workshop = workshop
        self._writer = Writer(federation, participant, boot)
        self._chunk_bytes = chunk_bytes
        self._serve = serve
        self._on_plan = on_plan
        self._on_reference = on_reference
        self._traffic = traffic
        self._rng = rng
        self._clock = clock
        self.waits: VersionManifest | None = None
        """The current version of a new generation, while the old one's runs on."""
        self.why_waits = ""
        self._looked_at = 0
        self._newest: VersionManifest | None = None
        self._birth = 0
        self._bytes_up = 0
        self._bytes_down = 0
        self._upload: Upload | None = None
        self._resumed = False
        self._said: dict[Kind, Value] = {}
        self._subscriptions: asyncio.Queue[Subscribe | Unsubscribe] = asyncio.Queue()
        self._work: asyncio.Queue[Effect | None] = asyncio.Queue()
        """Effects to perform; None: say everything again."""
        self._aggregator_life: tuple[str, int] | None = None
        """Boot and birth of the aggregator that was heard in this session."""
        self._status_due = asyncio.Event()
        self._time_due = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._effects: set[asyncio.Task[None]] = set()
        self._link = Link(
            connector,
            f"{participant}-fl",
            on_message=self.on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=self._make_will,
            rng=rng,
            clock=clock,
        )

    # Session ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until closed. Raises: BrokerRefused."""
        async with asyncio.TaskGroup() as self._tasks:
            helpers = [
                self._tasks.create_task(loop(), name=f"federation.{loop.__name__.strip('_')}")
                for loop in (self._subscribe_loop, self._status_loop, self._time_loop, self._effect_loop)
            ]
            await self._link.run()
            for task in (*helpers, *self._effects):  # an update that waits for its answer, a training
                task.cancel()

    async def close(self) -> None:
        """Publish the death certificate, then DISCONNECT."""
        await self._link.close((str(self._topic(Kind.STATUS)), self._offline(self._birth), 1, True))

    @property
    def is_up(self) -> bool:
        """Whether the session is there, subscribed and announced."""
        return self._link.is_up

    @property
    def status(self) -> ParticipantStatus:
        """What is said of this participant now."""
        said = {"bytes_up": self._bytes_up, "bytes_down": self._bytes_down, **self._traffic()}
        return self.core.status(max(1, self._birth)).model_copy(update=said)

    @property
    def last_update(self) -> LastUpdate | None:
        """The last update that was answered since the start."""
        said = self._said.get(Kind.LAST_UPDATE)
        return said if isinstance(said, LastUpdate) else None

    def _topic(self, kind: Kind) -> FlTopic:
        participant = self._participant if "{participant}" in kind.path else None
        return FlTopic(self._federation, kind, participant)

    def _offline(self, birth: int) -> bytes:
        return self._writer.seal(ParticipantStatus(birth=birth, state=ParticipantState.OFFLINE, reason=Reason.STOPPING))

    def _make_will(self, birth: int) -> Will:
        self._birth = birth
        return Will(str(self._topic(Kind.STATUS)), self._offline(birth))

    async def _on_up(self, session: Session, birth: int) -> None:
        self._birth = birth
        await session.subscribe(*participant_filters(self._federation, self._participant))
        await self._say_everything()
        self._do(self.core.on_connected(self._clock()))

    async def _say_everything(self) -> None:
        """A broker that lost everything gets back what we own; an aggregator that came back hears it. Raises:
        SessionLost."""
        try:
            await self._publish_status()
            for kind, body in list(self._said.items()):
                await self._publish_json(self._topic(kind), body)
        except PublishRefused as error:
            log.error("the broker doesn't take what this participant says: %s", error)  # noqa: TRY400 - for people
        if self._upload is not None:
            self._upload.on_connected()

    def _on_down(self, reason: str) -> None:
        log.info("the federation's broker is away: %s", reason)
        self.core.on_disconnected()
        self._aggregator_life = None
        if self._upload is not None:
            self._upload.on_lost()

    # Messages in -----------------------------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        """One message of the fl tree; never raises for what it holds."""
        self._bytes_down += len(message.payload) + len(message.topic)
        try:
            topic = FlTopic.parse(message.topic)
            effects = self._understand(topic, message.payload)
        except (TopicError, PayloadError, IntegrityError) as error:
            self.rejected.take(message.topic, error)
            return
        self._do(effects)

    def _understand(self, topic: FlTopic, payload: bytes) -> Sequence[Effect]:
        now = self._clock()
        core = self.core
        if topic.kind in (Kind.SKELETON_CHUNK, Kind.MODEL_CHUNK, Kind.DELTA_CHUNK):
            if not payload or core.plan is None:
                return []
            effects = core.on_chunk(decode_chunk(payload, self._max_chunk_bytes()), now)
            self._time_due.set()
            return effects
        if not payload:
            return self._on_cleared(topic.kind, now)
        envelope, body = read(topic, payload)
        match body:
            case Plan():
                return self._understand_plan(body, now)
            case RoundAnnouncement():
                return core.on_round(body)
            case VersionManifest():
                on_version = core.on_current if topic.kind is Kind.MODEL_CURRENT else core.on_candidate
                return on_version(body, now)
            case AggregatorStatus():
                self._meet((envelope.boot, body.birth), body)
                return core.on_aggregator(body)
            case Route():
                if body.chunk_bytes is not None and self._upload is not None:
                    self._upload.on_limit(body.chunk_bytes)
                return core.on_route(body)
            case Reference():
                self._on_reference(body)
            case Receipt() if self._upload is not None:
                self._upload.on_receipt(body)
        return []

    def _on_cleared(self, kind: Kind, now: float) -> Sequence[Effect]:
        if kind is Kind.REFERENCE:
            self._on_reference(None)
        if kind is Kind.MODEL_CANDIDATE:
            return self.core.on_candidate(None, now)
        return self.core.on_route(None) if kind is Kind.ROUTE else []

    def _meet(self, life: tuple[str, int], status: AggregatorStatus) -> None:
        """An aggregator that came back within our session may have lost what it was not answered."""
        if status.state == "offline":
            return
        known, self._aggregator_life = self._aggregator_life, life
        if known not in (None, life):
            self._work.put_nowait(None)

    def _understand_plan(self, plan: Plan, now: float) -> list[Effect]:
        if (problem := self.core.plan_problem(plan)) is not None:
            raise PayloadError(f"a plan that can't be followed: {problem}")
        self._on_plan(plan)
        on_disk = self._workshop.follow(plan)
        if not self._resumed:
            self.core.on_sending()
        effects = self.core.on_plan(plan, now, frozenset({plan.template.sha256}) if on_disk else frozenset())
        if on_disk:
            effects += self.core.on_template(plan.template.sha256, None, now)
        if plan.control:  # not every trainer can follow such a plan: said before a round waits for it
            self._start("LookAtTrainer", self._look_at_trainer)
        if not self._resumed:
            self._resumed = True
            self._start("Resume", self._resume)
        self._time_due.set()
        return effects

    def _max_chunk_bytes(self) -> int:
        plan = self.core.plan
        return max(plan.chunk_bytes, plan.template.skeleton.chunk_bytes) * 4 if plan is not None else 0

    # Effects ---------------------------------------------------------------------------------------------------------

    def do(self, effects: Sequence[Effect]) -> None:
        """Perform effects that something else brought about (new samples, the trainer)."""
        self._do(effects)

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Subscribe | Unsubscribe):
                self._subscriptions.put_nowait(effect)
                self._time_due.set()
            elif isinstance(effect, PublishStatus):
                self._status_due.set()
            elif isinstance(effect, Warn):
                log.warning("%s", effect.text)
            elif isinstance(effect, AskAgain):
                if self._upload is not None:
                    self._upload.on_connected()
            else:
                self._work.put_nowait(effect)

    def look_again(self, matured: int) -> None:
        """More samples have matured: a version that waits to take another generation's place may do so now."""
        if self.waits is not None and matured >= max(1.0, LOOK_AGAIN_AT * self._looked_at):
            self._looked_at = matured
            self._work.put_nowait(Swap(self.waits))

    async def _has_to_wait(self, manifest: VersionManifest) -> bool:
        """Whether what runs, of another template, goes on instead of a current version."""
        self._newest = manifest
        try:
            why = await self._workshop.why_not_yet(manifest)
        except StoreError as error:
            why = str(error)
        if self._newest is not manifest:  # a newer one is looked at
            return True
        if why is None:
            self.waits = None
            if self._workshop.is_succession(manifest):
                log.info("version %d of generation %d takes the old one's place", manifest.version, manifest.generation)
            return False
        if self.waits is None or self.waits.generation != manifest.generation:
            known = (manifest.version, manifest.generation)
            log.info("version %d of generation %d doesn't run yet: %s; what runs goes on", *known, why)
        self.waits, self.why_waits = manifest, why
        return True

    def run_on_tags(self, served: Served) -> None:
        """Run this model from now on, and say so."""
        self._serve(served)
        held = self._workshop.decisions.held is not None
        self._do(self.core.on_swapped(served.version, served.variant, held=held))

    async def _enter(self, manifest: VersionManifest) -> None:
        """Make a current version ready and run it, or what runs on in its place."""
        served = await self._workshop.enter(manifest)
        if served is not None:
            self.run_on_tags(served)
            if served.version == manifest.version:
                await self._workshop.mark_served(manifest)

    async def _review(self, manifest: VersionManifest, *, final: bool) -> None:
        """Publish what a current version is worth here, and run what is best."""
        found = await self._workshop.review(manifest, final=final)
        if found.serves is not None:
            self.run_on_tags(found.serves)
        await self.say(Kind.EVALUATION, found.evaluation)

    async def _effect_loop(self) -> None:
        """Start a task per effect; they wait for each other only where the workshop says so."""
        while True:
            effect = await self._work.get()
            name = type(effect).__name__ if effect is not None else "SayEverything"
            self._start(name, functools.partial(self._perform, effect) if effect is not None else self._say_everything)

    def _start(self, name: str, work: Work) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(self.survive(name, work), name=f"federation.{name}")
        self._effects.add(task)
        task.add_done_callback(self._effects.discard)

    async def survive(self, name: str, work: Work) -> None:
        """Whatever the federation's side fails at, inference goes on: one effect is lost, never the service. Raises:
        BrokerRefused."""
        try:
            await work()
        except SessionLost:
            pass  # the next session starts with everything
        except BrokerRefused:
            raise  # credentials or access rules: for people, with an exit code
        except Exception as error:
            self.failed[name] += 1
            if isinstance(error, ModelGone):
                log.info("%s: %s", name, error)
            else:
                log.exception("%s failed; inference goes on", name)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case CheckTemplate(plan, skeleton):
                problem = await _verdict(self._workshop.check_template(plan, skeleton))
                self._do(self.core.on_template(plan.template.sha256, problem, self._clock()))
            case VerifyVersion(manifest, content, parent):
                problem = await _verdict(self._workshop.verify(manifest, content, parent))
                by_step = parent is not None
                self._do(self.core.on_verified(manifest, problem, self._clock(), by_step=by_step))
                if problem is None:
                    await self._workshop.keep(manifest, self.core.held)
            case Swap(manifest):
                if not await self._has_to_wait(manifest):
                    await self._enter(manifest)
                await self._review(manifest, final=manifest.final)
            case FinalFigures(manifest):
                await self._review(manifest, final=True)
            case Evaluate(candidate, current):
                await self.say(Kind.EVALUATION, await self._workshop.compare(candidate, current))
            case PublishStatistics(generation):
                await self.say(Kind.STATISTICS, await self._workshop.statistics(generation))
            case Train(announcement):
                await self._train(announcement)

    async def _train(self, announcement: RoundAnnouncement) -> None:
        try:
            outcome = await self._workshop.train(announcement)
        except Exception:  # a full disk, a store that fails: this round goes on without us, the next one may do better
            log.exception("round %d is skipped", announcement.round_number)
            outcome = Reason.TRAINER_FAILED
        if isinstance(outcome, Reason):
            self._do(self.core.on_trained(outcome))
            await self._look_at_trainer()
            return
        self.core.on_sending()
        self._do(self.core.on_trained(None))
        upload = self._begin(outcome)
        self._start("LocalOnly", functools.partial(self._workshop.train_local, announcement))
        await self._end(upload, outcome, announcement)

    async def _look_at_trainer(self) -> None:
        """Whether training is possible now, by the plan at hand."""
        self._do(self.core.on_trainer(await self._workshop.trainer_reason()))

    async def _resume(self) -> None:
        """Ask what became of the update that was under way when this edge was stopped."""
        update = answered = None
        try:
            answered = await self._workshop.updates.answered()
            update = await self._workshop.updates.unanswered()
        finally:
            if update is None:
                self._do(self.core.on_answered(answered))
        if update is not None:
            log.info("round %d: asking what became of its update", update.round_number)
            await self._end(self._begin(update), update, None)

    def _begin(self, update: TrainedUpdate) -> Upload:
        """The upload of an update; none is under way."""
        plan = self.core.plan
        assert plan is not None  # there is no update without one
        manifest = make_manifest(
            update.content,
            "update",
            self._chunk_size(plan),
            base=update.base,
            round_number=update.round_number,
            attempt=update.attempt,
        )
        self._upload = Upload(
            Outgoing(update.content, manifest),
            self._topic(Kind.STATUS),
            self._publish_json,
            self._publish_bytes,
            self._clock,
            self._rng,
        )
        return self._upload

    async def _end(self, upload: Upload, update: TrainedUpdate, announcement: RoundAnnouncement | None) -> None:
        try:
            await self._deliver(upload, update, announcement)
        finally:
            self._do(self.core.on_answered((update.round_number, update.base)))

    async def _deliver(self, upload: Upload, update: TrainedUpdate, announcement: RoundAnnouncement | None) -> None:
        """Send it and say what came of it.

        Args: announcement: of its round; None where an earlier process trained for it.
        """
        done = await upload.result(ask_first=announcement is None)
        assert done is not None  # nothing takes its place: the next training waits
        if done.detail:
            log.error("the update of round %d can't be sent: %s", update.round_number, done.detail)
        answered = None if done.detail else done.result  # one that can't be sent was never judged
        await self._workshop.updates.settle(update, answered, done.code)
        if done.result == "accepted" and announcement is not None:
            await self._workshop.updates.accepted(update)
        log.info("round %d: update %s%s", update.round_number, done.result, f" ({done.code})" if done.code else "")
        await self.say(
            Kind.LAST_UPDATE,
            LastUpdate(
                id=upload.outgoing.manifest.id,
                round_number=update.round_number,
                base=update.base,
                result=done.result,
                code=done.code,
                num_examples=update.num_examples,
                num_steps=update.num_steps,
                payload_bytes=len(update.content),
                train_seconds=update.seconds,
            ),
        )

    def _chunk_size(self, plan: Plan) -> int:
        size = min(plan.chunk_bytes, self._chunk_bytes or plan.chunk_bytes)
        session = self._link.session
        if session is not None and session.max_packet_bytes is not None:
            size = min(size, session.max_packet_bytes - WRAPPING_BYTES)
        route = self.core.route
        return size if route is None or route.chunk_bytes is None else min(size, route.chunk_bytes)

    # Publishing ------------------------------------------------------------------------------------------------------

    async def say(self, kind: Kind, body: Value | None) -> None:
        """Publish a retained report, and remember it for the next connection."""
        if body is not None:
            self._said[kind] = body
            try:
                await self._publish_json(self._topic(kind), body)
            except (SessionLost, PublishRefused) as error:
                log.info("%s will be said again: %s", kind.path, error)

    async def _publish_json(self, topic: FlTopic, body: Value) -> None:
        await self._publish_bytes(topic, self._writer.seal(body))

    async def _publish_bytes(self, topic: FlTopic, payload: bytes) -> None:
        text = str(topic)
        self._bytes_up += len(payload) + len(text)
        await self._link.publish(text, payload, retain=topic.kind.retained)

    async def _publish_status(self) -> None:
        await self._publish_json(self._topic(Kind.STATUS), self.status)

    # Loops -----------------------------------------------------------------------------------------------------------

    async def _status_loop(self) -> None:
        while True:
            plan = self.core.plan
            try:
                async with asyncio.timeout(plan.heartbeat_s if plan is not None else HEARTBEAT_S):
                    await self._status_due.wait()
            except TimeoutError:
                pass
            self._status_due.clear()
            if self._link.session is not None:
                try:
                    await self._publish_status()
                except (SessionLost, PublishRefused):
                    continue  # the next connection starts with a status
            await asyncio.sleep(STATUS_EVERY_S)

    async def _subscribe_loop(self) -> None:
        while True:
            effect = await self._subscriptions.get()
            session = self._link.session
            if session is None or not effect.topics:
                continue  # the next connection subscribes to what is still missing
            try:
                if isinstance(effect, Subscribe):
                    await session.subscribe(*effect.topics)
                else:
                    await session.unsubscribe(*effect.topics)
            except SessionLost:
                continue

    async def _time_loop(self) -> None:
        """Tell the core when its downloads stall."""
        while True:
            deadline = self.core.downloads.deadline
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock())):
                    await self._time_due.wait()
            except TimeoutError:
                if self._link.session is not None:
                    self._do(self.core.on_time(self._clock()))
                else:
                    await asyncio.sleep(STATUS_EVERY_S)
            self._time_due.clear()


async def _verdict(check: Awaitable[str | None]) -> str | None:
    """Why a check refuses; one that fails itself has proven nothing, so it refuses too."""
    try:
        return await check
    except Exception as error:
        log.exception("a check failed")
        return f"it couldn't be checked: {type(error).__name__}"
