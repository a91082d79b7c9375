"""What was heard of each topic, by the very signal map, decoders and joins that the edge uses. Pure.

Everything is bounded: a topic keeps the first readings in full and then thins them out evenly.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from edge.assess.recording import Heard
from edge.binding import BoundMap, BoundSource
from edge.clock import Clock
from edge.dialects import read_text
from edge.effects import LabelSet, Problem, SampleReady, Understood
from edge.ingest import Ingest
from uns_topics.contract import Contract
from uns_topics.sparkplug import NAMESPACE

MAX_KEPT = 4096
"""Times, lags and values kept of a topic."""
MAX_CODES = 100
MAX_KEYS = 100_000
RECENT = 256
"""Messages of a topic that a repetition is recognised in."""


class Thinned:
    """Numbers of which at most `MAX_KEPT` are kept, evenly spread over all that came."""

    __slots__ = ("_count", "_every", "kept")

    def __init__(self) -> None:
        self.kept: list[float] = []
        self._every = 1
        self._count = 0

    def add(self, value: float) -> None:
        """Take one more."""
        if self._count % self._every == 0:
            self.kept.append(value)
            if len(self.kept) >= MAX_KEPT:
                del self.kept[1::2]
                self._every *= 2
        self._count += 1

    def __len__(self) -> int:
        """How many came."""
        return self._count


def count(texts: Counter[str], text: str, most: int) -> None:
    """Count a text, unless it would be one more than `most` different ones."""
    if text in texts or len(texts) < most:
        texts[text] += 1


class Gaps:
    """Distances between one topic's messages, in event time where it has one; out-of-order ones count as none."""

    __slots__ = ("distances", "last_s", "longest_at_s", "longest_s")

    def __init__(self) -> None:
        self.distances = Thinned()
        self.last_s: float | None = None
        self.longest_s = 0.0
        self.longest_at_s = 0.0

    def add(self, time_s: float) -> None:
        """The next message."""
        if self.last_s is not None and time_s > self.last_s:
            distance = time_s - self.last_s
            self.distances.add(distance)
            if distance > self.longest_s:
                self.longest_s, self.longest_at_s = distance, self.last_s
        self.last_s = time_s if self.last_s is None else max(self.last_s, time_s)


@dataclass
class Span:
    """First and last of something, in seconds since the epoch."""

    first_s: float = float("inf")
    last_s: float = float("-inf")

    def add(self, time_s: float) -> None:
        """Include a moment."""
        self.first_s, self.last_s = min(self.first_s, time_s), max(self.last_s, time_s)

    @property
    def seconds(self) -> float:
        """0 before anything."""
        return max(0.0, self.last_s - self.first_s)


@dataclass
class TopicSeen:
    """What one source read on one topic.

    Attributes:
        messages: live ones; retained: what the broker had kept, seeds included.
        lags: arrival minus its own timestamp; said, came: from the first to the last of both.
        arrivals: of live messages. values: by feature index, contract units.
        missing: values that were null, unusable or not good.
        codes, contexts: texts of label and context that the map doesn't know.
    """

    source: BoundSource
    topic: str
    instance: str
    messages: int = 0
    retained: int = 0
    repeated: int = 0
    gaps: Gaps = field(default_factory=Gaps)
    lags: Thinned = field(default_factory=Thinned)
    said: Span = field(default_factory=Span)
    came: Span = field(default_factory=Span)
    arrivals: Thinned = field(default_factory=Thinned)
    values: dict[int, Thinned] = field(default_factory=dict)
    missing: Counter[int] = field(default_factory=Counter)
    labels: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    contexts: Counter[str] = field(default_factory=Counter)
    recent: OrderedDict[int, None] = field(default_factory=OrderedDict)


