"""Readings out of order: sorted by way of files, few of them open at a time."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.backfill import order
from edge.backfill.order import Survey, in_order
from edge.backfill.readings import Reading


class Backwards:
    """An export that lists the newest reading first, two of each moment."""

    table = SimpleNamespace(path=Path("backwards.csv"), done=0.5)

    def readings(self) -> Iterator[Reading]:
        for number in range(2_000):
            yield Reading(float(-(number // 2)), cast("Any", f"tag {number % 3}"), number, good=True)


def test_more_runs_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "RUN_READINGS", 10)
    monkeypatch.setattr(order, "MAX_OPEN", 8)
    known = Survey(2_000, -999.0, 0.0, in_order=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        found = list(in_order([cast("Any", Backwards())], [known], tmp_path, lambda _: None))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [reading.time_s for reading in found] == [float(number // 2 - 999) for number in range(2_000)]
    assert [reading.value for reading in found[:4]] == [1998, 1999, 1996, 1997]  # at one moment as they came
    assert found[0].target == "tag 0"
