"""The aggregator as a service: one connection, one loop, one task group around the pure core."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from sqlalchemy.exc import OperationalError

from aggregator import announce
from aggregator.config import AggregatorConfig
from aggregator.core import Core, persist
from aggregator.events import EpochRaised, LinkChanged, Started
from aggregator.fencing import HEARTBEATS, Foreign, Listen, first_look, must_yield
from aggregator.figures import AggregatorFigures, aggregator_sheet
from aggregator.founding import Foundation, found
from aggregator.intake import Intake
from aggregator.performer import Performer, Workshop
from aggregator.plan import PlanError, build_plan, limits
from aggregator.registry import Golden
from aggregator.showcase import Showcase
from aggregator.store import Store, StoreError, url_of
from aggregator.vectors import DirectoryInUse, DirectoryLock, VectorError
from broker_bridge.aiomqtt_session import AiomqttConnector
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
    Will,
)
from broker_bridge.settings import ConfigError
from uns_topics.payloads import Writer
from uns_topics.presence import Want
from uns_topics.rounds import Receipt
from uns_topics.template import TemplateError
from uns_topics.topics import FlTopic, Kind, aggregator_filters
from uns_topics.transfers import MIN_CHUNK_BYTES, WRAPPING_BYTES

_LOG = logging.getLogger("headgate.aggregator")
SENDER = "aggregator"
SETTLE_S = 1.0
"""How long to wait for a retained status of another aggregator after subscribing; MQTT has no `there is none`."""
KEPT_BOOTS = 1000
_CHUNK_LIMIT = "chunk-limit"


class ExitCode(IntEnum):
    """Why the service ended."""

    OK = 0
    FAILURE = 1
    CONFIGURATION = 2
    BROKER_REFUSED = 4
    FENCED = 5


_UNUSABLE = (
    PlanError,
    TemplateError,
    StoreError,
    DirectoryInUse,
    VectorError,
    BrokerMisconfigured,
    ConfigError,
    OSError,
)
"""What ends the service with `ExitCode.CONFIGURATION`."""


class _Stop(Exception):
    """Ends the service with this exit code."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code.name)
        self.code = code