class Survey:
    """Listens to one plant.

    Attributes:
        topics: by source number and topic. samples, labels: that would have become of the messages; matched: samples
            whose label came. problems: by topic and code; details: the first of each. events: of live messages.
    """

    def __init__(self, bound_map: BoundMap, contract: Contract) -> None:
        self.map = bound_map
        self.contract = contract
        self.topics: dict[tuple[str, str], TopicSeen] = {}
        self.problems: dict[str, Counter[str]] = {}
        self.details: dict[tuple[str, str], str] = {}
        self.samples: Counter[str] = Counter()
        self.labels = 0
        self.messages = 0
        self.bytes = 0
        self.events = Span()
        self._sampled: dict[tuple[str, str], None] = {}
        self._labelled: dict[tuple[str, str], None] = {}
        self._ingest = Ingest(bound_map, contract, tap=self._understood)
        self._heard = Heard(0.0, "", b"")

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return self._ingest.filters

    @property
    def counters(self) -> Counter[str]:
        """How often each problem happened."""
        return self._ingest.counters

    @property
    def matched(self) -> int:
        """Samples whose label came."""
        return len(self._sampled.keys() & self._labelled.keys())

    @property
    def instances(self) -> tuple[str, ...]:
        """Paths of the instances that were heard of."""
        return self._ingest.instances

    def hear(self, heard: Heard) -> None:
        """Take one message."""
        self._heard = heard
        self.messages += 1
        self.bytes += len(heard.payload)
        for effect in self._ingest.feed(heard.topic, heard.payload, retain=heard.retain, arrival_s=heard.time_s):
            if isinstance(effect, SampleReady):
                self.samples[effect.instance] += 1
                _remember(self._sampled, (effect.instance, effect.key))
            elif isinstance(effect, LabelSet):
                self.labels += 1
                _remember(self._labelled, (effect.instance, effect.key))
            elif isinstance(effect, Problem):
                self.problems.setdefault(effect.topic, Counter())[effect.code] += 1
                self.details.setdefault((effect.topic, effect.code), effect.detail)

    def _understood(self, said: Understood) -> None:
        heard, topic = self._heard, _of_all_kinds(said.topic)
        seen = self.topics.get((said.source.place, topic))
        if seen is None:
            captures = said.source.pattern.match(topic) or {}
            seen = TopicSeen(said.source, topic, self.map.instance_path(captures))
            self.topics[said.source.place, topic] = seen
        if heard.retain or said.seed:
            seen.retained += 1
        else:
            self._live(seen, said, heard)
        for index, value in said.values.items():
            if value == value:
                seen.values.setdefault(index, Thinned()).add(value)
            else:
                seen.missing[index] += 1

    def _live(self, seen: TopicSeen, said: Understood, heard: Heard) -> None:
        seen.messages += 1
        seen.arrivals.add(heard.time_s)
        has_time = said.said_s is not None and said.source.clock is not Clock.ARRIVAL
        if said.said_s is not None and has_time:
            seen.lags.add(heard.time_s - said.said_s)
            seen.said.add(said.said_s)
            seen.came.add(heard.time_s)
            seen.repeated += _is_repeated(seen, hash(heard.payload))
        event_s = said.said_s if said.said_s is not None and has_time else heard.time_s
        self.events.add(event_s)
        seen.gaps.add(event_s)
        self._words(seen, said)

    def _words(self, seen: TopicSeen, said: Understood) -> None:
        label, context = said.source.label, said.source.context
        if label is not None and said.good:
            code = read_text(said.fields.get(label.field))
            if code is not None:
                seen.labels += 1
                if code not in label.codes:
                    count(seen.codes, code, MAX_CODES)
        if context is not None and said.good:
            value = read_text(said.fields.get(context.field))
            if value is not None and value not in context.slots:
                count(seen.contexts, value, MAX_CODES)


def _of_all_kinds(topic: str) -> str:
    """Births and data of one Sparkplug device are one topic to people."""
    segments = topic.split("/")
    return "/".join([*segments[:2], "+", *segments[3:]]) if segments[0] == NAMESPACE else topic


def _remember(known: dict[tuple[str, str], None], key: tuple[str, str]) -> None:
    if len(known) < MAX_KEYS:
        known[key] = None


def _is_repeated(seen: TopicSeen, digest: int) -> bool:
    if digest in seen.recent:
        return True
    seen.recent[digest] = None
    if len(seen.recent) > RECENT:
        seen.recent.popitem(last=False)
    return False
