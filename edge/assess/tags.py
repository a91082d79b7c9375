"""Every tag that a broker speaks of: per topic its form, per field its numbers and texts. Pure and bounded.

No signal map is known here: what a message is, is found out from what it looks like.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edge.assess.recording import Heard
from edge.assess.survey import Gaps, Thinned, count
from edge.dialects import (
    MAX_PAYLOAD_BYTES,
    VALUE,
    Form,
    Refusal,
    TimestampFormat,
    epoch_format,
    read_scalar,
    read_text,
    read_timestamp,
)
from edge.sparkplug import Nodes
from uns_topics.filters import validate_topic
from uns_topics.sparkplug import BIRTHS, NAMESPACE, UNIT, MessageType, SparkplugError, SparkplugTopic, decode_payload

MAX_TOPICS = 5000
MAX_FIELDS = 300
"""Fields of one topic."""
MAX_TEXTS = 400
"""Distinct texts kept of a field."""
_TIMES = (
    *("timestamp_ms", "timestamp", "ts", "time", "t", "datetime", "time_stamp", "event_time", "zeit", "date", "utc"),
)
_VALUES = (VALUE, "v", "val", "wert", "valeur", "valor")
_QUALITIES = ("quality", "q", "status", "qualitycode", "quality_code")
_UNITS = ("unit", "units", "engunit", "uom", "einheit")


@dataclass
class TagSeen:
    """One field of one topic. `unit`: what its birth or its message says, "" where nothing does."""

    field: str
    count: int = 0
    numbers: Thinned = dataclasses.field(default_factory=Thinned)
    texts: Counter[str] = dataclasses.field(default_factory=Counter)
    unit: str | None = None

    def add(self, value: Any) -> None:
        """One more value."""
        self.count += 1
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30:
            self.numbers.add(float(value))
        text = read_text(value)
        if text is not None:
            count(self.texts, text, MAX_TEXTS)

    @property
    def is_numeric(self) -> bool:
        """Nearly all of its values are numbers."""
        return len(self.numbers) > 0 and len(self.numbers) >= 0.8 * self.count


@dataclass
class TopicTags:
    """One topic. Sparkplug: of a node or device, its message type `+`.

    Attributes:
        form: how it writes. keys: names of value, quality and timestamp in it. stamp: how its timestamp is written;
            None without a usable one.
    """

    topic: str
    form: Form
    messages: int = 0
    fields: dict[str, TagSeen] = dataclasses.field(default_factory=dict)
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    stamp: TimestampFormat | None = None
    gaps: Gaps = dataclasses.field(default_factory=Gaps)

    def tag(self, name: str) -> TagSeen | None:
        """A field, new where it wasn't heard of; None where there are too many."""
        known = self.fields.get(name)
        if known is None and len(self.fields) < MAX_FIELDS:
            known = self.fields[name] = TagSeen(name)
        return known


