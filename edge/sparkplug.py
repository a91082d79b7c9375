"""What is known of Sparkplug edge nodes: births, aliases, sequence, deaths (Sparkplug 3.0.0, chapters 5 and 6). Pure.

Every message of a node is heard, whether a source needs it or not: `seq` counts over all of them. What the signal map
then reads are `Heard.updates`, by name, each value typed by its birth. Once something is missing (a gap in `seq`, an
alias that no birth named, data before any birth) nothing is guessed: the node is asked for its births.

A birth repeats values that were said before, as a broker repeats retained messages, so it only seeds. A retained
message is nobody's live session: a retained birth seeds by name, anything else with the flag is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.dialects import Refusal, TimestampFormat, is_good, read_timestamp
from uns_topics.sparkplug import (
    BDSEQ,
    BIRTHS,
    QUALITY,
    UNIT,
    MessageType,
    Metric,
    Payload,
    SparkplugError,
    SparkplugTopic,
    Value,
    decode_payload,
    rebirth_request,
    typed_value,
)

REBIRTH_EVERY_S = 10.0
"""A node is asked for its births at most once in this time: many hosts asking at once is a storm."""
MAX_NODES = 1000
"""Nodes that are followed; messages of further ones are counted and left alone."""
MAX_DEFINITIONS = 200_000
"""Metrics of all births that are remembered; a birth beyond it is refused."""
MAX_UNIT = 32
"""Longest word for a unit that is looked at, as in a signal map."""
_SEQUENCE = 256


@dataclass(frozen=True, slots=True)
class Update:
    """Values of one node or device that share one timestamp.

    Attributes:
        time_s: None where the time of arrival counts. values: by metric name; None is missing: null, not good, stale.
        seed: repeated by a birth or retained: a last value, no news. live: not said later than it happened.
        units: the device's own word for the unit of a metric, where a birth has one.
    """

    device: str | None
    time_s: float | None
    values: Mapping[str, Value]
    seed: bool = False
    live: bool = True
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RebirthRequest:
    """A command to be published, QoS 0, not retained."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Heard:
    """What follows from one message.

    Attributes:
        updates: one per timestamp. whole: all live values of a message of data as one, at the latest timestamp: that
            is one event for who looks for a key.
        problems: to be told, one per reason; counted: all reasons, those included.
    """

    updates: list[Update] = field(default_factory=list)
    whole: Update | None = None
    rebirth: RebirthRequest | None = None
    problems: list[Refusal] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def count(self, code: str) -> None:
        """Count what is nobody's fault, or is said often."""
        self.counted[code] += 1

    def problem(self, code: str, detail: str) -> None:
        """Tell the first of each reason: a payload may have a thousand such metrics."""
        if self.counted[code] == 0:
            self.problems.append(Refusal(code, detail))
        self.counted[code] += 1


@dataclass(frozen=True, slots=True)
class _Definition:
    """A metric as its birth named it."""

    name: str
    datatype: int | None


@dataclass(slots=True)
class _Device:
    """What a birth named."""

    by_name: dict[str, _Definition] = field(default_factory=dict)
    by_alias: dict[int, _Definition] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """One edge node.

    Attributes:
        devices: those that were born, the node's own metrics under None.
        sequence: `seq` of the last message; None while a birth is awaited. bdseq: of the last NBIRTH.
        last: the last message and its hash: brokers may hand it out once per subscription.
        asked_s: when a rebirth was asked for.
    """

    devices: dict[str | None, _Device] = field(default_factory=dict)
    sequence: int | None = None
    bdseq: Value = None
    last: tuple[SparkplugTopic, int] | None = None
    asked_s: float | None = None


