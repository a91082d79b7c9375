"""A bridge between two in-memory brokers, with a test that plays the edge below and the aggregator above."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.policy import ExportPolicy
from broker_bridge.bridge.service import Bridge, Surroundings
from broker_bridge.memory import MemoryBroker
from broker_bridge.session import Connector, Message, Session
from tests.broker_bridge.bridge.examples import FEDERATION, PARTICIPANT, PLAN, policy, topic
from tests.contracts.examples import TEMPLATE
from uns_topics.model import Value
from uns_topics.payloads import Writer, read
from uns_topics.presence import BridgeStatus, ParticipantState, ParticipantStatus, Want
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest, chunk_of, decode_chunk, encode_chunk

PLANT, UPLINK = "mqtt://plant", "mqtt://uplink"


class World:
    """Two brokers, one bridge, and everything that was said."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.plant, self.uplink = MemoryBroker(), MemoryBroker()
        self.now = time.time()
        """Wall clock of the bridge."""
        participants = settings.pop("participants", (PARTICIPANT,))
        self.policy: ExportPolicy = settings.pop("policy", policy())
        self.config = BridgeConfig.model_validate(
            {
                "bridge": "gate",
                "data_dir": folder / "data",
                "plant": {"url": PLANT},
                "uplink": {"url": UPLINK},
                "participants": [{"federation": FEDERATION, "participant": name} for name in participants],
                "policy": folder / "policy.yaml",
                **settings,
            }
        )
        self.edge = Writer(FEDERATION, PARTICIPANT, "0000000e")
        self.aggregator = Writer(FEDERATION, "aggregator", "000000a0")
        self.below: list[Message] = []
        self.above: list[Message] = []
        self.below_session: Session | None = None
        self.above_session: Session | None = None
        self.bridge: Bridge | None = None
        self._heard = asyncio.Event()

    def connector(self, url: str) -> Connector:
        return (self.plant if url == PLANT else self.uplink).connector()

    def _hear(self, where: list[Message]) -> Callable[[Message], None]:
        def hear(message: Message) -> None:
            where.append(message)
            self._heard.set()

        return hear

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sessions of the test on both brokers."""
        async with (
            self.plant.connector().connect("test", on_message=self._hear(self.below)) as below,
            self.uplink.connector().connect("test", on_message=self._hear(self.above)) as above,
        ):
            self.below_session, self.above_session = below, above
            await below.subscribe("#")
            await above.subscribe("#")
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bridge]:
        """A bridge, stopped cleanly at the end."""
        stop = asyncio.Event()
        self.config.data_dir.mkdir(exist_ok=True)
        world = Surroundings(
            connect=lambda config: self.connector(config.url),
            wall_clock=lambda: self.now,
            settle_s=0.05,
            look_s=0.02,
            rng=random.Random(1),
        )
        bridge = self.bridge = Bridge(self.config, self.policy, world)
        task = asyncio.create_task(bridge.run(stop))
        try:
            await self.until(lambda: bridge.is_plant_up or task.done())
            yield bridge
        finally:
            stop.set()
            try:
                await task
            finally:
                bridge.close()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something said, or a turn of the loop, brings the condition about."""
        while not condition():
            self._heard.clear()
            try:
                async with asyncio.timeout(0.02):
                    await self._heard.wait()
            except TimeoutError:
                pass

    # Saying -----------------------------------------------------------------------------------------------------------

    async def say_below(self, kind: Kind, body: Value | None, writer: Writer | None = None, **fields: Any) -> None:
        assert self.below_session is not None
        payload = (writer or self.edge).seal(body) if body is not None else b""
        await self.below_session.publish(str(topic(kind, **fields)), payload, retain=kind.retained)

    async def say_above(self, kind: Kind, body: Value | None) -> None:
        assert self.above_session is not None
        payload = self.aggregator.seal(body) if body is not None else b""
        await self.above_session.publish(str(topic(kind)), payload, retain=kind.retained)

    async def give_plan(self) -> None:
        """Plan and skeleton on the next broker, until the plant has both."""
        assert self.above_session is not None
        await self.put_above(TEMPLATE.skeleton, PLAN.template.skeleton, Kind.SKELETON_CHUNK)
        await self.say_above(Kind.PLAN, PLAN)
        await self.until(lambda: str(topic(Kind.PLAN)) in self.plant.retained)
        await self.until(lambda: str(FlTopic(FEDERATION, Kind.SKELETON_CHUNK, index=0)) in self.plant.retained)

    async def put_above(self, content: bytes, manifest: TransferManifest, kind: Kind) -> None:
        """Chunks of a transfer down, retained on the next broker."""
        assert self.above_session is not None
        for index in range(len(manifest.chunks)):
            place = str(FlTopic(FEDERATION, kind, version=manifest.version, index=index))
            await self.above_session.publish(place, encode_chunk(chunk_of(content, manifest, index)), retain=True)

    async def say_status(self, *wants: Want, state: ParticipantState = ParticipantState.ONLINE) -> None:
        await self.say_below(Kind.STATUS, ParticipantStatus(birth=1, state=state, wants=wants))

    async def send(self, content: bytes, manifest: TransferManifest, indices: tuple[int, ...] | None = None) -> None:
        """Manifest and chunks as an edge sends them."""
        assert self.below_session is not None
        await self.say_below(Kind.UPDATE_MANIFEST, manifest, transfer=manifest.id)
        for index in indices if indices is not None else range(len(manifest.chunks)):
            place = str(topic(Kind.UPDATE_CHUNK, transfer=manifest.id, index=index))
            await self.below_session.publish(place, encode_chunk(chunk_of(content, manifest, index)))

    # Hearing ----------------------------------------------------------------------------------------------------------

    def arrived(self, manifest: TransferManifest) -> bytes | None:
        """The content of a transfer as it came above, None until it is whole."""
        prefix = str(topic(Kind.UPDATE_MANIFEST, transfer=manifest.id)).removesuffix("manifest")
        parts = {}
        for message in self.above:
            if message.topic.startswith(prefix) and not message.topic.endswith("manifest"):
                chunk = decode_chunk(message.payload, manifest.chunk_bytes)
                if chunk.count == len(manifest.chunks):
                    parts[chunk.index] = chunk.body
        return b"".join(parts[i] for i in sorted(parts)) if len(parts) == len(manifest.chunks) else None

    def up(self) -> list[Message]:
        """Everything that went up."""
        return [m for m in self.above if "/up/" in m.topic]

    async def answer(self, manifest: TransferManifest, result: str = "accepted", **more: Any) -> None:
        await self.say_above_to(Receipt(id=manifest.id, result=result, **more))  # type: ignore[arg-type]

    async def say_above_to(self, body: Receipt) -> None:
        assert self.above_session is not None
        await self.above_session.publish(str(topic(Kind.RECEIPT)), self.aggregator.seal(body))

    def receipts(self) -> list[Receipt]:
        """What the participant heard."""
        place = topic(Kind.RECEIPT)
        bodies = [read(place, m.payload)[1] for m in self.below if m.topic == str(place)]
        return [body for body in bodies if isinstance(body, Receipt)]

    def presence(self) -> str | None:
        """What the bridge says of itself above, last."""
        place = topic(Kind.VIA, bridge="gate")
        said = [m for m in self.above if m.topic == str(place)]
        body = read(place, said[-1].payload)[1] if said else None
        return body.state if isinstance(body, BridgeStatus) else None