class Tags:
    """What a broker says, topic by topic."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicTags] = {}
        self.skipped = 0
        """Messages that are no tags: binary, lists, our own, or of topics beyond the limit."""
        self.unborn = 0
        """Sparkplug data that came before a birth: nothing says what their metrics are called."""
        self._nodes = Nodes()

    def hear(self, heard: Heard) -> None:
        """Take one message."""
        topic = heard.topic
        if topic.startswith(("$", "fl/v1/")) or "/_inference/" in topic or not heard.payload:
            return
        if topic.startswith(f"{NAMESPACE}/"):
            self._sparkplug(heard)
        else:
            self._plain(heard)

    def _topic(self, topic: str, form: Form) -> TopicTags | None:
        known = self.topics.get(topic)
        if known is None and len(self.topics) < MAX_TOPICS:
            known = self.topics[topic] = TopicTags(topic, form)
        return known

    def _plain(self, heard: Heard) -> None:
        content = _content(heard.payload)
        if content is None:
            self.skipped += 1
            return
        if heard.topic not in self.topics and not _is_topic(heard.topic):
            self.skipped += 1
            return
        is_object = isinstance(content, dict)
        seen = self._topic(heard.topic, _form_of(content) if is_object else Form.SCALAR)
        if seen is None or is_object == (seen.form is Form.SCALAR):
            self.skipped += 1
            return
        seen.messages += 1
        if not heard.retain:
            seen.gaps.add(heard.time_s)
        if not is_object:
            _add(seen, VALUE, content)
            return
        if seen.form in (Form.VQT, Form.UMH) and _form_of(content) is Form.FLAT:
            seen.form = Form.FLAT
            seen.keys.pop("value", None)
        _learn_keys(seen, content)
        for name, value in _flattened(content):
            if name not in (seen.keys.get("timestamp"), seen.keys.get("quality")):
                _add(seen, name, value)
        unit = next((content[name] for name in content if name.lower() in _UNITS), None)
        if seen.form is not Form.FLAT and isinstance(unit, str):
            _set_unit(seen, seen.keys.get("value", VALUE), unit)

    def _sparkplug(self, heard: Heard) -> None:
        topic = SparkplugTopic.parse(heard.topic)
        if topic is None or topic.kind is MessageType.NCMD:
            return
        said = self._nodes.hear(topic, heard.payload, retain=heard.retain, now_s=heard.time_s)
        self.unborn += said.counted["no-birth"]
        for update in said.updates:
            device = [update.device] if update.device is not None else []
            seen = self._topic("/".join([NAMESPACE, topic.group, "+", topic.node, *device]), Form.SPARKPLUG)
            if seen is None:
                self.skipped += 1
                continue
            seen.messages += 1
            for name, value in update.values.items():
                if value is not None and not name.startswith(("Node Control/", "Device Control/")) and name != "bdSeq":
                    _add(seen, name, value)
        if topic.kind in BIRTHS:
            self._units(topic, heard.payload)

    def _units(self, topic: SparkplugTopic, raw: bytes) -> None:
        device = [topic.device] if topic.device is not None else []
        seen = self.topics.get("/".join([NAMESPACE, topic.group, "+", topic.node, *device]))
        if seen is None:
            return
        try:
            metrics = decode_payload(raw).metrics
        except SparkplugError:
            return
        for metric in metrics:
            unit = metric.properties.get(UNIT)
            if metric.name is not None and isinstance(unit, str):
                _set_unit(seen, metric.name, unit)


def _is_topic(text: str) -> bool:
    """No broker says anything else; a recording may."""
    try:
        validate_topic(text)
    except ValueError:
        return False
    return True


def _content(payload: bytes) -> Any:
    """An object, a number, a truth value or a text; None for anything else."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return None
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        return None
    if text.startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None
    if not text or text.startswith(("[", "<")) or len(text) > 256 or not text.isprintable():
        return None
    return read_scalar(text)


def _form_of(content: dict[str, Any]) -> Form:
    lowered = {name.lower() for name in content}
    if lowered == {"timestamp_ms", VALUE}:
        return Form.UMH
    values = [name for name in content if name.lower() in _VALUES]
    others = lowered - set(_VALUES) - set(_TIMES) - set(_QUALITIES) - set(_UNITS)
    return Form.VQT if len(values) == 1 and not others else Form.FLAT


def _learn_keys(seen: TopicTags, content: dict[str, Any]) -> None:
    if "timestamp" not in seen.keys:
        for wanted in _TIMES:
            name = next((name for name in content if name.lower() == wanted), None)
            stamp = _stamp_of(content[name]) if name is not None else None
            if name is not None and stamp is not None:
                seen.keys["timestamp"], seen.stamp = name, stamp
                break
    if "quality" not in seen.keys:
        qualities = _QUALITIES if seen.form is Form.VQT else _QUALITIES[:1]
        quality = next((name for name in content if name.lower() in qualities), None)
        if quality is not None:
            seen.keys["quality"] = quality
    if seen.form is Form.VQT and "value" not in seen.keys:
        seen.keys["value"] = next(name for name in content if name.lower() in _VALUES)


def _stamp_of(value: Any) -> TimestampFormat | None:
    if isinstance(value, str):
        return None if isinstance(read_timestamp(value, TimestampFormat.ISO8601), Refusal) else TimestampFormat.ISO8601
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1e8:
        return None
    return epoch_format(value)


def _flattened(content: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Fields by path, as a signal map names nested ones."""
    for name, value in content.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            if depth < 4:
                yield from _flattened(value, f"{path}.", depth + 1)
        elif not isinstance(value, list):
            yield path, value


def _add(seen: TopicTags, name: str, value: Any) -> None:
    tag = seen.tag(name)
    if tag is not None and len(name) <= 256:
        tag.add(value)


def _set_unit(seen: TopicTags, name: str, unit: str) -> None:
    tag = seen.tag(name)
    if tag is not None and len(unit) <= 32:
        tag.unit = unit
