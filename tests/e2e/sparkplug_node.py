"""A small Sparkplug B edge node for tests: births with aliases, data by alias, rebirths on command, a death as will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session, SessionLost, Will
from tests.servers import Server
from uns_topics.sparkplug import (
    REBIRTH,
    DataType,
    MessageType,
    Metric,
    Payload,
    SparkplugTopic,
    Value,
    decode_payload,
    encode_payload,
)

VOLUME = {"feature": "volume", "field": "Board/Paste volume", "unit": "%"}
HEIGHT = {"feature": "height", "field": "Board/Paste height", "unit": "um"}
TYPES = {str: DataType.STRING, float: DataType.FLOAT, int: DataType.INT32, bool: DataType.BOOLEAN}


def spi_source(*features: dict[str, str]) -> dict[str, Any]:
    """A signal map's source: the inspection of a line's boards, with the verdict."""
    return {
        "topic": "spBv1.0/{plant}/+/line1/spi",
        "form": "sparkplug",
        "key": "Board/Serial",
        "features": list(features),
        "label": {"field": "Board/Verdict", "source": "aoi", "codes": {"OK": "good", "BRIDGE": "defect"}},
    }


class Node:
    """One node with one device. Attributes: births: how often it was born; metrics: the device's, by name."""

    def __init__(self, session: Session, group: str, name: str, device: str, metrics: Mapping[str, Value]) -> None:
        self._session = session
        self._where = (group, name, device)
        self._metrics = dict(metrics)
        self._seq = 0
        self.born_ms = 0
        self.births = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def on_command(self, message: Message) -> None:
        names = {metric.name: metric.value for metric in decode_payload(message.payload).metrics}
        assert names == {REBIRTH: True}
        task = asyncio.create_task(self.birth(self.born_ms))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def birth(self, at_ms: int) -> None:
        """Say what it is; a rebirth keeps its bdSeq."""
        self.born_ms = at_ms
        self.births += 1
        control = Metric(REBIRTH, datatype=DataType.BOOLEAN, value=False)
        await self._say(MessageType.NBIRTH, at_ms, bdseq(), control)
        await self._say(
            MessageType.DBIRTH,
            at_ms,
            *(Metric(n, i, datatype=TYPES[type(v)], value=v) for i, (n, v) in enumerate(self._metrics.items())),
        )

    async def data(self, at_ms: int, **values: Value) -> None:
        """Values of its device by alias, without names and datatypes; `__` in a name is a slash."""
        names = list(self._metrics)
        metrics = (Metric(alias=names.index(n.replace("__", "/")), value=v) for n, v in values.items())
        await self._say(MessageType.DDATA, at_ms, *metrics)

    def lose_one(self) -> None:
        """A message that never reached anybody."""
        self._seq = (self._seq + 1) % 256

    async def _say(self, kind: MessageType, at_ms: int, *metrics: Metric) -> None:
        self._seq = 0 if kind is MessageType.NBIRTH else (self._seq + 1) % 256
        group, name, device = self._where
        topic = SparkplugTopic(group, kind, name, device if kind.value[0] == "D" else None)
        await self._session.publish(str(topic), encode_payload(Payload(at_ms, metrics, self._seq)), qos=0)


def bdseq() -> Metric:
    return Metric("bdSeq", datatype=DataType.UINT64, value=4)


@asynccontextmanager
async def sparkplug_node(
    server: Server, group: str, name: str, device: str, metrics: Mapping[str, Value]
) -> AsyncIterator[Node]:
    """A node whose connection breaks at the end, so that the broker publishes its NDEATH."""
    death = Will(
        str(SparkplugTopic(group, MessageType.NDEATH, name)), encode_payload(Payload(None, (bdseq(),))), 1, False
    )
    made: list[Node] = []
    connector = PahoConnector(BrokerConfig(url=server.url))
    with suppress(SessionLost):
        async with connector.connect(f"node-{name}", on_message=lambda m: made[0].on_command(m), will=death) as session:
            made.append(Node(session, group, name, device, metrics))
            await session.subscribe(str(SparkplugTopic(group, MessageType.NCMD, name)))
            yield made[0]
            raise SessionLost("the node lost its power")