class Nodes:
    """All edge nodes that this edge hears of."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._definitions = 0

    def hear(self, topic: SparkplugTopic, raw: bytes, *, retain: bool, now_s: float) -> Heard:
        """Take one message; nothing a plant says raises. Args: now_s: seconds since the epoch."""
        heard = Heard()
        if topic.kind is MessageType.NCMD:
            return heard
        try:
            payload = decode_payload(raw)
        except SparkplugError as error:
            heard.problem(error.code, str(error))
            return heard
        if retain:
            heard.count("retained")
            if topic.kind in BIRTHS:
                _seed(heard, topic.device, payload)
            return heard
        node = self._nodes.get((topic.group, topic.node))
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                heard.count("too-many-instances")
                return heard
            node = self._nodes[topic.group, topic.node] = _Node()
        this = (topic, hash(raw))
        if node.last == this and topic.kind is not MessageType.NBIRTH:
            heard.count("duplicate")
            return heard
        node.last = this
        if self._take(node, topic, payload, heard):
            heard.rebirth = _ask(node, topic.group, topic.node, now_s)
        return heard

    def reconnected(self, now_s: float) -> list[RebirthRequest]:
        """Nobody knows what was missed: no message counts until the node's next birth, which is asked for."""
        asked = []
        for (group, name), node in self._nodes.items():
            node.sequence = None
            request = _ask(node, group, name, now_s)
            if request is not None:
                asked.append(request)
        return asked

    def _take(self, node: _Node, topic: SparkplugTopic, payload: Payload, heard: Heard) -> bool:
        """One message of a live session. Returns whether the node's births are needed."""
        kind, device = topic.kind, topic.device
        if kind is MessageType.NDEATH:
            self._node_death(node, payload, heard)
            return False
        if kind is MessageType.NBIRTH:
            self._node_birth(node, payload, heard)
            return False
        if node.sequence is None:
            heard.count("no-birth")
            return True
        if payload.seq != (node.sequence + 1) % _SEQUENCE:
            heard.problem("sequence-gap", f"seq {payload.seq} after {node.sequence}: something was lost")
            node.sequence = None
            _make_stale(node, _time_s(payload.timestamp_ms), heard)
            return True
        node.sequence = payload.seq
        if kind is MessageType.DBIRTH:
            self._birth(node, device, payload, heard)
            return False
        known = node.devices.get(device)
        if kind is MessageType.DDEATH:
            if known is not None:
                heard.updates.append(_stale(device, known, _time_s(payload.timestamp_ms)))
                self._forget(node, device)
            return False
        if known is None:
            heard.count("no-birth")
            return True
        return _data(heard, device, known, payload)

    def _node_birth(self, node: _Node, payload: Payload, heard: Heard) -> None:
        bdseq = _bdseq(payload)
        if node.devices and bdseq != node.bdseq:  # another session, whose NDEATH nobody heard
            _make_stale(node, _time_s(payload.timestamp_ms), heard)
        for device in list(node.devices):  # each comes with a birth of its own
            self._forget(node, device)
        node.bdseq = bdseq
        node.sequence = (payload.seq or 0) % _SEQUENCE
        self._birth(node, None, payload, heard)

    def _birth(self, node: _Node, device: str | None, payload: Payload, heard: Heard) -> None:
        self._forget(node, device)
        if self._definitions + len(payload.metrics) > MAX_DEFINITIONS:
            heard.problem("oversized", f"its births name more than {MAX_DEFINITIONS} metrics with all others")
            return
        node.devices[device] = born = _seed(heard, device, payload)
        self._definitions += len(born.by_name)

    def _node_death(self, node: _Node, payload: Payload, heard: Heard) -> None:
        bdseq = _bdseq(payload)
        if None not in (bdseq, node.bdseq) and bdseq != node.bdseq:
            heard.count("old-death")  # the will of a session before this one, published late
            return
        _make_stale(node, None, heard)  # a will's own timestamp is that of its CONNECT
        for device in list(node.devices):
            self._forget(node, device)
        node.sequence = node.bdseq = None

    def _forget(self, node: _Node, device: str | None) -> None:
        known = node.devices.pop(device, None)
        self._definitions -= len(known.by_name) if known is not None else 0


