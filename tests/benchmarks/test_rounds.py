"""Round overhead, on a tiny model: ours with its bytes counted, and a real Flower deployment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.flower_rounds import flower_run
from benchmarks.rounds import PLAIN, TERNARY, Overhead, run
from benchmarks.traffic import Traffic, counted
from tests.e2e.models import make_base_model
from tests.servers import mosquitto
from tests.support.fault_proxy import FaultProxy
from tests.support.flower_environment import flower_python


def test_traffic_counts_between_two_times() -> None:
    traffic = Traffic(FaultProxy(1), [(0.0, 0, 0), (1.0, 10, 100), (2.0, 30, 300), (3.0, 60, 600)])
    assert traffic.between(1.5, 3.0) == (50, 500)


@pytest.mark.e2e
@pytest.mark.broker
def test_ours_with_its_bytes_counted(tmp_path: Path) -> None:
    async def measure(folder: Path, **settings: object) -> Overhead:
        with mosquitto() as server:
            async with counted(server.port) as traffic:
                return await run(server, 2, 10, model, folder, traffic=traffic, **settings)

    model = make_base_model(tmp_path, "100,100")
    plain = asyncio.run(measure(tmp_path / "f32", **PLAIN))
    assert 0 < plain.evaluating < plain.whole
    assert min(plain.up, plain.down) > 0.8 * plain.model_bytes  # samples miss what comes just before the end
    small = asyncio.run(measure(tmp_path / "ternary", **TERNARY))
    assert max(small.up, small.down) < plain.model_bytes / 2


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.skipif(flower_python() is None, reason="Flower isn't set up: scripts/setup-flower")
def test_a_flower_deployment() -> None:
    found = asyncio.run(flower_run(2, 1, 10_000, warm_up=0, evaluate=False))
    assert found is not None
    assert len(found.seconds) == 1
    assert found.up > 30_000
    assert found.down > 30_000
