"""From a plant's messages to samples and labels: the pure core of an edge. Messages in, frozen effects out.

What is said of one instance meets in one place, `_Events` or `_Windows`. A message with the retain flag only seeds the
last value of an unkeyed tag: brokers replay retained messages at each reconnect, so it is never a sample or a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.binding import BoundFeature, BoundMap, BoundSource, required_features
from edge.clock import Clock, SourceClock
from edge.dialects import MAX_NUMBER, Decoded, Decoder, Form, Refusal, make_decoder, read_number, read_text
from edge.events import NAN, EventJoiner, Joined, Part, Tag
from edge.sparkplug import Nodes, RebirthRequest, Update
from edge.splits import SAID
from edge.units import is_other_unit
from edge.windows import TagGrid, Window, WindowBuilder
from uns_topics.codes import DataProblem
from uns_topics.contract import ClassLabel, Contract, EventSample, RunToFailureLabel, WindowSample
from uns_topics.sparkplug import NAMESPACE, MessageType, SparkplugTopic

MAX_INSTANCES = 1000
"""Instances of one edge; messages of further ones are counted and left alone."""
MAX_ROUTES = 100_000
"""Topics whose route is remembered; beyond it all are looked up anew."""
OUTPUT_SEGMENT = "/_inference/"
"""What we publish ourselves beneath an instance; a wide wildcard must not feed it back."""


@dataclass(frozen=True, slots=True)
class SampleReady:
    """A sample that a model can run on now.

    Attributes:
        instance: the plant's own path. key: unique in it. time_s: event time. arrival_s: when it was complete.
        group: batch, panel or engine, "" without. split: what the data says: "", train, select or report.
        context: slot of the declared context, 0 = unknown.
        values: float32 in the contract's units, NaN = missing; shape (F,), or (L, F) for a window.
        matures_s: event time at which its label's window closes; None where the contract has no label.
        segment_s, step, rows: windows only: see `edge.windows.Window`.
    """

    instance: str
    key: str
    time_s: float
    arrival_s: float
    group: str
    split: str
    context: int
    values: npt.NDArray[np.float32]
    matures_s: float | None
    segment_s: float | None = None
    step: int = 0
    rows: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A source says a sample's class; what it revises is decided where all labels lie, in the store.

    Attributes: value: class index in the contract; precedence: 0 is the strongest source.
    """

    instance: str
    key: str
    value: float
    source: str
    precedence: int
    time_s: float
    matures_after_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A group's run has ended: its samples' remaining steps are known now.

    Attributes: time_s: event time of its last row; remaining: steps that were left then.
    """

    instance: str
    group: str
    time_s: float
    remaining: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Problem:
    """A message, or a part of it, that could not be used. `detail` is for the plant's own log and stays short."""

    code: str
    topic: str
    detail: str


@dataclass(frozen=True, slots=True)
class Understood:
    """A message as a source reads it, before anything follows from it; for who looks at a plant's data itself.

    Attributes: said_s: its own timestamp, None without; values: by feature, NaN where missing; seed: only a last value.
    """

    source: BoundSource
    topic: str
    said_s: float | None
    fields: Mapping[str, Any]
    good: bool
    values: Mapping[int, float]
    seed: bool


Effect = SampleReady | LabelSet | RunEnded | Problem | RebirthRequest


class _Instance(Protocol):
    """What is known of one instance."""

    def take(self, message: _Message) -> list[Effect]: ...

    def seed(self, message: _Message) -> None: ...


@dataclass(slots=True)
class _Message:
    """A decoded message at its instance, with the numbers of its features."""

    source: BoundSource
    rank: int
    topic: str
    time_s: float
    arrival_s: float
    fields: Mapping[str, Any]
    good: bool
    values: dict[int, float]
    problems: list[Effect]

    def text(self, field: str | None) -> str:
        """A field as text, "" without."""
        return (read_text(self.fields.get(field)) or "") if field is not None else ""


@dataclass(slots=True)
class _Route:
    """Where the messages of one topic go."""

    source: BoundSource
    rank: int
    decode: Decoder
    clock: SourceClock
    instance: _Instance
    complete: bool
    """A message gives a number for each of its features: keyed values and rows, where an absent field is missing."""
    fields: frozenset[str]
    """All that the source reads."""
    held: dict[str, Any] = field(default_factory=dict)
    """Sparkplug: the group and split that were said last, since a device only says what has changed."""
    units: dict[str, str] = field(default_factory=dict)
    """Sparkplug: the words for units that births have said and that were looked at, by metric."""


