"""Sparkplug nodes on real Mosquitto feed a real edge: samples, inference, a rebirth on command, a death."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.aio import run
from tests.e2e.federation import FEDERATION, federation, inspected
from tests.e2e.sparkplug_node import VOLUME, sparkplug_node, spi_source
from tests.servers import Server
from uns_topics.sparkplug import REBIRTH, decode_payload

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(120)]

BOARD = {"Board/Serial": "none", "Board/Paste volume": 0.0, "Board/Verdict": "none"}
SIGNAL_MAP: dict[str, Any] = {
    "signal_map": 1,
    "instance": "acme/{plant}/smt/line1",
    "sparkplug": {"host": "headgate-berlin"},
    "sources": [
        spi_source(VOLUME),
        {
            "topic": "spBv1.0/{plant}/+/gauge/height",
            "form": "sparkplug",
            "features": [{"feature": "height", "field": "Height", "unit": "mm", "max_age_s": 1e6}],
        },
    ],
}


def test_nodes_are_read_asked_for_births_and_missed_when_dead(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        start_ms = round(time.time() * 1000) - 200 * 30_000
        async with federation(tmp_path, broker) as f:
            assert f.session is not None
            await f.session.subscribe("spBv1.0/berlin/#", "spBv1.0/STATE/+")
            f.write("berlin/sparkplug.yaml", SIGNAL_MAP)
            home = {"home": "acme/berlin/smt/line1"}
            await f.start_edge("berlin", signal_map="sparkplug.yaml", inference=home)
            await f.listening("berlin")

            def states() -> list[bool]:
                said = [m.payload for m in f.messages if m.topic == "spBv1.0/STATE/headgate-berlin"]
                return [json.loads(payload)["online"] for payload in said]

            await f.until(lambda: states()[-1:] == [True], "the host is online")

            def event_of(key: str) -> dict[str, Any] | None:
                root = f"acme/berlin/smt/line1/_inference/{FEDERATION}/event"
                events = [json.loads(m.payload) for m in f.messages if m.topic == root]
                return next((event for event in events if event["key"] == key), None)

            def heights(key: str) -> float:
                with sqlite3.connect(tmp_path / "berlin/data/samples.sqlite") as db:
                    (found,) = db.execute("SELECT features FROM samples WHERE key = ?", (key,)).fetchall()
                db.close()
                return float(np.frombuffer(found[0], "<f4")[1])

            async with sparkplug_node(broker, "berlin", "line1", "spi", BOARD) as line:
                await line.birth(start_ms)

                async def board(index: int, at_ms: int) -> None:
                    volume, verdict = inspected(index)
                    values = {"Board__Paste volume": volume, "Board__Verdict": verdict}
                    await line.data(at_ms, Board__Serial=f"B{index}", **values)

                async with sparkplug_node(broker, "berlin", "gauge", "height", {"Height": 0.110}) as gauge:
                    await gauge.birth(start_ms)
                    await f.until(lambda: _said(f, "DBIRTH/gauge/height"), "the gauge's birth")
                    for index in range(150):
                        await board(index, start_ms + (index + 1) * 30_000)
                    tolerances = {
                        "rounds": 1,
                        "quorum": 1,
                        "deadline_s": 30.0,
                        "bootstrap_s": 1.0,
                        "min_new_samples": 0,
                    }
                    await f.start_aggregator(base_model, tolerances=tolerances)
                    await f.until(lambda: f.rests, "the only round")
                    assert f.view.current is not None
                    version = f.view.current.version
                    await f.until(lambda: f.serves("berlin", version), f"berlin serves version {version}")
                    await gauge.data(start_ms + 151 * 30_000, Height=0.125)
                    await f.until(lambda: _said(f, "DDATA/gauge/height"), "the gauge's value")
                    await board(150, start_ms + 152 * 30_000)
                    await f.until(lambda: event_of("B150"), "an inference for B150")
                    assert heights("B0") == pytest.approx(110)
                    assert heights("B150") == pytest.approx(125)

                    line.lose_one()
                    await board(151, start_ms + 153 * 30_000)
                    await f.until(lambda: line.births == 2, "the rebirth that the edge asked for")
                    (command,) = [m for m in f.messages if m.topic == "spBv1.0/berlin/NCMD/line1"]
                    assert [metric.name for metric in decode_payload(command.payload).metrics] == [REBIRTH]
                    await f.until(lambda: _said(f, "DBIRTH/line1/spi") == 2, "the second birth")
                    await board(152, start_ms + 154 * 30_000)
                    await f.until(lambda: event_of("B152"), "an inference for B152")
                    assert event_of("B151") is None

                await f.until(lambda: _said(f, "NDEATH/gauge"), "the gauge's death")
                await board(153, round(time.time() * 1000) + 3_600_000)  # taken as now, and that is after the death
                await f.until(lambda: event_of("B153"), "an inference for B153")
                assert np.isnan(heights("B153"))
            log = f.services["berlin"].tail()
            assert await f.stop("berlin") == 0
            await f.until(lambda: not states()[-1], "the host is offline")
            assert "sequence-gap on spBv1.0/berlin/DDATA/line1/spi" in log
            assert "Traceback" not in log

    run(main())


def _said(f: Any, ending: str) -> int:
    kind, _, rest = ending.partition("/")
    return sum(m.topic == f"spBv1.0/berlin/{kind}/{rest}" for m in f.messages)
