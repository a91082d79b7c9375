"""This edge as a Sparkplug B edge node: births, data and deaths of its inference (Sparkplug 3.0.0, chapters 4-6). Pure.

Each instance is a device, its metrics are the leaves of its inference. State goes in whenever it changes, messages come
out while the node is born, and a birth says all that is known by then: whatever was lost before is made good by it.

One `seq` counts over all messages of a session, so what comes out has to be sent in order and without a gap. Data is
said in metrics that changed; the model's own output goes with every inference, because its time is news.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.config import SparkplugConfig
from edge.leaves import LeafSpec
from edge.outputs import (
    QUALITY_BAD,
    QUALITY_REPLAYED,
    QUALITY_STALE,
    STALE_AFTER_S,
    LeafValue,
    Outputs,
    Prediction,
    newest_of_each,
)
from edge.sparkplug_primary import PrimaryHost
from edge.sparkplug_tags import BAD, DATATYPES, GOOD, STALE, Tag, sparkplug_quality
from uns_topics.presence import Variant
from uns_topics.sparkplug import (
    BDSEQ,
    REBIRTH,
    DataType,
    MessageType,
    Metric,
    Payload,
    SparkplugError,
    SparkplugTopic,
    Value,
    decode_payload,
    encode_payload,
)
from uns_topics.sparkplug_ids import device_id

SEQUENCE = 256
"""`seq` and `bdSeq` count from 0 to 255."""
REBIRTH_EVERY_S = 1.0
"""Births follow each other no faster, whoever asks: many hosts that missed the same message ask at once."""
ALARM, QUALITY_LEAF = "alarm", "quality"


@dataclass(frozen=True, slots=True)
class Moment:
    """Now. Attributes: wall_ms: since the epoch, what messages say; clock_s: monotonic, what waits are counted by."""

    wall_ms: int
    clock_s: float


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish, never retained."""

    topic: str
    payload: bytes
    qos: int = 0


@dataclass(slots=True)
class _Device:
    """One instance.

    Attributes: newest_s: event time of what its metrics say. heard_s: when it last said something.
    """

    id: str
    tags: dict[str, Tag]
    newest_s: float = -math.inf
    heard_s: float = 0.0
    is_dead: bool = False


@dataclass(slots=True)
class _Session:
    """One MQTT session. Attributes: born_s: of its last births, None before the first; due_s: of births asked for."""

    bdseq: int
    is_up: bool = False
    seq: int = 0
    born_s: float | None = None
    due_s: float | None = None


