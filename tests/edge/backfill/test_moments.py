"""Timestamps of exports: what is read how, and the rule about time zones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from edge.backfill.moments import MomentError, moment_reader, zone_of

S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("cell", "form", "expected"),
    [
        ("1700000000", None, S),
        ("1700000000.25", None, S + 0.25),
        (1_700_000_000_250, None, S + 0.25),
        ("1700000000250000", None, S + 0.25),
        (1_700_000_000_250_000_000, None, S + 0.25),
        ("1700000000", "ms", 1_700_000.0),
        ("2023-11-14T22:13:20Z", None, S),
        ("2023-11-14 23:13:20.5+01:00", None, S + 0.5),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), None, S),
        (datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))), None, S),
        ("14.11.2023 22:13:20 +0000", "%d.%m.%Y %H:%M:%S %z", S),
    ],
)
def test_what_is_read_without_a_zone(cell: object, form: str | None, expected: float) -> None:
    assert moment_reader(cell, form, None)(cell) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "cell",
    ["2023-11-14 22:13:20", datetime(2023, 11, 14, 22, 13, 20), date(2023, 11, 14)],  # noqa: DTZ001
)
def test_a_time_without_a_zone_is_refused_unless_it_is_said(cell: object) -> None:
    with pytest.raises(MomentError, match="--zone"):
        moment_reader(cell, None, None)
    moment_reader(cell, None, UTC)


def test_a_zone_counts_for_texts_that_name_none() -> None:
    read = moment_reader("2023-11-14 23:13:20", None, zone_of("Europe/Berlin"))
    assert read("2023-11-14 23:13:20") == S
    assert read("2023-11-14 22:13:20+00:00") == S
    assert read("2023-10-29 02:30:00") == 1_698_539_400  # there twice; the first one, in summer time
    assert read("2023-10-29 03:30:00") == 1_698_539_400 + 2 * 3600


def test_what_cannot_be_read_later_is_none() -> None:
    read = moment_reader("1700000000", None, None)
    assert [read(cell) for cell in ("soon", "", None, "nan", "-5", "1e300", True)] == [None] * 7
    read = moment_reader("2023-11-14T22:13:20Z", None, None)
    assert [read(cell) for cell in ("soon", "", None, "2023-13-01T00:00:00Z", "2023-11-14 22:13:20", 7)] == [None] * 6


def test_zones() -> None:
    assert zone_of("utc") is UTC
    for name in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(MomentError, match="no time zone"):
            zone_of(name)
