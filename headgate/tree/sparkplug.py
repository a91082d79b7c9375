"""Sparkplug messages as metrics with names: aliases are looked up in the births that were seen. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from headgate.tree.decode import MAX_TEXT, MAX_UNIT, value_reading
from headgate.tree.reading import Kind, Reading
from headgate.tree.text import size
from uns_topics.sparkplug import (
    BIRTHS,
    DEATHS,
    QUALITY,
    UNIT,
    Metric,
    SparkplugError,
    SparkplugTopic,
    decode_payload,
    typed_value,
)

MAX_SOURCES = 1_000
"""Nodes and devices whose births are remembered; the longest silent one is forgotten first."""
MAX_ALIASES = 50_000
"""Over all of them."""
_GOOD = 192


@dataclass
class _Born:
    """What the last birth of a node or device said of its metrics."""

    names: dict[int, str] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def entries(self) -> int:
        return len(self.names) + len(self.types) + len(self.units)


_NOT_SEEN = _Born()


class Births:
    """The births of nodes and devices, bounded."""

    def __init__(self) -> None:
        self._born: OrderedDict[tuple[str, str, str | None], _Born] = OrderedDict()
        self._entries = 0

    def read(self, topic: SparkplugTopic, payload: bytes) -> Reading:
        """One message with its metrics; a birth is remembered. What can't be read is said by size."""
        try:
            content = decode_payload(payload)
        except SparkplugError as error:
            return Reading(Kind.SPARKPLUG, size(len(payload)), note=error.code)
        key = (topic.group, topic.node, topic.device)
        if topic.kind in DEATHS:
            return Reading(Kind.SPARKPLUG, "death")
        if topic.kind in BIRTHS:
            self._remember(key, content.metrics)
        born = self._born.get(key, _NOT_SEEN)
        metrics = tuple(_metric(metric, born) for metric in content.metrics)
        count = f"{len(metrics)} metric{'' if len(metrics) == 1 else 's'}"
        return Reading(Kind.SPARKPLUG, count, metrics=metrics)

    def _remember(self, key: tuple[str, str, str | None], metrics: tuple[Metric, ...]) -> None:
        born = _Born()
        for metric in metrics:
            if metric.name is None:
                continue
            if metric.alias is not None:
                born.names[metric.alias] = metric.name
            if metric.datatype is not None:
                born.types[metric.name] = metric.datatype
            unit = _unit(metric)
            if unit is not None:
                born.units[metric.name] = unit
        self._entries += born.entries() - self._born.pop(key, _NOT_SEEN).entries()
        self._born[key] = born
        while len(self._born) > MAX_SOURCES or self._entries > MAX_ALIASES:
            _, forgotten = self._born.popitem(last=False)
            self._entries -= forgotten.entries()


def _unit(metric: Metric) -> str | None:
    unit = metric.properties.get(UNIT)
    return unit[:MAX_UNIT] if isinstance(unit, str) and unit else None


def _metric(metric: Metric, born: _Born) -> tuple[str, Reading]:
    name = metric.name
    if name is None and metric.alias is not None:
        name = born.names.get(metric.alias)
    if name is None:
        name = f"alias {metric.alias}" if metric.alias is not None else "without a name"
    unit = _unit(metric) or born.units.get(name)
    quality = metric.properties.get(QUALITY)
    note = "" if quality is None or quality == _GOOD else f"quality {quality}"[:MAX_UNIT]
    if metric.skipped:
        return name, Reading(Kind.SPARKPLUG, "of a kind that is not shown", note=note)
    if metric.value is None:
        return name, Reading(Kind.TEXT, "null", note=note)
    datatype = metric.datatype if metric.datatype is not None else born.types.get(name)
    reading = value_reading(typed_value(metric.value, datatype), unit, note)
    return name, Reading(reading.kind, reading.text[:MAX_TEXT], reading.number, unit, note)
