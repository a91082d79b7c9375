"""Figures of a service in Prometheus' terms: base units, bounded label values, never a topic.

Figures are read from what the service holds when somebody asks, so the code that works doesn't know of them. A `Sheet`
is filled in by a pure function and handed to prometheus_client by a `SheetCollector`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

PREFIX = "headgate_"
OTHER = "_other"
"""Stands for every label value that is none: what isn't a slug, and what comes beyond a bound. No slug begins so."""
_LABEL_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True, slots=True)
class _Figure:
    """One name with all its series, by label values."""

    documentation: str
    is_counter: bool
    label_names: tuple[str, ...]
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def family(self, name: str) -> Metric:
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(name, self.documentation, labels=self.label_names)
        for label_values, value in self.values.items():
            family.add_metric(label_values, value)
        return family


class Sheet:
    """The figures of one moment.

    A label value that is no slug, as a topic or a sentence would be, becomes `OTHER`; counters that fall together
    by that are added up.

    Args:
        part: the service's part of each name: `edge` gives `headgate_edge_...`.
        labels: what every figure of the sheet carries.
    """

    def __init__(self, part: str, labels: Mapping[str, str]) -> None:
        self._prefix = f"{PREFIX}{part}_"
        self._labels = dict(labels)
        self._figures: dict[str, _Figure] = {}
        self._histograms: list[Metric] = []

    def gauge(self, name: str, documentation: str, value: float | None, **labels: str) -> None:
        """What goes up and down. Args: value: None leaves the series out: it is not known."""
        if value is not None:
            figure, key = self._figure(name, documentation, False, labels)
            figure.values[key] = float(value)

    def counter(self, name: str, documentation: str, value: float, **labels: str) -> None:
        """What only grows while the process lives. Args: name: with `_total` at its end."""
        figure, key = self._figure(name, documentation, True, labels)
        figure.values[key] = figure.values.get(key, 0.0) + value

    def one_of(
        self, name: str, documentation: str, label: str, options: Iterable[str], actual: str | None, **labels: str
    ) -> None:
        """A state as one series per option: 1 for the actual one, 0 for the others."""
        for option in options:
            self.gauge(name, documentation, float(option == actual), **labels, **{label: option})

    def histogram(
        self, name: str, documentation: str, bounds: Iterable[float], counts: Iterable[int], total: float
    ) -> None:
        """A distribution. Args: bounds: upper ends; counts: per bucket, one more than bounds; total: sum of all."""
        label_names, label_values = self._labels_with({})
        family = HistogramMetricFamily(self._prefix + name, documentation, labels=label_names)
        ends = [*(str(float(bound)) for bound in bounds), "+Inf"]
        family.add_metric(label_values, list(zip(ends, accumulate(counts), strict=True)), total)
        self._histograms.append(family)

    def families(self) -> Iterator[Metric]:
        """What prometheus_client writes out."""
        for name, figure in self._figures.items():
            yield figure.family(self._prefix + name)
        yield from self._histograms

    def _figure(
        self, name: str, documentation: str, is_counter: bool, labels: Mapping[str, str]
    ) -> tuple[_Figure, tuple[str, ...]]:
        label_names, label_values = self._labels_with(labels)
        figure = self._figures.setdefault(name, _Figure(documentation, is_counter, label_names))
        return figure, label_values

    def _labels_with(self, labels: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        both = {**self._labels, **labels}
        return tuple(both), tuple(map(_label_value, both.values()))


def _label_value(value: str) -> str:
    return value if _LABEL_VALUE.fullmatch(value) else OTHER


class SheetCollector(Collector):
    """Asks the service for its sheet at each scrape. Args: read: quick, called on the event loop."""

    def __init__(self, read: Callable[[], Sheet]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield from self._read().families()


class _BuildCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        documentation = "The installed version of Headgate"
        yield InfoMetricFamily(f"{PREFIX}build", documentation, {"version": _label_value(_version())})


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:  # run from its source
        return "unknown"


def service_registry(read: Callable[[], Sheet]) -> CollectorRegistry:
    """A registry of one service's own: its sheet, its process (`process_...`: memory, CPU, start time), its version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_BuildCollector())
    registry.register(SheetCollector(read))
    return registry