class Ingest:
    """Feeds one participant's messages through its signal map.

    Args: tap: is told of each message that a source understands.

    Attributes:
        filters: MQTT filters to subscribe to.
        counters: how often each `DataProblem` happened. messages: all that a source covers.
    """

    def __init__(
        self, bound_map: BoundMap, contract: Contract, *, tap: Callable[[Understood], None] | None = None
    ) -> None:
        self._map = bound_map
        self._tap = tap
        self._contract = contract
        self.filters: tuple[str, ...] = tuple(
            dict.fromkeys(topic_filter for s in bound_map.sources for topic_filter in s.declared.filters)
        )
        self.counters: Counter[str] = Counter()
        self.messages = 0
        self._decoders = [
            make_decoder(
                s.declared.form,
                fields=s.fields,
                quality_key=s.declared.keys.quality,
                timestamp_key=s.declared.keys.timestamp,
                timestamp_format=s.declared.timestamp_format,
            )
            for s in bound_map.sources
        ]
        self._nodes = Nodes() if any(s.declared.form is Form.SPARKPLUG for s in bound_map.sources) else None
        self._routes: dict[str, tuple[_Route, ...]] = {}
        self._clocks: dict[tuple[int, str], SourceClock] = {}
        self._instances: dict[str, _Instance] = {}

    @property
    def instances(self) -> tuple[str, ...]:
        """Paths of the instances that were heard of, in that order."""
        return tuple(self._instances)

    def covers(self, instance: str) -> bool:
        """Whether the map's instances are named like this one."""
        return self._map.instance.match(instance) is not None

    def feed(self, topic: str, payload: bytes, *, retain: bool = False, arrival_s: float) -> list[Effect]:
        """What follows from one message; never raises on what a plant says.

        Args: retain: the message's retain flag; arrival_s: now, seconds since the epoch.
        """
        if self._nodes is not None and topic.startswith(f"{NAMESPACE}/"):
            sparkplug = SparkplugTopic.parse(topic)
            return self._feed_nodes(self._nodes, sparkplug, payload, retain, arrival_s) if sparkplug is not None else []
        effects: list[Effect] = []
        for route in self._routes_of(topic):
            self.messages += 1
            message = self._read(route, topic, payload, arrival_s)
            if isinstance(message, Problem):
                effects.append(message)
            elif retain:
                self.counters["retained"] += 1
                route.instance.seed(message)
            else:
                effects += message.problems
                effects += route.instance.take(message)
        return effects

    def recall(self, topic: str, fields: Mapping[str, Any], time_s: float, *, good: bool = True) -> list[Effect]:
        """What follows from a message of the past, as a historian keeps it: its fields are known and need no decoder.

        Its time counts as it stands, whatever clock the source has live. Sparkplug: the topic is that of the data.
        """
        effects: list[Effect] = []
        for route in self._routes_of(topic):
            if route.fields.isdisjoint(fields):
                continue
            self.messages += 1
            if not good:
                self.counters["bad-quality"] += 1
            known = _with_held(route, fields) if route.source.declared.form is Form.SPARKPLUG else fields
            values = self._numbers(route, topic, Decoded(time_s, known, good), effects)
            message = _Message(route.source, route.rank, topic, time_s, time_s, known, good, values, effects)
            effects += route.instance.take(message)
        return effects

    def reconnected(self, now_s: float) -> list[RebirthRequest]:
        """Before a new session subscribes: what is to be asked of Sparkplug nodes once it has."""
        return self._nodes.reconnected(now_s) if self._nodes is not None else []

    def _feed_nodes(
        self, nodes: Nodes, topic: SparkplugTopic, payload: bytes, retain: bool, arrival_s: float
    ) -> list[Effect]:
        heard = nodes.hear(topic, payload, retain=retain, now_s=arrival_s)
        self.messages += len(self._routes_of(str(topic)))
        self.counters.update(heard.counted)
        effects: list[Effect] = [Problem(p.code, str(topic), p.detail) for p in heard.problems]
        if heard.rebirth is not None:
            effects.append(heard.rebirth)
        for update in (*heard.updates, *((heard.whole,) if heard.whole is not None else ())):
            kind = MessageType.NDATA if update.device is None else MessageType.DDATA
            for route in self._routes_of(str(SparkplugTopic(topic.group, kind, topic.node, update.device))):
                of_event = route.source.declared.key is not None and update.live and not update.seed
                if of_event == (update is heard.whole) and not route.fields.isdisjoint(update.values):
                    effects += self._take_update(route, str(topic), update, retain, arrival_s)
        return effects

    def _take_update(
        self, route: _Route, topic: str, update: Update, retain: bool, arrival_s: float
    ) -> Iterable[Effect]:
        time_s, clamped = arrival_s, False
        if update.time_s is not None:
            known_s, clamped = route.clock.event_time_s(
                update.time_s, arrival_s, live=update.live and (not retain or route.source.clock is Clock.ARRIVAL)
            )
            if known_s is None:
                self.counters["late"] += 1
                return []
            time_s = known_s
        fields, problems = update.values, list[Effect]()
        if clamped:
            problems.append(self._problem("future", topic, "its timestamp lies in the future; taken as now"))
        fields = _with_held(route, fields)
        values = self._numbers(route, topic, Decoded(time_s, fields), problems)
        if self._tap is not None:
            self._tap(Understood(route.source, topic, update.time_s, fields, True, values, update.seed))
        message = _Message(route.source, route.rank, topic, time_s, arrival_s, fields, True, values, problems)
        if update.units:
            problems += self._unit_problems(route, topic, update.units)
        if update.seed:
            route.instance.seed(message)
            return problems
        return [*problems, *route.instance.take(message)]

    def _read(self, route: _Route, topic: str, payload: bytes, arrival_s: float) -> _Message | Problem:
        decoded = route.decode(payload)
        if isinstance(decoded, Refusal):
            return self._problem(decoded.code, topic, decoded.detail)
        time_s, clamped = route.clock.event_time_s(decoded.time_s, arrival_s)
        if time_s is None:
            return self._problem("no-timestamp", topic, "no timestamp; use `clock: arrival` if it never has one")
        problems: list[Effect] = []
        if clamped:
            problems.append(self._problem("future", topic, "its timestamp lies in the future; taken as now"))
        if not decoded.good:
            self.counters["bad-quality"] += 1
        values = self._numbers(route, topic, decoded, problems) if route.source.features else {}
        if self._tap is not None:
            self._tap(Understood(route.source, topic, decoded.time_s, decoded.fields, decoded.good, values, False))
        return _Message(
            route.source, route.rank, topic, time_s, arrival_s, decoded.fields, decoded.good, values, problems
        )

    def _numbers(self, route: _Route, topic: str, decoded: Decoded, problems: list[Effect]) -> dict[int, float]:
        """Feature position -> number in the contract's unit; NaN where it is null, unusable or not good."""
        values: dict[int, float] = {}
        fields, refused = decoded.fields, None
        for feature in route.source.features:
            if feature.field not in fields:
                if route.complete:
                    values[feature.index] = NAN
                continue
            number = read_number(fields[feature.field], allow_bool=feature.allow_bool) if decoded.good else None
            if type(number) is float:
                converted = number * feature.scale + feature.offset
                if -MAX_NUMBER < converted < MAX_NUMBER:
                    values[feature.index] = converted
                    continue
                number = Refusal("not-finite", "too large once converted")
            values[feature.index] = NAN
            if isinstance(number, Refusal):
                self.counters[number.code] += 1
                refused = refused or (number, feature)
        if refused is not None:  # one effect per message: a flat message may have a thousand fields
            problems.append(_field_problem(topic, *refused))
        return values

    def _unit_problems(self, route: _Route, topic: str, units: Mapping[str, str]) -> Iterable[Problem]:
        """Metrics whose birth names another unit than the signal map; each is told once. Nothing is converted by it."""
        for feature in route.source.features:
            said = units.get(feature.field)
            if said is None or feature.unit is None or route.units.get(feature.field) == said:
                continue
            route.units[feature.field] = said
            if is_other_unit(said, feature.unit):
                declared = feature.unit or "a pure number"
                detail = f"metric {feature.field!r} ({feature.name}): its birth says {said!r}, the map {declared}"
                yield self._problem(DataProblem.UNIT_MISMATCH.value, topic, detail)

    def _problem(self, code: str, topic: str, detail: str) -> Problem:
        self.counters[code] += 1
        return Problem(code, topic, detail)

    def _routes_of(self, topic: str) -> tuple[_Route, ...]:
        routes = self._routes.get(topic)
        return routes if routes is not None else self._find_routes(topic)

    def _find_routes(self, topic: str) -> tuple[_Route, ...]:
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        routes = []
        if OUTPUT_SEGMENT not in topic:
            for rank, source in enumerate(self._map.sources):
                captures = source.pattern.match(topic)
                if captures is None:
                    continue
                path = self._map.instance_path(captures)
                instance = self._instance(path)
                if instance is None:
                    self.counters["too-many-instances"] += 1
                    continue
                clock = self._clocks.setdefault((rank, path), SourceClock(source.clock))
                complete = source.declared.key is not None or self._map.by_row
                routes.append(_Route(source, rank, self._decoders[rank], clock, instance, complete, source.fields))
        found = self._routes[topic] = tuple(routes)
        return found

    def _instance(self, path: str) -> _Instance | None:
        known = self._instances.get(path)
        if known is None and len(self._instances) < MAX_INSTANCES:
            kind = _Events if isinstance(self._contract.sample, EventSample) else _Windows
            known = self._instances[path] = kind(path, self._map, self._contract, self.counters)
        return known