def wall_clock() -> Callable[[], float]:
    """Seconds that mean the same after a restart and never jump: wall time at start, monotonic from there."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def never_back(clock: Callable[[], float], at: float) -> Callable[[], float]:
    """A clock that goes on where the store stopped, should the wall clock have been set back since.

    Else every deadline would wait until the old time comes round again. Args: at: the time of the last event, seconds.
    """
    ahead = max(0.0, at - clock())
    return lambda: clock() + ahead


@dataclass(frozen=True)
class Surroundings:
    """What the service meets the world through; tests bring their own.

    Attributes:
        connector: opens sessions; None: aiomqtt with the configured broker.
        golden: runs a model file; None: onnxruntime.
        clock: seconds that never go back and mean the same after a restart.
        sleep: waits between attempts to connect.
        settle_s: how long to wait for the retained status of another aggregator.
        open_store: opens the store at a URL.
        rng: draws the boot id and the jitter between attempts to connect.
    """

    connector: Connector | None = None
    golden: Golden | None = None
    clock: Callable[[], float] = field(default_factory=wall_clock)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    settle_s: float = SETTLE_S
    open_store: Callable[[str], Store] = Store
    rng: random.Random = field(default_factory=random.SystemRandom)


async def run_aggregator(
    config: AggregatorConfig,
    *,
    stop: asyncio.Event,
    takeover: bool = False,
    from_model: Path | None = None,
    cold_start: bool = False,
    around: Surroundings | None = None,
) -> int:
    """Run one federation's aggregator until `stop` is set or it has to end.

    Args:
        takeover: start although another aggregator seems to run; it ends when it sees our higher epoch.
        from_model: a model file to go on from: its standardisation is kept.
        cold_start: a new generation begins with the model file's own parameters.

    Returns: an `ExitCode`: 0 stopped, 1 a store that can't be written at the start,
        2 unusable configuration, model or store, 4 refused by the broker, 5 fenced off.
    """
    world = around or Surroundings()
    try:
        with DirectoryLock(config.data_dir):
            store = world.open_store(url_of(config))
            try:
                limit = store.get(_CHUNK_LIMIT)
                golden = world.golden or _onnxruntime()
                foundation = await asyncio.to_thread(
                    found, config, from_model, store, golden, world.clock(), limit, cold_start=cold_start
                )
                return await _Service(config, foundation, store, world, takeover).run(stop)
            finally:
                store.close()
    except _UNUSABLE as error:
        _LOG.error("%s", error)
        return ExitCode.CONFIGURATION
    except OperationalError as error:  # before the loop runs, where it would be tried again
        _LOG.error("the store can't be written: %s", str(error.orig or error).splitlines()[0])
        return ExitCode.FAILURE
    except BrokerRefused as error:
        _LOG.error("%s", error)
        return ExitCode.BROKER_REFUSED


def _onnxruntime() -> Golden:
    from uns_topics.golden import golden_outputs  # onnxruntime takes its time to import

    return golden_outputs


class _Service:
    def __init__(
        self,
        config: AggregatorConfig,
        foundation: Foundation,
        store: Store,
        world: Surroundings,
        takeover: bool,
    ) -> None:
        self._config = config
        self._store = store
        self._takeover = takeover
        self._settle_s = world.settle_s
        self._plan = foundation.plan
        self._template = foundation.registry.template
        self._boot = f"{world.rng.getrandbits(32):08x}"
        self._boots: list[str] = [*(store.get("boots") or []), self._boot][-KEPT_BOOTS:]
        self._writer = Writer(config.federation, SENDER, self._boot)
        self._status_topic = str(FlTopic(config.federation, Kind.AGGREGATOR_STATUS))
        self._ended: asyncio.Future[ExitCode] = asyncio.get_running_loop().create_future()
        self._fenced = False
        self._foreign: Foreign | None = None
        self._foreign_seen = asyncio.Event()
        self._live: set[str] = set()
        self._live_seen = asyncio.Event()
        self._too_large = asyncio.Event()
        self._why_too_large = ""
        self._birth = 0
        self._group = asyncio.TaskGroup()
        self._link = Link(
            world.connector or AiomqttConnector(config.broker),
            f"{config.federation}-aggregator",
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=self._will,
            rng=world.rng,
            clock=world.clock,
            sleep=world.sleep,
        )
        clock = never_back(world.clock, foundation.state.at)
        self._core = Core(store, foundation.state, clock, lambda effect: self._performer.perform(effect))
        self._publisher = Publisher(self._link.publish, self._on_too_large)
        self._showcase = Showcase(
            config.federation, self._plan, self._core, store, foundation.registry, self._publisher, self._writer
        )
        self._intake = Intake(
            federation=config.federation,
            contract=self._plan.contract,
            limits=limits(self._template, config),
            core=self._core,
            store=store,
            answer=self._answer,
            on_aggregator=self._on_aggregator,
            on_wants=self._on_wants,
            max_chunk_bytes=max(self._plan.chunk_bytes, config.chunk_bytes),
        )
        workshop = Workshop(
            store,
            foundation.registry,
            foundation.strategy,
            config.encodings,
            config.data_dir,
            config.downlink,
            self._plan.control,
            config.keep_rounds,
        )
        self._performer = Performer(self._core, workshop, self._showcase, self._settled, self._group)
        self._started = Started(rules=foundation.rules)
        self._health = Health(config.health, service_registry(self._sheet))
        self._health.condition("broker", self._why_no_broker)
        self._health.condition("store", lambda: self._core.stuck and f"the store can't be written: {self._core.stuck}")

    async def run(self, stop: asyncio.Event) -> ExitCode:
        """Until stopped, fenced off or refused. Raises: ConfigError: `health.listen` can't be listened on."""
        async with self._health.serving():
            return await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> ExitCode:
        await asyncio.to_thread(self._store.put, "boots", self._boots)
        left = await asyncio.to_thread(self._store.pending)
        self._core.submit(self._started)
        code = ExitCode.OK
        problem: Exception | None = None
        try:
            async with self._group as group:
                self._health.watch(
                    group.create_task(self._core.run(), name="aggregator core"),
                    group.create_task(self._publisher.run(), name="aggregator publisher"),
                    group.create_task(self._intake.run(), name="aggregator intake"),
                    group.create_task(self._performer.run(), name="aggregator showcase"),
                    group.create_task(self._heartbeat(), name="aggregator heartbeat"),
                    group.create_task(self._chunk_limits(), name="aggregator chunk limits"),
                )
                group.create_task(self._until_stopped(stop), name="aggregator stop")
                show_all = self._showcase.show_all
                await persist(show_all, lambda why: _LOG.warning("what is to be shown waits for the store: %s", why))
                for effect in left:
                    self._performer.perform(effect)
                self._health.watch(group.create_task(self._hold_link(), name="aggregator link"))
        except* _Stop as stopped:
            code = first_of(stopped).code
        except* (BrokerRefused, BrokerMisconfigured, PlanError) as errors:
            problem = first_of(errors)
        if problem is not None:
            raise problem
        return code

    # Connection -------------------------------------------------------------------------------------------------------

    async def _hold_link(self) -> None:
        await self._link.run()

    async def _on_up(self, session: Session, birth: int) -> None:
        await session.subscribe(*aggregator_filters(self._config.federation))
        if not self._fenced:
            await self._fence()
        self._birth = birth
        self._showcase.set_birth(birth)
        await self._fit(session.max_packet_bytes)
        status = announce.status(self._core.state, birth)
        await session.publish(self._status_topic, self._writer.seal(status), qos=1, retain=True)
        self._publisher.on_up()
        await self._core.apply(LinkChanged(up=True))
        _LOG.info("connected to the broker; epoch %d", self._core.state.epoch)

    def _on_down(self, reason: str) -> None:
        self._publisher.on_down()
        self._core.submit(LinkChanged(up=False))
        _LOG.debug("connection lost: %s", reason)

    def _will(self, birth: int) -> Will:
        body = announce.death(self._core.state, birth)
        return Will(self._status_topic, self._writer.seal(body), 1, True)

    def _on_message(self, message: Message) -> None:
        self._intake.on_message(message)

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        self._group.create_task(self._on_stop(stop), name="aggregator stop wanted")
        code = await self._ended
        self._health.stopping()
        if code is ExitCode.OK and self._fenced:
            death = announce.death(self._core.state, max(1, self._birth))
            await self._link.close((self._status_topic, self._writer.seal(death), 1, True))
        else:  # what stands on `down/status` is somebody else's
            await self._link.close()
        raise _Stop(code)

    async def _on_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._end(ExitCode.OK)

    def _end(self, code: ExitCode) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    # Other aggregators ------------------------------------------------------------------------------------------------

    def _on_aggregator(self, seen: Foreign, live: bool) -> None:
        if not self._fenced:
            if seen.boot != self._boot:
                self._foreign = seen
                self._foreign_seen.set()
                if live and seen.status.state != "offline":
                    self._live.add(seen.boot)
                    self._live_seen.set()
            return
        if seen.boot == self._boot:
            if seen.status.state == "offline" and seen.status.birth < self._birth:
                self._showcase.refresh_status()  # a late will of an older connection of ours
            return
        if live and must_yield(seen, self._boot, self._core.state.epoch):
            _LOG.error("another aggregator runs this federation (epoch %d); stopping", seen.status.epoch)
            self._end(ExitCode.FENCED)
        elif live:
            self._showcase.refresh_status()

    async def _fence(self) -> None:
        """Before the first birth: does somebody else run this federation? Ends the service if so."""
        try:
            async with asyncio.timeout(self._settle_s):
                await self._foreign_seen.wait()
        except TimeoutError:
            pass
        state = self._core.state
        verdict = first_look(self._foreign, self._boots, state.epoch, self._takeover)
        if isinstance(verdict, Listen):
            listen_s = HEARTBEATS * self._plan.heartbeat_s
            _LOG.warning("another aggregator stands on down/status; listening %g s for a sign of life", listen_s)
            if await self._is_alive(verdict.boot, listen_s):
                _LOG.error("another aggregator runs this federation; --takeover replaces it")
                self._end(ExitCode.FENCED)
                await asyncio.Event().wait()  # until the link is closed around us
        if verdict.epoch > state.epoch:
            await self._core.apply(EpochRaised(epoch=verdict.epoch))
        self._fenced = True

    async def _is_alive(self, boot: str, listen_s: float) -> bool:
        try:
            async with asyncio.timeout(listen_s):
                while boot not in self._live:
                    self._live_seen.clear()
                    await self._live_seen.wait()
        except TimeoutError:
            return False
        return True

    # Chunk sizes ------------------------------------------------------------------------------------------------------

    async def _fit(self, max_packet_bytes: int | None) -> None:
        """An announced limit (MQTT 5) below our chunks lowers them before anything is sent."""
        if max_packet_bytes is not None and max_packet_bytes - WRAPPING_BYTES < self._plan.chunk_bytes:
            await self._lower(max_packet_bytes - WRAPPING_BYTES, f"the broker takes {max_packet_bytes} bytes a message")

    def _on_too_large(self, why: str) -> None:
        self._why_too_large = why
        self._too_large.set()

    async def _chunk_limits(self) -> None:
        while True:
            await self._too_large.wait()
            self._too_large.clear()
            await self._lower(self._plan.chunk_bytes // 2, self._why_too_large)
            self._publisher.resume_chunks()

    async def _lower(self, size: int, why: str) -> None:
        if size < MIN_CHUNK_BYTES:
            raise PlanError(
                f"{why}: its limit is below {MIN_CHUNK_BYTES + WRAPPING_BYTES} bytes a message, too little for models; "
                "raise it (Mosquitto: message_size_limit, max_packet_size)"
            )
        plan = await asyncio.to_thread(
            build_plan, self._template, self._config, self._plan.generation, size, contract=self._plan.contract
        )
        _LOG.warning("%s: chunks go from %d to %d bytes", why, self._plan.chunk_bytes, plan.chunk_bytes)
        self._plan = plan

        async def keep() -> None:
            await asyncio.to_thread(self._store.put, _CHUNK_LIMIT, plan.chunk_bytes)
            await self._showcase.set_plan(plan)

        await persist(keep, lambda why: _LOG.warning("the new chunk size waits for the store: %s", why))

    # Health -----------------------------------------------------------------------------------------------------------

    def _why_no_broker(self) -> str | None:
        if self._link.is_up:
            return None
        if self._link.session is not None and not self._fenced:
            return "connected, and finding out whether another aggregator runs this federation"
        return "there is no session with the broker"

    def _sheet(self) -> Sheet:
        return aggregator_sheet(
            AggregatorFigures(
                state=self._core.state,
                now=self._core.now(),
                is_up=self._link.is_up,
                tally=self._core.tally,
                ignored=self._intake.counters,
                chunk_bytes=self._intake.chunk_bytes,
                open_transfers=self._intake.inbox.open_transfers,
                stray_chunks=self._intake.inbox.strays,
            )
        )

    # Small things -----------------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            self._intake.expire()
            if self._fenced:
                self._showcase.refresh_status()
                self._showcase.refresh_open_round()

    def _on_wants(self, wants: tuple[Want, ...]) -> None:
        self._showcase.repeat(wants)

    def _settled(self, participant: str, receipt: Receipt) -> None:
        """A receipt that is durable."""
        self._intake.remember(participant, receipt)
        self._answer(participant, receipt)

    def _answer(self, participant: str, receipt: Receipt) -> None:
        self._group.create_task(self._send_receipt(participant, receipt), name=f"aggregator receipt {participant}")

    async def _send_receipt(self, participant: str, receipt: Receipt) -> None:
        topic = str(FlTopic(self._config.federation, Kind.RECEIPT, participant=participant))
        try:
            await self._link.publish(topic, self._writer.seal(receipt))
        except SessionLost:
            pass  # the participant repeats its manifest, and is answered from the store
        except PublishRefused as error:
            _LOG.error("the broker refused a receipt for %s: %s", participant, error)
