"""The bridge as a service: the plant's session, the crossings of its participants, the mirrors of their federations."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.crossing import Crossing, Tools
from broker_bridge.bridge.custody import Custody, CustodyError
from broker_bridge.bridge.egress import Egress
from broker_bridge.bridge.figures import BridgeFigures, bridge_sheet
from broker_bridge.bridge.ledger import FOLDER, Ledger, LedgerError, spent_on
from broker_bridge.bridge.mirror import SETTLE_S, FederationMirror
from broker_bridge.bridge.pause import COMMAND_FILE, Pause
from broker_bridge.bridge.policy import Budget, ExportPolicy
from broker_bridge.config import BrokerConfig
from broker_bridge.groups import first_of
from broker_bridge.health import Health
from broker_bridge.link import Link
from broker_bridge.metrics import Sheet, service_registry
from broker_bridge.publisher import Publisher
from broker_bridge.session import (
    BrokerMisconfigured,
    BrokerRefused,
    Connector,
    Message,
    PublishRefused,
    Session,
    SessionLost,
)
from broker_bridge.settings import read_yaml, validate
from uns_topics.payloads import Writer
from uns_topics.plan import Plan
from uns_topics.presence import Want
from uns_topics.topics import FlTopic, Kind, owner_of

log = logging.getLogger("headgate.bridge")

HEARTBEAT_S = 10.0
"""Until a plan says otherwise."""
LEAST_HEARTBEAT_S = 0.2
"""Whatever a plan says: the plant decides how much it sends."""
LOOK_S = 1.0
"""How often pause files, the day and a record that failed are looked at; each message that leaves looks by itself."""


class ExitCode(IntEnum):
    """Why the service ended."""

    OK = 0
    CONFIGURATION = 2
    BROKER = 4


Connect = Callable[[BrokerConfig], Connector]


@dataclass(frozen=True)
class Surroundings:
    """What the service meets the world through; tests bring their own."""

    connect: Connect = AiomqttConnector
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    settle_s: float = SETTLE_S
    look_s: float = LOOK_S
    rng: random.Random = field(default_factory=random.Random)


def read_policy(config: BridgeConfig) -> ExportPolicy:
    """The plant's export policy. Raises: ConfigError: missing, no YAML, an unknown key."""
    content = read_yaml(config.policy)
    return validate(ExportPolicy, content if content is not None else {}, str(config.policy), config.policy.parent)


def pause_of(config: BridgeConfig, policy: ExportPolicy) -> Pause:
    """The plant's switches: the policy's file, and the one that `headgate bridge pause` makes."""
    own = config.data_dir / COMMAND_FILE
    files = [own] if policy.pause.file is None else [own, policy.pause.file]
    return Pause(*files, with_topic=policy.pause.topic is not None)


