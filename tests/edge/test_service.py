"""The composition of an edge without brokers: what a disk or a model that fails must not end."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker_bridge.threads import on
from edge.config import EdgeConfig
from edge.known_contract import CONTRACT_KEY
from edge.participation import Counts
from edge.quality import Judgement, Observed, QualityCounters
from edge.service import _Edge
from edge.store import SampleStore
from edge.unit_watch import UnitWatch
from tests.aio import run
from tests.edge.versions import CONTRACT, MAP, plan_of
from uns_topics.codes import Reason
from uns_topics.reports import DataQuality


@asynccontextmanager
async def edge(folder: Path) -> AsyncIterator[_Edge]:
    (folder / "signals.yaml").write_text(
        yaml.safe_dump(MAP.model_dump(mode="json", exclude_unset=True)), encoding="utf-8"
    )
    config: dict[str, Any] = {
        "federation": CONTRACT.federation,
        "participant": "berlin",
        "data_dir": str(folder),
        "broker": {"url": "mqtt://127.0.0.1:1"},
        "signal_map": str(folder / "signals.yaml"),
        "approve": "any",
        "trainer": {"enabled": False},
    }
    made = _Edge(EdgeConfig.model_validate(config))
    try:
        yield made
    finally:
        await made.close()


def full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_plans_contract_counts_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with edge(tmp_path) as made:
            monkeypatch.setattr(SampleStore, "put", full)
            made._on_plan(plan_of())
            assert made._contract_known.is_set()

    run(main())


def test_a_contracts_other_words_count_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reworded = CONTRACT.model_copy(update={"title": "other words"})

    async def main() -> None:
        async with edge(tmp_path) as made:
            made._on_plan(plan_of())
            monkeypatch.setattr(SampleStore, "put", full)
            made._on_plan(plan_of().model_copy(update={"contract": reworded}))
            assert made._contract == reworded

    run(main())


def test_a_plans_contract_outlives_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with edge(tmp_path) as made:
            assert made._contract is None
            made._on_plan(plan_of())
            await on(made._store_thread, lambda: None)  # behind it
        async with edge(tmp_path) as made:
            assert made._contract == plan_of().contract
            made._store.put(CONTRACT_KEY, b'{"of": "another release"}')
        async with edge(tmp_path) as made:
            assert made._contract is None

    run(main())


def test_a_decision_that_fails_is_counted_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Enough(Exception):
        pass

    async def fails() -> None:
        looks.append(1)
        raise MemoryError

    async def sleep(_: float) -> None:
        if len(looks) == 2:
            raise Enough

    async def main() -> None:
        async with edge(tmp_path) as made:
            monkeypatch.setattr(made._workshop.swaps, "release", fails)
            monkeypatch.setattr("edge.service.asyncio.sleep", sleep)
            with pytest.raises(Enough):
                await made._decide_loop()
            assert made._federation.failed["Decide"] == 2

    run(main())


class BadData:
    """A plant whose data hold."""

    def __init__(self) -> None:
        self.quality = QualityCounters(CONTRACT)
        self.units = UnitWatch(CONTRACT)
        self.held = False

    def data_quality(self, samples: int, matured: int, unlabelled: float) -> tuple[DataQuality, Judgement]:
        assert unlabelled == 0
        report, judged = self.quality.report(Observed(), samples, matured)
        return report.model_copy(update={"verdict": "hold"}), judged

    def hold(self, held: bool) -> None:
        self.held = held


def test_the_gate_holds_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with edge(tmp_path) as made:
            plant = BadData()
            monkeypatch.setattr(made, "_plant", plant)
            monkeypatch.setattr(SampleStore, "put", full)
            assert await made._judge(Counts(200, 0, 0, 0)) is Reason.DATA_QUALITY
            assert plant.held

    run(main())
