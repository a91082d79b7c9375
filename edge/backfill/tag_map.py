"""Which topic and field of the signal map a historian's tag stands for. Pure.

A tag that is a topic of the map needs no file, nor does one that is a topic, a slash and a field such as
`.../spi/volume_pct`; for all others a person writes a tag map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic import Field

from edge.binding import BoundMap, BoundSource
from edge.dialects import Form
from uns_topics.model import FileValue
from uns_topics.sparkplug import NAMESPACE, MessageType


class TimeColumn(FileValue):
    """Where the timestamps stand and how they are written."""

    column: str | None = Field(default=None, description="its name; default: the first that looks like one")
    format: str | None = Field(
        default=None, description="s, ms, us, ns, iso8601, or a pattern such as '%d.%m.%Y %H:%M:%S'; default: found out"
    )
    zone: str | None = Field(default=None, description="of timestamps that name none: UTC, Europe/Berlin")


class LongColumns(FileValue):
    """A file with one reading per row."""

    tag: str
    value: str
    quality: str | None = None


class TagTarget(FileValue):
    """What one tag stands for."""

    topic: str = Field(description="of the plant, as the signal map's topics cover it")
    field: str | None = Field(default=None, description="JSON key or metric name; not for umh, vqt and scalar")
    quality: str | None = Field(default=None, description="wide files: the column with this tag's quality")


class TagMap(FileValue):
    """`--map tags.yaml`: how an export is read."""

    tag_map: int = Field(default=1, ge=1, le=1)
    time: TimeColumn = TimeColumn()
    long: LongColumns | None = Field(
        default=None, description="columns of a file with one reading per row; default: found out from the header"
    )
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="of a CSV file")
    encoding: str = Field(default="utf-8-sig", description="of a CSV file; exports of older tools are often cp1252")
    tags: dict[str, str | TagTarget] = Field(
        default_factory=dict, max_length=100_000, description="tag -> topic, or topic and field"
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Where the readings of a tag go.

    Attributes:
        field: None: the reading is a whole message, as a broker's log has it.
        is_number: the field is read as a number; texts such as keys and codes are taken as they stand.
        is_only: the topic has no other field, so that a log of the broker may hold its whole message instead.
        rank: at one moment tags come before what joins them, labels and ends of runs last.
    """

    topic: str
    field: str | None
    is_number: bool
    rank: int
    is_only: bool = False


class Resolver:
    """Finds the target of each tag, once."""

    def __init__(self, bound_map: BoundMap, tag_map: TagMap) -> None:
        self._sources = bound_map.sources
        self._tags = tag_map.tags
        self._known: dict[str, Target | None] = {}

    def target(self, tag: str) -> Target | None:
        """Where a tag's readings go; None where the signal map reads nothing of this name."""
        if tag not in self._known:
            if len(self._known) >= _MAX_TAGS:
                return None
            self._known[tag] = self._find(tag)
        return self._known[tag]

    def quality_column(self, tag: str) -> str | None:
        """The column that says a tag's quality, in a wide file."""
        declared = self._tags.get(tag)
        return declared.quality if isinstance(declared, TagTarget) else None

    def _find(self, tag: str) -> Target | None:
        declared = self._tags.get(tag)
        if isinstance(declared, TagTarget) and declared.field is not None:
            return self._field(declared.topic, declared.field)
        text = declared.topic if isinstance(declared, TagTarget) else declared or tag
        whole = self._message(text)
        if whole is not None:
            return whole
        segments = text.split("/")
        for cut in range(len(segments) - 1, 0, -1):
            found = self._field("/".join(segments[:cut]), "/".join(segments[cut:]))
            if found is not None:
                return found
        return None

    def _field(self, topic: str, field: str) -> Target | None:
        topic = _as_data(topic)
        reading = [s for s in self._covering(topic) if field in s.fields]
        return _target(topic, field, reading) if reading else None

    def _message(self, topic: str) -> Target | None:
        """The only value of a topic, or its whole payload where it has many."""
        found = self._covering(topic)
        if not found or any(s.declared.form is Form.SPARKPLUG for s in found):
            return None
        fields = frozenset[str]().union(*(source.fields for source in found))
        if len(fields) != 1 or any(s.declared.form is Form.FLAT for s in found):
            return _target(topic, None, found)
        return replace(_target(topic, min(fields), found), is_only=True)

    def _covering(self, topic: str) -> list[BoundSource]:
        return [source for source in self._sources if source.pattern.match(topic) is not None]


_MAX_TAGS = 100_000


def _target(topic: str, field: str | None, sources: Iterable[BoundSource]) -> Target:
    is_number = any(field in _numbers(source) for source in sources)
    return Target(topic, field, is_number, max(_rank(source) for source in sources))


def _numbers(source: BoundSource) -> set[str | None]:
    end = source.declared.end_of_run
    return {feature.field for feature in source.features} | ({end.remaining} if end is not None else set())


def _rank(source: BoundSource) -> int:
    declared = source.declared
    if declared.key is None:
        return 2 if declared.end_of_run is not None and not source.features else 0
    return 1 if declared.feeds_samples else 2


def _as_data(topic: str) -> str:
    """A Sparkplug topic without its message type, or with another one, means the data of that node or device."""
    segments = topic.split("/")
    if segments[0] != NAMESPACE or len(segments) < 4:
        return topic
    kind = MessageType.NDATA if len(segments) == 4 else MessageType.DDATA
    return "/".join([*segments[:2], kind.value, *segments[3:]])