@dataclass(slots=True)
class EdgeNode:
    """One edge node with its devices.

    Args:
        config: its names and manners.
        outputs: which leaves there are, and what they say.
        properties: what the node's birth says of itself, by name below `Properties/`.

    Attributes: refusals: why instances are no devices, a sentence each; for the log.
    """

    config: SparkplugConfig
    outputs: Outputs
    properties: Mapping[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    _devices: dict[str, _Device] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    _session: _Session = field(default_factory=lambda: _Session(0))
    _aliases: int = 0
    _node_tags: dict[str, Tag] = field(init=False)
    host: PrimaryHost | None = field(init=False)

    def __post_init__(self) -> None:
        self.host = PrimaryHost(self.config.primary_host) if self.config.primary_host is not None else None
        types = {f"Properties/{name}": DataType.STRING for name in self.properties}
        types |= {"Model/Version": DataType.INT32, "Model/Variant": DataType.STRING}
        self._node_tags = {name: Tag(name, datatype, self._alias()) for name, datatype in types.items()}
        for name, text in self.properties.items():
            self._node_tags[f"Properties/{name}"].value = text

    # The session ------------------------------------------------------------------------------------------------------

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to with QoS 1 before anything is said."""
        command = self._topic(MessageType.NCMD)
        return (command,) if self.host is None else (command, self.host.topic)

    @property
    def is_born(self) -> bool:
        """Whether its births are said in this session."""
        return self._session.born_s is not None

    def connecting(self, bdseq: int, now: Moment) -> Publication:
        """A session is about to be opened with this number. Returns: its will, QoS 1."""
        self._session = _Session(bdseq)
        if self.host is not None:
            self.host.forget()
        return self.death(now)

    def connected(self, now: Moment) -> list[Publication]:
        """The session is there and subscribed. Returns: the births, unless the primary host is awaited."""
        self._session.is_up = True
        return self._births(now) if self.host is None or self.host.is_online else []

    def disconnected(self) -> None:
        """The session has ended; the broker tells by the will, or the death was said."""
        self._session = _Session(self._session.bdseq)

    def death(self, now: Moment) -> Publication:
        """NDEATH of this session."""
        return death_of(self.config.group, self.config.node, self._session.bdseq, now.wall_ms)

    def hear(self, topic: str, payload: bytes, *, retain: bool, now: Moment) -> list[Publication]:
        """A command or a host's STATE; nothing that is said raises. What can't be understood is left alone."""
        if self.host is not None and topic == self.host.topic:
            self.host.hear(payload)
            awaited = self._session.is_up and not self.is_born
            return self._births(now) if awaited and self.host.is_online else []
        if retain or topic != self._topic(MessageType.NCMD) or not self.is_born:
            return []  # a command is for the session that it is given in; and births that are to come answer it too
        try:
            metrics = decode_payload(payload).metrics
        except SparkplugError:
            return []
        if not any(metric.name == REBIRTH and metric.value is True for metric in metrics):
            return []
        return self._asked(now)

    @property
    def must_leave(self) -> bool:
        """Whether the primary host went offline: the node dies, disconnects and begins anew."""
        return self.host is not None and self.is_born and not self.host.is_online

    def rebirth(self, now: Moment) -> list[Publication]:
        """All births once more, where the node is born: what was to be sent before them need not be."""
        return self._births(now) if self.is_born else []

    def reads(self, outputs: Outputs, now: Moment) -> list[Publication]:
        """The model that runs is of another contract: what it says under another name or unit is another metric."""
        before, self.outputs = self.outputs, outputs
        if (before.specs, before.unit) == (outputs.specs, outputs.unit):
            return []
        for device in self._devices.values():
            known, device.tags = device.tags, {}
            for spec in outputs.specs:
                tag = known.get(spec.name)
                if tag is None or tag.unit != self._unit_of(spec):
                    tag = self._tag(spec)
                    tag.take(None, BAD, now.wall_ms)
                device.tags[spec.name] = tag
        return self.rebirth(now)

    # What is said -----------------------------------------------------------------------------------------------------

    def serves(self, version: int, variant: Variant, now: Moment) -> list[Publication]:
        """Another model runs on the tags."""
        values = {"Model/Version": version, "Model/Variant": variant.value}
        news = [tag for name, tag in self._node_tags.items() if name in values and tag.value != values[name]]
        for tag in news:
            tag.take(values[tag.name], None, now.wall_ms)
        return [self._say(MessageType.NDATA, now, [tag.data() for tag in news])] if news and self.is_born else []

    def predicted(self, predictions: Sequence[Prediction], now: Moment) -> list[Publication]:
        """The newest inference of each instance as data, the others as history where that is wanted."""
        newest, said = newest_of_each(predictions), []
        for prediction in predictions:
            device = self._device(prediction.instance, now)
            if device is None:
                continue
            is_first = device.newest_s == -math.inf
            is_live = prediction is newest[prediction.instance] and prediction.time_s >= device.newest_s
            if self.config.history and prediction.quality == QUALITY_REPLAYED and not is_first:
                is_live = False
            device.heard_s = now.clock_s
            if is_live:
                said += self._live(device, prediction, now)
            elif self.config.history and not is_first:
                said += self._historical(device, prediction, now)
        return said

    def stale(self, instance: str, now: Moment) -> list[Publication]:
        """The inputs of an instance have stopped; its last values stand, marked."""
        device = self._devices.get(instance)
        if device is None or device.is_dead or device.newest_s == -math.inf:
            return []
        device.newest_s += STALE_AFTER_S
        stamp, news = _ms(device.newest_s), []
        for name, tag in device.tags.items():
            if name == QUALITY_LEAF:
                tag.take(QUALITY_STALE, GOOD, stamp)
            elif name in (self.outputs.output, ALARM):
                tag.take(tag.value, STALE, stamp)
            else:
                continue
            news.append(tag.data())
        return [self._say(MessageType.DDATA, now, news, device)] if self.is_born else []

    # Time -------------------------------------------------------------------------------------------------------------

    @property
    def due_s(self) -> float | None:
        """When `tick` has something to do, by the monotonic clock."""
        deadlines = [d.heard_s + self.config.device_timeout_s for d in self._devices.values() if not d.is_dead]
        if self._session.due_s is not None:
            deadlines.append(self._session.due_s)
        return min(deadlines, default=None)

    def tick(self, now: Moment) -> list[Publication]:
        """Births that were asked for too soon, and DDEATHs of instances that have said nothing for too long."""
        said = []
        for device in self._devices.values():
            if not device.is_dead and now.clock_s >= device.heard_s + self.config.device_timeout_s:
                device.is_dead = True
                if self.is_born:
                    said.append(self._say(MessageType.DDEATH, now, [], device))
        due_s = self._session.due_s
        return self._births(now) if due_s is not None and now.clock_s >= due_s else said

    # Inside -----------------------------------------------------------------------------------------------------------

    def _asked(self, now: Moment) -> list[Publication]:
        born_s = self._session.born_s
        if born_s is not None and now.clock_s < born_s + REBIRTH_EVERY_S:
            self._session.due_s = born_s + REBIRTH_EVERY_S
            return []
        return self._births(now)

    def _births(self, now: Moment) -> list[Publication]:
        """NBIRTH with `seq` 0, then every device (tck-id-payloads-dbirth-order)."""
        session = self._session
        session.born_s, session.due_s, session.seq = now.clock_s, None, 0
        for tag in self._node_tags.values():
            tag.time_ms = tag.time_ms or now.wall_ms
        control = Metric(REBIRTH, timestamp_ms=now.wall_ms, datatype=DataType.BOOLEAN, value=False)
        bdseq = _bdseq_metric(session.bdseq, now.wall_ms, 0 if self.config.strict_alias else None)
        node = [*(tag.birth() for tag in self._node_tags.values()), control, bdseq]
        said = [self._say(MessageType.NBIRTH, now, sorted(node, key=_time_of))]
        return said + [self._device_birth(device, now) for device in self._devices.values() if not device.is_dead]

    def _device_birth(self, device: _Device, now: Moment) -> Publication:
        metrics = sorted((tag.birth() for tag in device.tags.values()), key=_time_of)
        return self._say(MessageType.DBIRTH, now, metrics, device)

    def _live(self, device: _Device, prediction: Prediction, now: Moment) -> list[Publication]:
        stamp, values = _ms(prediction.time_s), self.outputs.values(prediction)
        is_new = device.is_dead or device.newest_s == -math.inf
        device.newest_s, device.is_dead = prediction.time_s, False
        news = []
        for name, (value, quality) in self._readings(values).items():
            tag = device.tags[name]
            if tag.take(value, quality, stamp) or name == self.outputs.output:
                news.append(tag)
        for tag in device.tags.values():
            tag.time_ms = tag.time_ms or stamp  # null since then
        if not self.is_born:
            return []
        if is_new:
            return [self._device_birth(device, now)]
        return [self._say(MessageType.DDATA, now, [tag.data() for tag in news], device)]

    def _historical(self, device: _Device, prediction: Prediction, now: Moment) -> list[Publication]:
        """Said with its own time and as history; what the metrics stand at doesn't change."""
        if not self.is_born or device.is_dead:
            return []
        stamp = _ms(prediction.time_s)
        metrics = [
            device.tags[name].said(value, quality, stamp, historical=True)
            for name, (value, quality) in self._readings(self.outputs.values(prediction)).items()
        ]
        return [self._say(MessageType.DDATA, now, metrics, device)]

    def _readings(self, values: Mapping[str, LeafValue]) -> dict[str, tuple[Value, int]]:
        """Value and quality by metric. An output that the model gave no number for is null: there is no last one."""
        code, output = int(values[QUALITY_LEAF]), self.outputs.output
        readings: dict[str, tuple[Value, int]] = {name: (value, GOOD) for name, value in values.items()}
        readings[output] = (values.get(output), sparkplug_quality(code if output in values else QUALITY_BAD))
        return readings

    def _device(self, instance: str, now: Moment) -> _Device | None:
        known = self._devices.get(instance)
        if known is not None or instance in self.refusals:
            return known
        made = device_id(instance)
        other = self._ids.setdefault(made.casefold(), instance)
        if other != instance:  # tck-id-case-sensitivity-sparkplug-ids: readers may not tell them apart
            self.refusals[instance] = f"{instance} is no Sparkplug device: its id differs from {other}'s in case alone"
            return None
        tags = {spec.name: self._tag(spec) for spec in self.outputs.specs}
        self._devices[instance] = _Device(made, tags, heard_s=now.clock_s)
        return self._devices[instance]

    def _tag(self, spec: LeafSpec) -> Tag:
        return Tag(spec.name, DATATYPES[spec.kind], self._alias(), self._unit_of(spec), GOOD)

    def _unit_of(self, spec: LeafSpec) -> str:
        return self.outputs.unit if spec.name in (self.outputs.output, "threshold") else ""

    def _alias(self) -> int | None:
        """Aliases are unique over the node and all its devices (tck-id-payloads-alias-uniqueness); 0: `bdSeq`."""
        if not self.config.strict_alias:
            return None
        self._aliases += 1
        return self._aliases

    def _topic(self, kind: MessageType, device: _Device | None = None) -> str:
        return str(SparkplugTopic(self.config.group, kind, self.config.node, device.id if device is not None else None))

    def _say(
        self, kind: MessageType, now: Moment, metrics: Sequence[Metric], device: _Device | None = None
    ) -> Publication:
        payload = encode_payload(Payload(now.wall_ms, tuple(metrics), self._session.seq))
        self._session.seq = (self._session.seq + 1) % SEQUENCE
        return Publication(self._topic(kind, device), payload)


def death_of(group: str, node: str, bdseq: int, wall_ms: int) -> Publication:
    """NDEATH of one session: no `seq`, and `bdSeq` alone (tck-id-topics-ndeath-payload)."""
    payload = encode_payload(Payload(wall_ms, (_bdseq_metric(bdseq, wall_ms, None),)))
    return Publication(str(SparkplugTopic(group, MessageType.NDEATH, node)), payload, qos=1)


def _bdseq_metric(bdseq: int, wall_ms: int, alias: int | None) -> Metric:
    return Metric(BDSEQ, alias, wall_ms, DataType.INT64, bdseq)


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _time_of(metric: Metric) -> int:
    return metric.timestamp_ms or 0
