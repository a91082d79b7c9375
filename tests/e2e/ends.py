"""Both ends of a bridge process on two real Mosquittos: an edge below and an aggregator above, played by a test.

Between the bridge and the enterprise broker lies a link that a test can cut, slow down and count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from broker_bridge.config import BrokerConfig
from broker_bridge.downloads import Downloads, Fetched, Subscribe, Unsubscribe
from broker_bridge.inbox import Inbox, Missing, Whole
from broker_bridge.outgoing import Done, Lowered, Outgoing, Send
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.contracts.examples import BODIES, TEMPLATE, VERSION
from tests.e2e.bridged import start_bridge
from tests.e2e.federation import FEDERATION, Federation
from tests.servers import Server, mosquitto
from tests.support.fault_proxy import FaultProxy, fault_proxy
from uns_topics.payloads import Writer, read
from uns_topics.plan import Plan
from uns_topics.presence import ParticipantState, ParticipantStatus, Route, Want
from uns_topics.rounds import Receipt, VersionManifest
from uns_topics.tensors import Role, Tensor, TensorTable
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import KIB, TransferManifest, chunk_of, decode_chunk, encode_chunk, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups

CHUNK = 32 * KIB


@dataclass(frozen=True)
class Case:
    """A plan with one tensor of a chosen size, an update of it and a model."""

    plan: Plan
    update: bytes = field(repr=False)
    model: bytes = field(repr=False)
    chunk_bytes: int = CHUNK

    @property
    def manifest(self) -> TransferManifest:
        return make_manifest(self.update, "update", self.chunk_bytes, base="a" * 64, round_number=1, attempt=1)


def case_of(elements: int, chunk_bytes: int = CHUNK, seed: int = 7) -> Case:
    """Args: elements: of float32, in update and model alike."""
    base = BODIES[Kind.PLAN]
    assert isinstance(base, Plan)
    table = TensorTable(tensors=(Tensor(name="w", shape=(elements,), role=Role.WEIGHT, offset=0, file_offset=0),))
    template = base.template.model_copy(update={"table": table})
    rng = np.random.default_rng(seed)
    groups, body = pack_groups(rng.normal(0, 0.01, elements).astype(np.float32), table, "f32")
    header = UpdateHeader(
        federation=FEDERATION, participant="berlin", round_number=1, attempt=1, base="a" * 64, generation=1,
        num_examples=100, num_steps=10, metrics={"loss": 0.5}, groups=groups,
    )  # fmt: skip
    return Case(
        base.model_copy(update={"template": template, "chunk_bytes": chunk_bytes}),
        encode_update(header, body),
        rng.normal(0, 0.1, elements).astype("<f4").tobytes(),
        chunk_bytes,
    )


def topic(kind: Kind, **fields: int | str) -> FlTopic:
    participant = "berlin" if "{participant}" in kind.path else None
    return FlTopic(FEDERATION, kind, participant, **fields)  # type: ignore[arg-type]


@dataclass
class Ends:
    """Both ends of the way, and what they have."""

    case: Case
    below: Session
    above: Session
    link: FaultProxy
    process: psutil.Process | None = None
    """The bridge."""
    edge: Writer = field(default_factory=lambda: Writer(FEDERATION, "berlin", "0000000e"))
    aggregator: Writer = field(default_factory=lambda: Writer(FEDERATION, "aggregator", "000000a0"))
    outgoing: Outgoing | None = None
    inbox: Inbox = field(default_factory=lambda: Inbox(10**8))
    downloads: Downloads = field(default_factory=lambda: Downloads(FEDERATION))
    whole_above: bytes | None = None
    whole_below: bytes | None = None
    accepted: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    last_status: Message = field(default_factory=lambda: Message("", b""))
    """As it came above, if the test subscribed to it."""

    def start(self, *steps: object) -> None:
        async def perform() -> None:
            for step in steps:
                await step  # type: ignore[misc]
            self.changed.set()

        task = asyncio.create_task(perform())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def next_status(self) -> Message:
        """Wait for another status above."""
        known = self.last_status
        while self.last_status is known:
            self.changed.clear()
            await self.changed.wait()
        return self.last_status

    async def until(self, condition: str, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not getattr(self, condition):
                self.changed.clear()
                await self.changed.wait()

    # The edge ---------------------------------------------------------------------------------------------------------

    def hear_below(self, message: Message) -> None:
        place = FlTopic.parse(message.topic)
        self.seen.add(message.topic)
        self.changed.set()
        if place.kind is Kind.MODEL_CHUNK and message.payload:
            self.do_downloads(self.downloads.on_chunk(decode_chunk(message.payload, 4 * self.case.chunk_bytes), 0.0))
            return
        if place.kind not in (Kind.RECEIPT, Kind.ROUTE) or not message.payload:
            return
        body = read(place, message.payload)[1]
        if self.outgoing is None:
            return
        if isinstance(body, Receipt):
            self.do_outgoing(self.outgoing.on_receipt(body, 0.0, 0.5))
        elif isinstance(body, Route) and body.chunk_bytes is not None:
            self.do_outgoing(self.outgoing.on_limit(body.chunk_bytes, 0.0, 0.5))

    def do_outgoing(self, effects: list[Send | Lowered | Done]) -> None:
        for effect in effects:
            if isinstance(effect, Done):
                self.accepted = effect.result == "accepted"
                self.changed.set()
            elif isinstance(effect, Send):
                self.start(self.send(effect))

    async def send(self, effect: Send) -> None:
        manifest = effect.manifest
        if effect.announce:
            place = str(topic(Kind.UPDATE_MANIFEST, transfer=manifest.id))
            await self.below.publish(place, self.edge.seal(manifest))
        for index in effect.chunks:
            place = str(topic(Kind.UPDATE_CHUNK, transfer=manifest.id, index=index))
            await self.below.publish(place, encode_chunk(chunk_of(self.case.update, manifest, index)))

    def do_downloads(self, effects: list[Subscribe | Unsubscribe | Fetched]) -> None:
        for effect in effects:
            if isinstance(effect, Subscribe):
                self.start(self.below.subscribe(*effect.topics))
            elif isinstance(effect, Fetched):
                self.whole_below = effect.content
                self.changed.set()

    async def say_status(self, *wants: Want) -> None:
        status = ParticipantStatus(birth=1, state=ParticipantState.ONLINE, wants=wants)
        await self.below.publish(str(topic(Kind.STATUS)), self.edge.seal(status), retain=True)

    # The aggregator ---------------------------------------------------------------------------------------------------

    def hear_above(self, message: Message) -> None:
        place = FlTopic.parse(message.topic)
        if place.kind is Kind.STATUS:
            self.last_status = message
            self.changed.set()
            return
        answers = []
        if place.kind is Kind.UPDATE_MANIFEST:
            body = read(place, message.payload)[1]
            assert isinstance(body, TransferManifest)
            if self.whole_above is not None:
                self.start(self.answer(Receipt(id=body.id, result="accepted")))
                return
            answers = self.inbox.on_manifest("berlin", body, 0.0)
        elif place.kind is Kind.UPDATE_CHUNK:
            answers = self.inbox.on_chunk("berlin", decode_chunk(message.payload, 4 * self.case.chunk_bytes), 0.0)
        for answer in answers:
            if isinstance(answer, Missing):
                self.start(self.answer(Receipt(id=answer.id, result="missing", chunks=answer.chunks)))
            elif isinstance(answer, Whole):
                self.whole_above = answer.content
                self.start(self.answer(Receipt(id=answer.manifest.id, result="accepted")))

    async def answer(self, receipt: Receipt) -> None:
        await self.above.publish(str(topic(Kind.RECEIPT)), self.aggregator.seal(receipt))

    async def say_above(self, kind: Kind, payload: bytes, **fields: int) -> None:
        await self.above.publish(str(topic(kind, **fields)), payload, retain=True)


@asynccontextmanager
async def ends(folder: Path, enterprise: Server, case: Case) -> AsyncIterator[Ends]:
    """A plant's broker, a bridge process, and a link to the enterprise broker, which has the plan."""
    async with AsyncExitStack() as stack:
        plant = stack.enter_context(mosquitto())
        link = await stack.enter_async_context(fault_proxy(enterprise.port))
        made: list[Ends] = []
        connect = stack.enter_async_context
        below = await connect(
            PahoConnector(BrokerConfig(url=plant.url)).connect("edge", on_message=lambda m: made[0].hear_below(m))
        )
        above = await connect(
            PahoConnector(BrokerConfig(url=enterprise.url)).connect("agg", on_message=lambda m: made[0].hear_above(m))
        )
        both = Ends(case, below, above, link)
        made.append(both)
        await above.subscribe(f"fl/v1/{FEDERATION}/up/berlin/update/#")
        await below.subscribe(*(str(topic(kind)) for kind in (Kind.RECEIPT, Kind.ROUTE, Kind.PLAN, Kind.MODEL_CURRENT)))
        skeleton = case.plan.template.skeleton
        await both.say_above(Kind.SKELETON_CHUNK, encode_chunk(chunk_of(TEMPLATE.skeleton, skeleton, 0)), index=0)
        await both.say_above(Kind.PLAN, both.aggregator.seal(case.plan))
        f = Federation(folder, enterprise)
        service = await start_bridge(f, "gate", plant.url, f"mqtt://127.0.0.1:{link.port}", ("berlin",))
        both.process = psutil.Process(service.process.pid)
        try:
            await both.say_status()
            async with asyncio.timeout(20):
                while str(topic(Kind.PLAN)) not in both.seen:
                    both.changed.clear()
                    await both.changed.wait()
            yield both
        except BaseException:
            print(service.tail())  # noqa: T201 - shown where the test fails
            raise
        finally:
            service.process.kill()
            await service.process.wait()


async def upload(both: Ends) -> None:
    """Send the case's update from below."""
    both.outgoing = Outgoing(both.case.update, both.case.manifest)
    both.do_outgoing(both.outgoing.start(0.0, 0.5))


async def offer_model(both: Ends) -> None:
    """Put the case's model up above, and want it below."""
    content = both.case.model
    manifest = make_manifest(content, "model", both.case.chunk_bytes, version=2)
    for index in range(len(manifest.chunks)):
        await both.say_above(Kind.MODEL_CHUNK, encode_chunk(chunk_of(content, manifest, index)), version=2, index=index)
    assert isinstance(VERSION, VersionManifest)
    body = VERSION.model_copy(update={"sha256": manifest.sha256, "full": manifest})
    await both.say_above(Kind.MODEL_CURRENT, both.aggregator.seal(body))
    both.do_downloads(both.downloads.want(manifest, 0.0))
    await both.say_status(Want.CURRENT)
