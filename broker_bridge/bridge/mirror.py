"""The shell around `Downward`: one federation's way from the leading uplink session to the plant's broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from broker_bridge.assembly import IntegrityError
from broker_bridge.bridge.custody import Custody, CustodyError, Mirrored
from broker_bridge.bridge.downward import (
    MIRRORED,
    Downward,
    Drop,
    Effect,
    Keep,
    Mirror,
    PlanCame,
    Rechunk,
    WantsChanged,
)
from broker_bridge.bridge.inventory import Inventory
from broker_bridge.downloads import CHUNK_KINDS, Subscribe, Unsubscribe
from broker_bridge.publisher import Payload, Publisher
from broker_bridge.session import BrokerRefused, Message, PublishRefused, Session, SessionLost
from broker_bridge.threads import on
from broker_bridge.unusable import Unusable
from uns_topics.envelope import PayloadError
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.presence import Want
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest, chunk_of, decode_chunk, encode_chunk

log = logging.getLogger("headgate.bridge")

SETTLE_S = 5.0
"""How long a broker may take to send its retained messages after a subscription; MQTT has no `there is none`."""
REPEAT_S = 15.0
"""What a participant wants although it is there is put on the plant's broker again, at most once in this time."""
_CHUNKS = frozenset(CHUNK_KINDS.values())
_BY_WANT = {Want.PLAN: Kind.PLAN, Want.CURRENT: Kind.MODEL_CURRENT, Want.CANDIDATE: Kind.MODEL_CANDIDATE}


def kept_plan(custody: Custody, federation: str) -> Plan | None:
    """The last plan that was kept; None where there is none, or none that this release can read."""
    payload = custody.plan(federation)
    if payload is None:
        return None
    try:
        body = read(FlTopic(federation, Kind.PLAN), payload)[1]
    except PayloadError as error:
        log.warning("the plan that was kept can't be read any more: %s; a new one is waited for", error)
        return None
    return body if isinstance(body, Plan) else None