async def run_bridge(
    config: BridgeConfig, policy: ExportPolicy, stop: asyncio.Event, around: Surroundings | None = None
) -> int:
    """Run one bridge until `stop` is set. Returns: an `ExitCode`. Raises: ConfigError."""
    world = around or Surroundings()
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        bridge = Bridge(config, policy, world)
    except (OSError, CustodyError, LedgerError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for people, no stack trace
        return ExitCode.CONFIGURATION
    try:
        return await bridge.run(stop)
    except BaseExceptionGroup as group:
        refused, others = group.split((BrokerRefused, BrokerMisconfigured))
        if refused is None or others is not None:
            raise
        first = first_of(refused)
        log.error("%s; nothing is lost, what waits stays in %s", first, config.data_dir)  # noqa: TRY400
        return ExitCode.CONFIGURATION if isinstance(first, BrokerMisconfigured) else ExitCode.BROKER
    finally:
        bridge.close()


class Bridge:
    """One bridge between a plant's broker and the next."""

    def __init__(self, config: BridgeConfig, policy: ExportPolicy, world: Surroundings) -> None:
        self._config = config
        self._policy = policy
        self._world = world
        self._boot = secrets.token_hex(4)
        self.pause = pause_of(config, policy)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="bridge disk")
        self.custody = Custody(config.data_dir / "bridge.sqlite")
        self._ledger = Ledger(
            config.data_dir / FOLDER,
            config.bridge,
            world.wall_clock,
            keep_contents_bytes=config.ledger.keep_contents_bytes,
            keep_days=config.ledger.keep_days,
        )
        budget = Budget(policy.budget, self._today(), *spent_on(config.data_dir / FOLDER, self._today()))
        self.egress = Egress(policy, budget, self._ledger.record, self._disk, lambda: self.pause.reason, self._today)
        self._tasks: asyncio.TaskGroup | None = None
        self._plant_session: Session | None = None
        self._paused = False
        self._refused: set[str] = set()
        """Participants whose access the next broker refused."""
        self._said_day = ""
        self._plant_link = Link(
            world.connect(config.plant),
            f"{config.bridge}-bridge",
            on_message=self._on_plant_message,
            on_up=self._on_plant_up,
            on_down=self._on_plant_down,
            make_will=lambda _birth: None,
        )
        self.plant = Publisher(self._plant_link.publish, on_too_large=self._on_too_large)
        tools = Tools(
            config, policy, self.custody, self.egress, self._disk, world.clock, world.wall_clock, self._boot, world.rng
        )
        self.crossings = {
            (p.federation, p.participant): Crossing(p, world.connect(config.uplink_of(p)), tools, self)
            for p in config.participants
        }
        self.mirrors = {name: self._mirror(name) for name in sorted({p.federation for p in config.participants})}
        self._routes = {name: Writer(name, config.bridge, self._boot) for name in self.mirrors}
        self._health = Health(config.health, service_registry(self._sheet))
        self._health.condition("plant", self._why_no_plant)
        self._health.condition("uplink", self._why_no_uplink)
        self._health.condition("pause", lambda: None if self.pause.reason is None else f"paused {self.pause.reason}")
        self._health.condition("record", lambda: self.egress.problem)
        self._health.condition("plan", self._why_no_plan)
        for crossing in self.crossings.values():
            plan = self.mirrors[crossing.federation].plan
            if plan is not None:
                crossing.on_plan(plan)

    def _mirror(self, federation: str) -> FederationMirror:
        def on_plan(plan: Plan) -> None:
            for crossing in self._of(federation):
                crossing.on_plan(plan)

        def on_wants() -> None:
            for crossing in self._of(federation):
                crossing.uplink.say_presence()

        return FederationMirror(
            federation,
            self.custody,
            self._disk,
            self.plant,
            on_plan=on_plan,
            on_wants=on_wants,
            clock=self._world.clock,
        )

    def _of(self, federation: str) -> list[Crossing]:
        return [crossing for (name, _), crossing in self.crossings.items() if name == federation]

    def _today(self) -> str:
        return datetime.fromtimestamp(self._world.wall_clock(), UTC).strftime("%Y-%m-%d")

    # Running ----------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> int:
        """Until stopped. Raises: ConfigError; BrokerRefused and BrokerMisconfigured, in a group."""
        async with self._health.serving():
            return await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> int:
        self._look()
        async with asyncio.TaskGroup() as self._tasks:
            start = self._tasks.create_task
            running = [
                start(self._plant_link.run(), name="bridge plant"),
                start(self.plant.run(), name="bridge plant topics"),
                start(self._look_loop(), name="bridge switches"),
                start(self._heartbeat_loop(), name="bridge heartbeat"),
                *(start(m.run(), name=f"bridge mirror {m.federation}") for m in self.mirrors.values()),
                *(start(self._cross(c), name=f"bridge crossing {c.participant}") for c in self.crossings.values()),
            ]
            self._health.watch(*running)
            await stop.wait()
            self._health.stopping()
            await asyncio.gather(*(crossing.uplink.close() for crossing in self.crossings.values()))
            await self._plant_link.close()
            for task in running:
                task.cancel()
        return ExitCode.OK

    def close(self) -> None:
        """Free what outlives the tasks."""
        self._disk.shutdown(wait=True, cancel_futures=True)
        self.custody.close()
        self._ledger.close()

    async def _cross(self, crossing: Crossing) -> None:
        """One participant whose access is refused doesn't stop the others. Raises: BrokerRefused: of the last one."""
        try:
            await crossing.run()
        except BaseExceptionGroup as group:
            refused, others = group.split(BrokerRefused)
            self._refused.add(crossing.participant)
            if refused is None or others is not None or len(self._refused) == len(self.crossings):
                raise
            log.error("%s in %s: %s; the others go on", crossing.participant, crossing.federation, first_of(refused))  # noqa: TRY400
            await asyncio.Event().wait()

    # Health -----------------------------------------------------------------------------------------------------------

    def _why_no_plant(self) -> str | None:
        return None if self.is_plant_up else "there is no session with the plant's broker"

    def _why_no_uplink(self) -> str | None:
        away = [c.participant for c in self.crossings.values() if not c.uplink.is_up]
        return None if not away else f"there is no session with the next broker for {', '.join(sorted(away))}"

    def _why_no_plan(self) -> str | None:
        unknown = [name for name, mirror in self.mirrors.items() if mirror.plan is None]
        return None if not unknown else f"the plan of {', '.join(unknown)} hasn't come yet: updates wait for it"

    def _sheet(self) -> Sheet:
        budget_bytes, budget_messages = self.egress.remaining()
        mirrors = self.mirrors.items()
        return bridge_sheet(
            BridgeFigures(
                bridge=self._config.bridge,
                is_plant_up=self.is_plant_up,
                is_paused=self.pause.reason is not None,
                is_recording=self.egress.problem is None,
                budget_bytes=budget_bytes,
                budget_messages=budget_messages,
                crossings=tuple(crossing.figures for crossing in self.crossings.values()),
                unreadable={(name, why): n for name, mirror in mirrors for why, n in mirror.refused.items()},
                with_plan={name: mirror.plan is not None for name, mirror in mirrors},
            )
        )

    # Switches ---------------------------------------------------------------------------------------------------------

    @property
    def is_plant_up(self) -> bool:
        """Whether the plant's broker is there."""
        return self._plant_session is not None

    async def _look_loop(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(self._world.look_s)

    def _look(self) -> None:
        """The switches, the day, and whether the record can be written again."""
        reason = self.pause.reason
        if (reason is not None) != self._paused:
            self._paused = reason is not None
            log.warning("paused by the plant %s: nothing leaves" if reason else "the pause has ended%s", reason or "")
            for crossing in self.crossings.values():
                crossing.uplink.set_paused(self._paused)
                if self._paused:
                    self._start(crossing.uplink.say_offline(), "bridge says that it is paused")
        day = self._today()
        held_back = self.egress.held_back and not self._paused
        if day != self._said_day or held_back:
            self.egress.held_back = False
            if self.egress.problem is not None:
                log.error("%s", self.egress.problem)
            self._said_day = day
            for crossing in self.crossings.values():
                crossing.retry()

    async def _heartbeat_loop(self) -> None:
        while True:
            plans = [mirror.plan for mirror in self.mirrors.values()]
            wanted = min((plan.heartbeat_s for plan in plans if plan is not None), default=HEARTBEAT_S)
            await asyncio.sleep(max(wanted, LEAST_HEARTBEAT_S))
            for crossing in self.crossings.values():
                crossing.heartbeat()

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work, name=name)

    # The plant's broker -----------------------------------------------------------------------------------------------

    async def _on_plant_up(self, session: Session, _birth: int) -> None:
        filters = [f for crossing in self.crossings.values() for f in crossing.filters]
        topic = self._policy.pause.topic
        await session.subscribe(*filters, *([topic] if topic is not None else []))
        self._plant_session = session
        log.info("the plant's broker is there")
        for crossing in self.crossings.values():
            self._say_route(crossing)
            crossing.set_plant(True)
        self.plant.on_up()
        self._start(self._reconcile_plant(session), "bridge reconciles the plant's topics")

    def _on_plant_down(self, reason: str) -> None:
        log.warning("the plant's broker is away: %s", reason)
        self._plant_session = None
        self.plant.on_down()
        for crossing in self.crossings.values():
            crossing.set_plant(False)

    async def _reconcile_plant(self, session: Session) -> None:
        await asyncio.sleep(self._world.settle_s)
        if self._plant_session is session:
            self.pause.settle()
            self._look()
            for crossing in self.crossings.values():
                crossing.reconcile()

    def _on_plant_message(self, message: Message) -> None:
        if message.topic == self._policy.pause.topic:
            self.pause.on_topic(message.payload)
            self._look()
            return
        owner = owner_of(message.topic)
        if owner is not None and owner in self.crossings:
            self.crossings[owner].on_plant_message(message)

    def _on_too_large(self, why: str) -> None:
        log.error(
            "the plant's broker doesn't take the federation's chunks (%s): raise its message limit, or lower "
            "chunk_bytes at the aggregator",
            why,
        )

    # For the crossings ------------------------------------------------------------------------------------------------

    def answer(self, federation: str, participant: str, payload: bytes) -> None:
        """Publish a receipt on the plant's broker; lost with the session, for its participant asks again."""
        topic = str(FlTopic(federation, Kind.RECEIPT, participant))

        async def say() -> None:
            try:
                await self._plant_link.publish(topic, payload)
            except SessionLost:
                pass
            except PublishRefused as error:
                log.error("the plant's broker refused a receipt for %s: %s", participant, error)  # noqa: TRY400

        self._start(say(), f"bridge receipt {participant}")

    def on_uplink(self, crossing: Crossing, session: Session | None) -> None:
        """One session of a federation reads what is said to all; when it ends, the next one does."""
        mirror = self.mirrors[crossing.federation]
        if session is None:
            mirror.follow(None, crossing.participant)
            for other in self._of(crossing.federation):
                if other is not crossing and other.uplink.session is not None and not mirror.is_led:
                    self._lead(other, other.uplink.session)
        elif not mirror.is_led:
            self._lead(crossing, session)

    def _lead(self, crossing: Crossing, session: Session) -> None:
        mirror = self.mirrors[crossing.federation]
        mirror.follow(session, crossing.participant)
        self._start(self._take_lead(mirror, session), f"bridge reads {crossing.federation}")

    async def _take_lead(self, mirror: FederationMirror, session: Session) -> None:
        try:
            await mirror.lead(session)
        except SessionLost:
            return  # the next session will
        await asyncio.sleep(self._world.settle_s)
        mirror.reconcile(session)

    def on_shared(self, crossing: Crossing, topic: FlTopic, message: Message) -> None:
        """A message of the federation."""
        if topic.federation == crossing.federation:
            self.mirrors[crossing.federation].on_message(topic, message)

    def on_route(self, crossing: Crossing) -> None:
        """The bridges above, or the chunk limit, changed."""
        self._say_route(crossing)

    def _say_route(self, crossing: Crossing) -> None:
        topic = str(FlTopic(crossing.federation, Kind.ROUTE, crossing.participant))
        writer = self._routes[crossing.federation]
        self.plant.put(topic, lambda: writer.seal(crossing.route))

    def on_wants(self, federation: str, who: str, wants: tuple[Want, ...]) -> None:
        """Somebody behind the bridge says what it is fetching."""
        self.mirrors[federation].on_wants(who, wants)

    def wants(self, federation: str) -> tuple[Want, ...]:
        """What the next broker lacks."""
        return self.mirrors[federation].wants

    def make_room(self, payload_bytes: int) -> None:
        """Give up the oldest held transfer of whoever holds most, until this much fits."""
        most = self._config.queue.max_bytes
        held = sum(h.manifest.bytes for crossing in self.crossings.values() for h in crossing.queue)
        while held + payload_bytes > most:
            waiting = [c for c in self.crossings.values() if c.queue]
            freed = 0
            for crossing in sorted(waiting, key=lambda c: -sum(h.manifest.bytes for h in c.queue)):
                if freed := crossing.give_up_oldest():
                    break
            if not freed:
                return
            held -= freed
