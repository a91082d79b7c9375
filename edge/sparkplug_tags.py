"""The metrics of an edge node and its devices: what each last said, and what of it is news. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edge.leaves import ValueKind
from uns_topics.sparkplug import QUALITY, UNIT, DataType, Metric, Value

BAD, GOOD, STALE = 0, 192, 500
"""All the qualities that Sparkplug has (tck-id-payloads-propertyset-quality-value-value)."""

DATATYPES = {
    ValueKind.FLOAT: DataType.DOUBLE,
    ValueKind.INTEGER: DataType.INT32,
    ValueKind.BOOLEAN: DataType.BOOLEAN,
    ValueKind.TEXT: DataType.STRING,
}
"""Of a leaf's values. Not UInt32, which a common JavaScript decoder reads as null where it is an `int_value`."""


def sparkplug_quality(code: int) -> int:
    """One of Sparkplug's three for a leaf's quality code.

    192-255 is good (203 is good and late), 516 stale. Everything else is bad, 256 too: there is no uncertain, and who
    takes an uncertain value for a good one acts on it. The metric `quality` has the code itself.
    """
    if 192 <= code < 256:
        return GOOD
    return STALE if code == 516 else BAD


@dataclass(slots=True)
class Tag:
    """One metric as it was last said.

    Attributes:
        alias: None where it has none. quality: None where the metric has no such property.
        time_ms: when the value held. unit: '' for none.
    """

    name: str
    datatype: DataType
    alias: int | None = None
    unit: str = ""
    quality: int | None = None
    value: Value = None
    time_ms: int = 0

    def take(self, value: Value, quality: int | None, time_ms: int) -> bool:
        """Keep what is said now. Returns: it is news."""
        is_news = (type(value), value, quality) != (type(self.value), self.value, self.quality)
        self.value, self.quality, self.time_ms = value, quality, time_ms
        return is_news

    def birth(self) -> Metric:
        """Everything that there is to know of it."""
        properties: dict[str, Value] = {} if self.quality is None else {QUALITY: self.quality}
        if self.unit:
            properties[UNIT] = self.unit
        return Metric(self.name, self.alias, self.time_ms, self.datatype, self.value, properties=properties)

    def data(self, *, historical: bool = False) -> Metric:
        """Its value: by alias alone where it has one, else by name and with its datatype."""
        return self.said(self.value, self.quality, self.time_ms, historical=historical)

    def said(self, value: Value, quality: int | None, time_ms: int, *, historical: bool = False) -> Metric:
        """A value of this metric that isn't kept."""
        properties: dict[str, Value] = {} if quality is None else {QUALITY: quality}
        if self.alias is not None:
            return Metric(None, self.alias, time_ms, None, value, historical, properties)
        return Metric(self.name, None, time_ms, self.datatype, value, historical, properties)