class FederationMirror:
    """One federation as the plant's broker shows it.

    Args:
        plant: owns the retained topics on the plant's broker.
        on_plan: hears of each plan.
        on_wants: what the next broker lacks has changed.
    """

    def __init__(
        self,
        federation: str,
        custody: Custody,
        disk: Executor,
        plant: Publisher,
        *,
        on_plan: Callable[[Plan], None],
        on_wants: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.federation = federation
        self.refused = Unusable(log, "from above")
        """Messages from the next broker that were not what their topic declares."""
        self.plan = kept_plan(custody, federation)
        self._custody = custody
        self._disk = disk
        self._plant = plant
        self._on_plan = on_plan
        self._on_wants = on_wants
        self._clock = clock
        mirrored = custody.mirrors(federation)
        self._core = Downward(federation, self.plan, mirrored)
        self._inventory = Inventory(custody, disk, plant, "plant", federation)
        self._lead: Session | None = None
        self._leader = ""
        self._jobs: asyncio.Queue[Effect] = asyncio.Queue()
        self._deadline_moved = asyncio.Event()
        self._repeated: dict[Want, float] = {}
        self._tasks: asyncio.TaskGroup | None = None
        for one in mirrored:
            if one.content is not None:
                self._show(one.manifest, one.content)
        self._do(self._core.start())

    @property
    def wants(self) -> tuple[Want, ...]:
        """What the next broker lacks."""
        return self._core.wants

    # The leading session ----------------------------------------------------------------------------------------------

    @property
    def is_led(self) -> bool:
        """Whether a session reads the federation's topics."""
        return self._lead is not None

    def follow(self, session: Session | None, who: str) -> None:
        """This participant's session leads from now on; None: it is over, whether or not it led."""
        if session is not None or self._leader == who:
            self._lead, self._leader = session, who

    async def lead(self, session: Session) -> None:
        """Read the federation's topics through this session. Raises: SessionLost, BrokerRefused."""
        await session.subscribe(*(str(FlTopic(self.federation, kind)) for kind in MIRRORED))
        if self._lead is session:
            self._do(self._core.on_connected(self._clock()))

    def reconcile(self, session: Session) -> None:
        """Some time after a connect: what was cleared while we were away is cleared at the plant."""
        if self._lead is session:
            self._do(
                self._core.reconcile([FlTopic.parse(topic) for topic in sorted(self._inventory.topics)], self._clock())
            )

    def on_message(self, topic: FlTopic, message: Message) -> None:
        """A message of the leading session; never raises for what it holds."""
        try:
            self._do(self._understand(topic, message.payload))
        except Exception as error:  # what comes from above ends nothing
            if not isinstance(error, PayloadError | IntegrityError):
                log.exception("a message from above on %s failed", topic.kind.path)
            self.refused.take(message.topic, error)

    def on_wants(self, participant: str, wants: Iterable[Want]) -> None:
        """What a participant, or a bridge nearer to it, says that it is fetching."""
        wanted = tuple(wants)
        self._do(self._core.on_wants(participant, wanted, self._clock()))
        self._repeat(wanted)

    def _understand(self, topic: FlTopic, payload: bytes) -> Sequence[Effect]:
        now = self._clock()
        if topic.kind in _CHUNKS:
            return self._core.on_chunk(decode_chunk(payload, self._core.max_chunk_bytes), now) if payload else []
        if topic.kind not in MIRRORED:
            raise PayloadError("nobody subscribed to this")
        body = read(topic, payload)[1] if payload else None
        return self._core.on_json(topic, payload, body, now)

    def _repeat(self, wants: Iterable[Want]) -> None:
        """A plant's broker that lost what we put there hears it again, even within one session."""
        now = self._clock()
        for want in wants:
            held = self._core.held(want)
            if held is None:
                self._repeated.pop(want, None)
            elif now - self._repeated.setdefault(want, now) >= REPEAT_S:
                self._repeated[want] = now
                topics = self._topics(held)
                if kind := _BY_WANT.get(want):
                    topics.append(str(FlTopic(self.federation, kind)))
                self._plant.refresh(topics)

    # Effects ----------------------------------------------------------------------------------------------------------

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, WantsChanged):
                self._on_wants()
            else:
                self._jobs.put_nowait(effect)
        self._deadline_moved.set()

    async def run(self) -> None:
        """Perform effects in their order, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._run_clock(), name=f"mirror {self.federation} clock")
            while True:
                await self._survive(await self._jobs.get())

    async def _survive(self, effect: Effect) -> None:
        try:
            await self._perform(effect)
        except SessionLost:
            pass  # the next leading session subscribes to what is still missing
        except (PublishRefused, BrokerRefused) as error:
            log.error("the next broker refused what the bridge asked of it: %s", error)  # noqa: TRY400 - for people
        except CustodyError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people
            if isinstance(effect, Keep):
                self._core.on_not_kept(effect.manifest)
        except Exception:
            log.exception("%s failed; the bridge goes on", type(effect).__name__)

    async def _run_clock(self) -> None:
        while True:
            self._deadline_moved.clear()
            deadline = self._core.deadline
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock())):
                    await self._deadline_moved.wait()
            except TimeoutError:
                self._do(self._core.on_time(self._clock()))
                await asyncio.sleep(0)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Subscribe(topics) if self._lead is not None and topics:
                await self._lead.subscribe(*topics)
            case Unsubscribe(topics) if self._lead is not None and topics:
                await self._lead.unsubscribe(*topics)
            case Mirror(topic, payload):
                await self._mirror(topic, payload)
            case PlanCame(plan, payload):
                self.plan = plan
                await on(self._disk, lambda: self._custody.keep_plan(self.federation, payload))
                self._on_plan(plan)
            case Keep(manifest, content):
                await on(self._disk, lambda: self._custody.mirror(self.federation, Mirrored(manifest, content)))
                self._core.on_kept(manifest)
                self._show(manifest, content)
            case Rechunk(old, new):
                await self._rechunk(old, new)
            case Drop(manifest):
                await self._drop(manifest)

    async def _mirror(self, topic: FlTopic, payload: bytes) -> None:
        text = str(topic)
        if payload:
            await self._inventory.put(text, lambda: payload)
        elif self._inventory.clear(text):
            self._background(self._inventory.strike(text), f"strike {text}")

    async def _rechunk(self, old: TransferManifest, new: TransferManifest) -> None:
        held = await on(self._disk, lambda: self._custody.mirrors(self.federation))
        known = next((one for one in held if one.manifest == old), None)
        if known is None or known.content is None:
            return
        content = known.content
        await on(self._disk, lambda: self._custody.mirror(self.federation, replace(known, manifest=new)))
        self._show(new, content)
        for topic in set(self._topics(old)) - set(self._topics(new)):
            self._plant.clear(topic)

    async def _drop(self, manifest: TransferManifest) -> None:
        cleared = Mirrored(manifest, None)
        await on(self._disk, lambda: self._custody.mirror(self.federation, cleared))
        topics = self._topics(manifest)
        for topic in topics:
            self._plant.clear(topic)
        self._background(self._forget(cleared, topics), f"forget {cleared.name}")

    async def _forget(self, cleared: Mirrored, topics: Sequence[str]) -> None:
        await self._plant.flushed(topics)
        # The same bytes may have come back meanwhile, as a version that was rolled back to.
        if self._core.is_held(cleared.manifest):
            return
        try:
            await on(self._disk, lambda: self._custody.forget_mirrored(self.federation, cleared.name))
        except CustodyError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people; it is tidied up after a restart

    def _show(self, manifest: TransferManifest, content: bytes) -> None:
        for index, topic in enumerate(self._topics(manifest)):
            self._plant.put(topic, _chunk(content, manifest, index), chunk=True)

    def _topics(self, manifest: TransferManifest) -> list[str]:
        kind = CHUNK_KINDS[manifest.kind]
        return [
            str(FlTopic(self.federation, kind, version=manifest.version, index=index))
            for index in range(len(manifest.chunks))
        ]

    def _background(self, work: Coroutine[None, None, None], name: str) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work, name=f"mirror {self.federation} {name}")


def _chunk(content: bytes, manifest: TransferManifest, index: int) -> Payload:
    return lambda: encode_chunk(chunk_of(content, manifest, index))
