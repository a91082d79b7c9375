"""An edge node without a broker: predictions in, its messages decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.config import SparkplugConfig
from edge.outputs import Outputs, Prediction
from edge.sparkplug_node import EdgeNode, Moment, Publication
from uns_topics.presence import Variant
from uns_topics.sparkplug import MessageType, Metric, Payload, SparkplugTopic, decode_payload, rebirth_request

LINE, OTHER = "acme/Werk Köln/smt/line 1", "acme/lyon/smt/line2"
DEVICE = "acme:Werk Köln:smt:line 1"
NOW_MS = 1_700_000_000_000
COMMAND = "spBv1.0/Headgate/NCMD/berlin-1"
STATE = "spBv1.0/STATE/scada"


@dataclass(frozen=True)
class Said:
    """One message, decoded."""

    topic: SparkplugTopic
    payload: Payload
    qos: int

    @property
    def kind(self) -> MessageType:
        return self.topic.kind

    @property
    def metrics(self) -> dict[str, Metric]:
        return {metric.name or f"alias {metric.alias}": metric for metric in self.payload.metrics}

    @property
    def values(self) -> dict[str, Any]:
        return {name: metric.value for name, metric in self.metrics.items()}

    @property
    def qualities(self) -> dict[str, Any]:
        return {name: metric.properties.get("Quality") for name, metric in self.metrics.items()}


def read(publications: Sequence[Publication]) -> list[Said]:
    found = []
    for one in publications:
        topic = SparkplugTopic.parse(one.topic)
        assert topic is not None
        assert (topic.group, topic.node) == ("Headgate", "berlin-1")
        found.append(Said(topic, decode_payload(one.payload), one.qos))
    return found


def prediction(time_s: float = 1_700_000_000.5, value: float = 0.25, instance: str = LINE, **rest: Any) -> Prediction:
    return Prediction(instance, "B-17", time_s, value, 3, Variant.GLOBAL, **rest)


class World:
    """A node and its clock. Attributes: clock_s: monotonic; the wall clock runs with it."""

    def __init__(self, *, alarms: bool = True, unit: str = "cycles", connect: bool = True, **config: Any) -> None:
        outputs = Outputs("solder-defect", "score", alarms=alarms, unit=unit)
        settings = SparkplugConfig(group="Headgate", node="berlin-1", **config)
        self.node = EdgeNode(settings, outputs, {"Federation": "solder-defect", "Participant": "berlin"})
        self.clock_s = 0.0
        self.born = self.connect() if connect else []

    @property
    def now(self) -> Moment:
        return Moment(NOW_MS + round(self.clock_s * 1000), self.clock_s)

    def connect(self, bdseq: int = 7) -> list[Said]:
        self.will = read([self.node.connecting(bdseq, self.now)])[0]
        return read(self.node.connected(self.now))

    def predicted(self, *predictions: Prediction) -> list[Said]:
        return read(self.node.predicted(predictions, self.now))

    def stale(self, instance: str = LINE) -> list[Said]:
        return read(self.node.stale(instance, self.now))

    def reads(self, outputs: Outputs) -> list[Said]:
        return read(self.node.reads(outputs, self.now))

    def serves(self, version: int, variant: Variant = Variant.GLOBAL) -> list[Said]:
        return read(self.node.serves(version, variant, self.now))

    def hear(self, topic: str, payload: bytes, *, retain: bool = False) -> list[Said]:
        return read(self.node.hear(topic, payload, retain=retain, now=self.now))

    def ask(self) -> list[Said]:
        return self.hear(COMMAND, rebirth_request(self.now.wall_ms))

    def tick(self, after_s: float = 0.0) -> list[Said]:
        self.clock_s += after_s
        return read(self.node.tick(self.now))


def kinds(said: Sequence[Said]) -> list[str]:
    return [one.kind.value for one in said]