def _ask(node: _Node, group: str, name: str, now_s: float) -> RebirthRequest | None:
    """A rebirth request, unless one is on its way; a clock that was set back doesn't end the asking."""
    if node.asked_s is not None and node.asked_s <= now_s < node.asked_s + REBIRTH_EVERY_S:
        return None
    node.asked_s = now_s
    return RebirthRequest(str(SparkplugTopic(group, MessageType.NCMD, name)), rebirth_request(round(now_s * 1000)))


def _seed(heard: Heard, device: str | None, payload: Payload) -> _Device:
    """What a birth names, and its values as of the birth: that is when they held, whenever they last changed."""
    born = _Device()
    values: dict[str, Value] = {}
    units: dict[str, str] = {}
    for metric in payload.metrics:
        if metric.name is None:
            heard.problem("undecodable", "a birth has a metric without a name")
            continue
        definition = born.by_name[metric.name] = _Definition(metric.name, metric.datatype)
        if metric.alias is not None:
            born.by_alias[metric.alias] = definition
        unit = metric.properties.get(UNIT)
        if isinstance(unit, str) and 0 < len(unit) <= MAX_UNIT:
            units[metric.name] = unit
        if metric.skipped:
            heard.count("skipped-metric")
        else:
            values[metric.name] = _value(metric, definition, heard)
    time_s = _time_s(payload.timestamp_ms)
    if isinstance(time_s, Refusal):
        heard.problem(time_s.code, time_s.detail)
    else:
        heard.updates.append(Update(device, time_s, values, seed=True, units=units))
    return born


def _data(heard: Heard, device: str | None, known: _Device, payload: Payload) -> bool:
    """Values of an NDATA or DDATA, one update per timestamp, oldest first. Returns whether a birth is needed."""
    found: dict[tuple[float, bool], dict[str, Value]] = {}
    needs_birth = False
    for metric in payload.metrics:
        definition = known.by_name.get(metric.name) if metric.name is not None else None
        if metric.name is None and metric.alias is not None:
            definition = known.by_alias.get(metric.alias)
        if definition is None:
            heard.problem("unknown-metric", "a metric whose name or alias no birth named")
            needs_birth = True
            continue
        if metric.skipped:
            heard.count("skipped-metric")
            continue
        time_s = _time_s(metric.timestamp_ms if metric.timestamp_ms is not None else payload.timestamp_ms)
        if isinstance(time_s, Refusal):
            heard.problem(time_s.code, time_s.detail)
        elif time_s is None:
            heard.problem("no-timestamp", "neither the metric nor the payload has a timestamp")
        else:
            found.setdefault((time_s, not metric.is_historical), {})[definition.name] = _value(
                metric, definition, heard
            )
    for (moment_s, live), values in sorted(found.items(), key=lambda item: item[0]):
        heard.updates.append(Update(device, moment_s, values, live=live))
        if live:
            before = heard.whole.values if heard.whole is not None else {}
            heard.whole = Update(device, moment_s, {**before, **values})
    return needs_birth


def _value(metric: Metric, definition: _Definition, heard: Heard) -> Value:
    if not is_good(metric.properties.get(QUALITY)):
        heard.count("bad-quality")
        return None
    return typed_value(metric.value, metric.datatype if metric.datatype is not None else definition.datatype)


def _make_stale(node: _Node, time_s: float | Refusal | None, heard: Heard) -> None:
    heard.updates += [_stale(device, known, time_s) for device, known in node.devices.items()]


def _stale(device: str | None, known: _Device, time_s: float | Refusal | None) -> Update:
    when_s = None if isinstance(time_s, Refusal) else time_s
    return Update(device, when_s, dict.fromkeys(known.by_name), seed=True)


def _time_s(timestamp_ms: int | None) -> float | Refusal | None:
    return read_timestamp(timestamp_ms, TimestampFormat.MS) if timestamp_ms is not None else None


def _bdseq(payload: Payload) -> Value:
    return next((metric.value for metric in payload.metrics if metric.name == BDSEQ), None)
