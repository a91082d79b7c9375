"""Sheets of figures: what Prometheus reads of them, and what never gets into a label."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker_bridge.metrics import OTHER, Sheet, service_registry
from headgate import __version__

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(sheet: Sheet) -> Series:
    """Values by name and labels, as a scrape has them."""
    text = generate_latest(service_registry(lambda: sheet)).decode()
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a series stands once in a scrape"
            found[key] = sample.value
    return found


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset({"participant": "berlin", **given}.items())


@pytest.fixture
def sheet() -> Sheet:
    return Sheet("edge", {"participant": "berlin"})


def test_gauges_and_counters(sheet: Sheet) -> None:
    sheet.gauge("samples", "Samples", 3)
    sheet.gauge("samples", "Samples", 5)
    sheet.gauge("held_version", "Version", None)
    sheet.counter("messages_total", "Messages", 2, code="late")
    sheet.counter("messages_total", "Messages", 3, code="not-finite")
    found = series(sheet)
    assert found["headgate_edge_samples", labels()] == 5
    assert found["headgate_edge_messages_total", labels(code="late")] == 2
    assert found["headgate_edge_messages_total", labels(code="not-finite")] == 3
    assert not any(name.startswith("headgate_edge_held") for name, _ in found)


@pytest.mark.parametrize(
    "value", ["acme/berlin/smt/line1", "a sentence", "", "zürich", "x" * 65, "a\nb", OTHER, "$SYS"]
)
def test_a_label_is_a_slug_or_other(sheet: Sheet, value: str) -> None:
    sheet.counter("messages_total", "Messages", 2, code=value)
    sheet.counter("messages_total", "Messages", 3, code="another/topic")
    assert series(sheet)["headgate_edge_messages_total", labels(code=OTHER)] == 5


def test_a_state_is_one_series_per_option(sheet: Sheet) -> None:
    sheet.one_of("state", "State", "state", ("online", "hold"), "hold")
    found = series(sheet)
    assert found["headgate_edge_state", labels(state="online")] == 0
    assert found["headgate_edge_state", labels(state="hold")] == 1


def test_a_histogram_is_cumulative(sheet: Sheet) -> None:
    sheet.histogram("round_seconds", "Rounds", (1.0, 60.0), (2, 3, 4), 500.0)
    found = series(sheet)
    bucket = "headgate_edge_round_seconds_bucket"
    assert [found[bucket, labels(le=le)] for le in ("1.0", "60.0", "+Inf")] == [2, 5, 9]
    assert found["headgate_edge_round_seconds_count", labels()] == 9
    assert found["headgate_edge_round_seconds_sum", labels()] == 500


def test_process_and_version_come_along(sheet: Sheet) -> None:
    found = series(sheet)
    assert found["headgate_build_info", frozenset({("version", __version__)})] == 1
    assert found["process_resident_memory_bytes", frozenset()] > 1_000_000
    assert found["process_start_time_seconds", frozenset()] > 1_600_000_000


def test_registries_share_nothing(sheet: Sheet) -> None:
    sheet.gauge("samples", "Samples", 1)
    other = Sheet("aggregator", {})
    assert ("headgate_edge_samples", labels()) in series(sheet)
    assert ("headgate_edge_samples", labels()) not in series(other)