def _with_held(route: _Route, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Sparkplug: the fields and what still holds of group and split, since a device only says what has changed."""
    declared = route.source.declared
    if declared.key is not None or not (declared.group or declared.split):
        return fields
    said = (name for name in (declared.group, declared.split) if name is not None)
    route.held |= {name: fields[name] for name in said if fields.get(name) is not None}
    return {**fields, **route.held}


def _field_problem(topic: str, refusal: Refusal, feature: BoundFeature) -> Problem:
    return Problem(refusal.code, topic, f"field {feature.field!r} ({feature.name}): {refusal.detail}")


class _Words:
    """What both kinds of instance read besides numbers: context, split and verdict."""

    def __init__(self, path: str, contract: Contract, counters: Counter[str]) -> None:
        self.path = path
        self._label = contract.label
        self._counters = counters

    def context(self, message: _Message) -> int | None:
        """The slot that a message names; None where it names none."""
        bound = message.source.context
        if bound is None or not message.good:
            return None
        text = message.text(bound.field)
        if not text:
            return None
        slot = bound.slots.get(text, 0)
        if slot == 0:
            self._counters["unknown-context"] += 1
        return slot

    def split(self, message: _Message) -> str:
        """What the data says of a sample's part; `test` is what others call `report`."""
        text = message.text(message.source.declared.split).lower()
        if text not in SAID:
            self._counters["unknown-split"] += 1
            return ""
        return "report" if text == "test" else text

    def label(self, message: _Message, key: str) -> Effect | None:
        """The verdict of a message that has one."""
        bound = message.source.label
        if bound is None or not isinstance(self._label, ClassLabel) or not message.good:
            return None
        code = message.text(bound.field)
        if not code:
            if message.values:
                return None
            self._counters["no-label"] += 1
            return Problem("no-label", message.topic, f"no text in field {bound.field!r}")
        value = bound.codes.get(code)
        if value is None:
            self._counters["unmapped-code"] += 1
            return Problem("unmapped-code", message.topic, f"the text of field {bound.field!r} is no code of the map")
        return LabelSet(
            self.path,
            key,
            float(value),
            bound.source,
            bound.precedence,
            message.time_s,
            self._label.matures_after_s,
        )

    def matures_s(self, time_s: float) -> float | None:
        """When a sample's label window closes; that of a run to failure is closed by the run's end."""
        if isinstance(self._label, ClassLabel):
            return time_s + self._label.matures_after_s
        return time_s if isinstance(self._label, RunToFailureLabel) else None


class _Events:
    """One instance whose samples are events."""

    def __init__(self, path: str, bound_map: BoundMap, contract: Contract, counters: Counter[str]) -> None:
        assert isinstance(contract.sample, EventSample)
        self._words = _Words(path, contract, counters)
        self._counters = counters
        tags = {index: Tag(f.join, f.max_age_s) for index, f in bound_map.tags.items()}
        self._joiner = EventJoiner(
            len(contract.features),
            bound_map.keyed,
            required_features(contract),
            tags,
            contract.sample.patience_s,
            counters,
        )

    def seed(self, message: _Message) -> None:
        if message.source.declared.key is None:
            self._tags(message)

    def take(self, message: _Message) -> list[Effect]:
        effects: list[Effect] = []
        declared = message.source.declared
        if declared.key is None:
            self._tags(message)
        else:
            key = message.text(declared.key)
            if not key:
                self._counters["no-key"] += 1
                return [Problem("no-key", message.topic, f"no text or number in field {declared.key!r}")]
            if declared.feeds_samples:
                joined = self._joiner.part(key, self._part(message))
                if joined is not None:
                    effects.append(self._sample(joined))
            label = self._words.label(message, key)
            if label is not None:
                effects.append(label)
        effects += [self._sample(joined) for joined in self._joiner.advance(message.time_s)]
        return effects

    def _tags(self, message: _Message) -> None:
        for index, value in message.values.items():
            self._joiner.tag(index, message.time_s, value)
        slot = self._words.context(message)
        if slot is not None:
            self._joiner.context(message.time_s, slot)

    def _part(self, message: _Message) -> Part:
        return Part(
            message.rank,
            message.time_s,
            message.arrival_s,
            message.values,
            self._words.context(message),
            message.text(message.source.declared.group),
            self._words.split(message),
        )

    def _sample(self, joined: Joined) -> SampleReady:
        return SampleReady(
            self._words.path,
            joined.key,
            joined.time_s,
            joined.arrival_s,
            joined.group,
            joined.split,
            joined.context,
            np.array(joined.values, np.float32),
            self._words.matures_s(joined.time_s),
        )


class _Windows:
    """One instance whose samples are windows."""

    def __init__(self, path: str, bound_map: BoundMap, contract: Contract, counters: Counter[str]) -> None:
        assert isinstance(contract.sample, WindowSample)
        self._words = _Words(path, contract, counters)
        self._counters = counters
        self._rule = contract.sample
        self._width = len(contract.features)
        self._builder = WindowBuilder(contract.sample, self._width, counters)
        self._grid: TagGrid | None = None
        if not bound_map.by_row:
            tags = {index: Tag(f.join, f.max_age_s) for index, f in bound_map.tags.items()}
            self._grid = TagGrid(self._width, tags, contract.sample.period_s, bound_map.lateness_s, counters)
        self._context = 0
        self._group = ""
        self._split = ""

    def seed(self, message: _Message) -> None:
        if self._grid is not None:
            for index, value in message.values.items():
                self._grid.seed(index, message.time_s, value)
        slot = self._words.context(message)
        self._context = self._context if slot is None else slot

    def take(self, message: _Message) -> list[Effect]:
        declared = message.source.declared
        effects: list[Effect] = []
        if self._grid is not None:
            effects += self._rows(self._grid.close_before(message.time_s), message.arrival_s)
        self._follow(message, effects)
        if message.source.features:
            if self._grid is not None:
                for index, value in message.values.items():
                    self._grid.tag(index, message.time_s, value)
            else:
                effects += self._row(message)
        end = declared.end_of_run
        if end is not None and (not message.source.features or end.remaining in message.fields):
            effects += self._end(message, end.remaining)
        return effects

    def _follow(self, message: _Message, effects: list[Effect]) -> None:
        """Take on the group, split and context that a message names; with another group the last one's row closes."""
        declared = message.source.declared
        slot = self._words.context(message)
        group = message.text(declared.group)
        changed = (slot is not None and slot != self._context) or (declared.group and group != self._group)
        if changed and self._grid is not None:
            effects += self._rows(self._grid.close_all(), message.arrival_s)
        if slot is not None:
            self._context = slot
        if declared.group:
            self._group = group
        if declared.split:
            self._split = self._words.split(message)

    def _row(self, message: _Message) -> list[Effect]:
        values = [NAN] * self._width
        for index, value in message.values.items():
            values[index] = value
        window = self._builder.row(self._group, message.time_s, values, self._context)
        if window is None:
            return []
        sample = self._sample(window, message.arrival_s)
        label = self._words.label(message, sample.key)
        return [sample] if label is None else [sample, label]

    def _rows(self, rows: Iterable[tuple[float, list[float]]], arrival_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for time_s, values in rows:
            window = self._builder.row(self._group, time_s, values, self._context)
            if window is not None:
                effects.append(self._sample(window, arrival_s))
        return effects

    def _end(self, message: _Message, field: str | None) -> list[Effect]:
        remaining = read_number(message.fields.get(field)) if field is not None else 0.0
        if not isinstance(remaining, float) or remaining < 0:
            self._counters["wrong-type"] += 1
            return [Problem("wrong-type", message.topic, f"field {field!r}: no number of remaining steps")]
        effects: list[Effect] = []
        if self._grid is not None:
            effects += self._rows(self._grid.close_all(), message.arrival_s)
        end_s = self._builder.end(self._group, message.time_s)
        effects.append(RunEnded(self._words.path, self._group, end_s, remaining, self._rule.period_s))
        return effects

    def _sample(self, window: Window, arrival_s: float) -> SampleReady:
        moment = datetime.fromtimestamp(window.time_s, UTC).isoformat(timespec="milliseconds")
        return SampleReady(
            self._words.path,
            f"{self._group}@{moment}" if self._group else moment,
            window.time_s,
            arrival_s,
            self._group,
            self._split,
            self._context,
            window.values,
            self._words.matures_s(window.time_s),
            window.segment_s,
            window.step,
            window.rows,
        )
