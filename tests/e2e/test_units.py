"""One of three plants sends degF where degC is declared: it warns by itself, and the others can see it apart."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.aio import run
from tests.e2e.federation import CONTRACT, FEDERATION, Federation, federation, signal_map
from tests.e2e.models import make_base_model
from tests.servers import Server
from uns_topics.codes import QualityCheck
from uns_topics.envelope import MAX_JSON_BYTES
from uns_topics.reports import QualityFinding
from uns_topics.topics import FlTopic, Kind

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

PLANTS = ("berlin", "gdansk", "lyon")
WRONG = "gdansk"
AMBIENT = {"name": "ambient", "unit": "degC", "minimum": 0, "maximum": 150}
WITH_AMBIENT = {**CONTRACT, "features": [*CONTRACT["features"], AMBIENT]}


def map_of(participant: str) -> dict[str, Any]:
    """Every plant's map says degC."""
    mapped = signal_map(participant)
    mapped["sources"][0]["features"].append({"feature": "ambient", "field": "ambient", "unit": "degC"})
    return mapped


async def publish_boards(f: Federation, participant: str, count: int) -> None:
    assert f.session is not None
    first = f.boards.get(participant, 0)
    dice = random.Random(f"{participant} {first}")
    for index in range(first, first + count):
        stamp = 1_700_000_000_000 + index * 30_000
        is_bad = index % 10 == 3
        ambient = dice.gauss(25.0, 1.5)
        spi = {
            "timestamp_ms": stamp,
            "board": f"B{index}",
            "volume": (150.0 if is_bad else 95.0) + dice.gauss(0, 3),
            "height": 110.0 + dice.gauss(0, 2),
            "ambient": ambient * 1.8 + 32.0 if participant == WRONG else ambient,
        }
        aoi = {"timestamp_ms": stamp + 5000, "board": f"B{index}", "verdict": "BRIDGE" if is_bad else "OK"}
        for leaf, body in (("spi", spi), ("aoi", aoi)):
            await f.session.publish(f"acme/{participant}/smt/line1/{leaf}", json.dumps(body).encode())
    f.boards[participant] = first + count


def unit_findings(f: Federation, participant: str) -> list[QualityFinding]:
    known = f.view.participants.get(participant)
    quality = known.quality if known is not None else None
    return [one for one in quality.findings if one.check is QualityCheck.UNITS] if quality is not None else []


def test_a_plant_in_another_unit_warns_and_stands_apart(tmp_path: Path, broker: Server) -> None:
    async def main() -> None:
        model = make_base_model(tmp_path, "8", WITH_AMBIENT)
        async with federation(tmp_path, broker, tolerances={"rounds": 1, "quorum": 3}) as f:
            assert f.session is not None
            reference = str(FlTopic(FEDERATION, Kind.REFERENCE))
            await f.session.subscribe(reference)
            for plant in PLANTS:
                path = f.write_edge(plant)
                f.write("contract.yaml", WITH_AMBIENT)
                f.write(f"{plant}/signal-map.yaml", map_of(plant))
                await f.start(plant, "edge", "--config", str(path))
            for plant in PLANTS:
                await f.listening(plant)
                await publish_boards(f, plant, 300)
            await f.start_aggregator(model)
            await f.until(lambda: any(m.topic == reference and m.payload for m in f.messages), "the reference")
            await f.until(lambda: unit_findings(f, WRONG), "the verdict on degF")
            (finding,) = unit_findings(f, WRONG)
            assert (finding.feature, finding.verdict) == ("ambient", "warn")
            assert finding.value == pytest.approx(5 / 9)
            await f.until(lambda: f.rests, "the round")
            assert not any(unit_findings(f, plant) for plant in PLANTS if plant != WRONG)
            sentence = "ambient looks like degF where degC is declared"
            assert sentence in f.services[WRONG].log.read_text()
            assert not any(sentence in f.services[plant].log.read_text() for plant in PLANTS if plant != WRONG)
            assert not any(b"degF" in m.payload for m in f.messages if m.topic.startswith("fl/"))  # it stays there
            told = [m for m in f.messages if m.topic.endswith("/statistics") and m.payload]
            assert {m.topic.split("/")[4] for m in told} == set(PLANTS)
            assert max(len(m.payload) for m in told) < MAX_JSON_BYTES
            _check_sites(tmp_path / "aggregator.yaml")

    run(main(), timeout_s=140)


def _check_sites(config: Path) -> None:
    command = [sys.executable, "-m", "headgate", "sites", "--config", str(config), "--seconds", "1", "--similarity"]
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    whole = json.loads(ended.stdout)
    assert [(site["participant"], site["state"]) for site in whole["sites"]] == [(name, "online") for name in PLANTS]
    assert all(site["rows"] > 100 and 0 <= site["last_seen_s"] < 30 for site in whole["sites"])
    assert {site["participant"]: site["findings"] for site in whole["sites"]}[WRONG] == ["units ambient"]
    assert whole["similarity"]["groups"] == [["berlin", "lyon"], [WRONG]]
    apart = next(pair for pair in whole["similarity"]["pairs"] if pair["sites"] == ["berlin", WRONG])
    assert apart["most_different"]["feature"] == "ambient"
    assert apart["most_different"]["distance"] == pytest.approx(52 / 150, abs=0.02)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0
    assert "gdansk  (like no other)" in ended.stdout
