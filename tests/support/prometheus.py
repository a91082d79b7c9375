"""Reading a scrape, and judging its names as `promtool check metrics` would: base units, `_total`, bounded labels."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from broker_bridge.metrics import OTHER, Sheet, service_registry

LABELS = {
    "federation",
    "participant",
    "session",
    "state",
    "reason",
    "variant",
    "code",
    "result",
    "effect",
    "phase",
    "bridge",
    "kind",
}
OTHER_UNITS = (
    "ms|us|ns|milliseconds|microseconds|minutes|hours|days|kb|mb|gb|kib|mib|gib|kilobytes|megabytes|bits|percent|pct|"
    "celsius_degrees|count|sum|bucket"
)
_NAME = re.compile(r"(headgate|process)(_[a-z0-9]+)+")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_VALUES = {"le": re.compile(r"[0-9]+\.[0-9]+|\+Inf"), "version": re.compile(r"\d+\.\d+\.\d+")}


async def fetch(listen: str, path: str) -> tuple[int, str]:
    """Status and body of a page. Args: listen: address and port, as in a configuration."""
    host, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {listen}\r\n\r\n".encode())
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split(b" ")[1]), body.decode()


async def scrape(listen: str) -> Scrape:
    """What Prometheus would read there now."""
    status, text = await fetch(listen, "/metrics")
    assert status == 200
    return Scrape(text)


class Scrape:
    """What a scrape says, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    @classmethod
    def of(cls, sheet: Sheet) -> Scrape:
        return cls(generate_latest(service_registry(lambda: sheet)).decode())

    def all(self, name: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and values of the series of this name that carry these labels."""
        return [(s.labels, s.value) for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The one series of this name that carries these labels."""
        found = self.all(name, **labels)
        assert len(found) == 1, (name, labels, found)
        return found[0][1]

    def actual(self, name: str, label: str) -> str:
        """The option of a state that is 1."""
        found = [labels[label] for labels, value in self.all(name) if value == 1]
        assert len(found) == 1, (name, found)
        return found[0]

    def problems(self) -> list[str]:
        """What is wrong with names, labels and values; empty where nothing is."""
        found = [problem for family in self.families for problem in _problems(family)]
        keys = [(s.name, frozenset(s.labels.items())) for s in self.samples]
        return [*found, *(f"{key} stands twice" for key in set(keys) if keys.count(key) > 1)]


def _problems(family: Metric) -> list[str]:
    found = []
    name = family.name
    if not _NAME.fullmatch(name):
        found.append(f"{name} is not in snake case behind our prefix")
    if not family.documentation:
        found.append(f"{name} has no help")
    if name.endswith("_total") or (family.type == "counter") != all(s.name.endswith("_total") for s in family.samples):
        found.append(f"{name}: _total belongs to counters, and to all of them")
    if re.search(rf"_({OTHER_UNITS})$", name):
        found.append(f"{name} is not in a base unit")
    for unit in ("seconds", "bytes"):
        if unit in name.split("_") and not name.endswith(f"_{unit}"):
            found.append(f"{name}: the unit stands last")
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label not in LABELS | set(_VALUES):
                found.append(f"{name}: label {label}")
            elif value != OTHER and not _VALUES.get(label, _SLUG).fullmatch(value):
                found.append(f"{name}: {label}={value!r}")
    if len({frozenset(s.labels) for s in family.samples if not s.name.endswith(("_sum", "_count"))}) > 1:
        found.append(f"{name}: its series differ in their labels")
    return found
