"""From a plant's messages to samples and labels: the pure core of an edge. Messages in, frozen effects out.

What is said of one instance meets in one place, `edge.instances`. A message with the retain flag only seeds the
last value of an unkeyed tag: brokers replay retained messages at each reconnect, so it is never a sample or a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.binding import BoundFeature, BoundMap, BoundSource
from edge.clock import Clock, SourceClock
from edge.dialects import MAX_NUMBER, Decoded, Decoder, Form, Refusal, make_decoder, read_number
from edge.effects import Effect, Problem, Understood
from edge.events import NAN
from edge.instances import EventInstance, Instance, InstanceMessage, WindowInstance
from edge.leaves import OUTPUT_SEGMENT
from edge.sparkplug import Nodes, RebirthRequest, Update
from edge.units import is_other_unit
from uns_topics.codes import DataProblem
from uns_topics.contract import Contract, EventSample
from uns_topics.sparkplug import NAMESPACE, MessageType, SparkplugTopic

MAX_INSTANCES = 1000
"""Instances of one edge; messages of further ones are counted and left alone."""
MAX_ROUTES = 100_000
"""Topics whose route is remembered; beyond it all are looked up anew."""


@dataclass(slots=True)
class _Route:
    """Where the messages of one topic go."""

    source: BoundSource
    rank: int
    decode: Decoder
    clock: SourceClock
    instance: Instance
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
        self._instances: dict[str, Instance] = {}

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
            message = InstanceMessage(route.source, route.rank, topic, time_s, time_s, known, good, values, effects)
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
        message = InstanceMessage(route.source, route.rank, topic, time_s, arrival_s, fields, True, values, problems)
        if update.units:
            problems += self._unit_problems(route, topic, update.units)
        if update.seed:
            route.instance.seed(message)
            return problems
        return [*problems, *route.instance.take(message)]

    def _read(self, route: _Route, topic: str, payload: bytes, arrival_s: float) -> InstanceMessage | Problem:
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
        return InstanceMessage(
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
        if OUTPUT_SEGMENT not in topic:  # a wide wildcard must not feed back what we publish ourselves
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

    def _instance(self, path: str) -> Instance | None:
        known = self._instances.get(path)
        if known is None and len(self._instances) < MAX_INSTANCES:
            kind = EventInstance if isinstance(self._contract.sample, EventSample) else WindowInstance
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
