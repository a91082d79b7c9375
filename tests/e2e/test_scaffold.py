"""SCAFFOLD with real processes on real Mosquitto: control variates travel both ways and stay in balance."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aggregator.combine import control_of
from aggregator.store import Store, sqlite_url
from edge.models import ModelStore
from edge.outbox import Belonging, Outbox
from edge.store import SampleStore
from tests.aio import run
from tests.e2e.bridged import berlin_behind_a_bridge
from tests.e2e.federation import NUMPY_TRAINER, Federation, federation
from tests.servers import Server
from uns_topics.controls import full_bytes
from uns_topics.plan import Plan
from uns_topics.tensors import Vector, vector_sha256

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

LENIENT = {"promotion_margin": 100.0, "site_limit": 100.0}


def training(population: int) -> dict[str, object]:
    return {
        "strategy": {"name": "scaffold", "options": {"population": population}},
        "training": {"optimizer": "sgd", "steps": 20, "batch_size": 32, "learning_rate": 0.05},
    }


def plan_of(f: Federation) -> Plan:
    assert f.view.plan is not None
    return f.view.plan


def own_control(f: Federation, participant: str, version: int) -> Vector:
    """c_k of an edge that has stopped, as its next round from this version would take it."""
    plan, folder = plan_of(f), f.folder / participant / "data"
    manifest = ModelStore(folder / "models").load(version)[0]
    with SampleStore(folder / "samples.sqlite") as store:
        belongs = Belonging(generation=plan.generation, template=plan.template.sha256)
        return Outbox(store, belongs, plan.template.table).control(version, manifest.lineage)


async def check_the_end(f: Federation, participants: tuple[str, ...]) -> None:
    """Every edge holds the server's c, which is the mean of all c_k, and the version can be made again."""
    current = f.view.current
    assert current is not None
    assert current.full.bytes == full_bytes(plan_of(f).template.table, control=True)
    for participant in participants:
        await f.until(lambda p=participant: f.serves(p, current.version), f"{participant} serves {current.version}")  # type: ignore[misc]
    command = ["model", "replay", str(current.version), "--config", str(f.folder / "aggregator.yaml"), "--json"]
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "headgate", *command], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["agrees"], said["same_state"], said["recorded"]) == (True, True, current.sha256)
    for name in ("aggregator", *participants):
        assert await f.stop(name) == 0
    store = Store(sqlite_url(f.folder / "aggregator"))
    control = control_of(store.strategy_state(current.version))
    store.close()
    assert vector_sha256(control) == current.control
    assert control.any()
    for participant in participants:
        kept = ModelStore(f.folder / participant / "data" / "models").control(current)
        assert kept is not None
        assert kept.tobytes() == control.tobytes()
    mean = np.mean([own_control(f, participant, current.version) for participant in participants], axis=0)
    np.testing.assert_allclose(mean, control, rtol=1e-4, atol=1e-5 * float(np.abs(control).max()))


@pytest.mark.parametrize("trainer", [NUMPY_TRAINER, None], ids=["numpy", "torch"])
def test_two_plants_learn_with_control_variates(
    tmp_path: Path, base_model: Path, broker: Server, trainer: tuple[str, ...] | None
) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker, trainer=trainer, tolerances={"rounds": 3, **LENIENT}) as f:
            for participant in ("berlin", "lyon"):
                await f.start_edge(participant)
                await f.listening(participant)
                await f.publish_boards(participant, 150)
            await f.start_aggregator(base_model, **training(2))
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            assert f.view.history is not None
            assert [r.result for r in f.view.history.rounds] == ["promoted"] * 3
            for summary in f.view.history.rounds:
                assert [p.outcome for p in summary.participants] == ["accepted"] * 2
            await check_the_end(f, ("berlin", "lyon"))

    run(main(), timeout_s=140)


def test_a_late_joiner_gets_the_whole_version_and_others_its_step(
    tmp_path: Path, wide_model: Path, broker: Server
) -> None:
    """berlin is behind a bridge, which passes steps and no whole model from the second round on."""

    async def main() -> None:
        # 150 boards are enough for two rounds at most; every further one waits for more.
        tolerances = {"rounds": 5, "min_new_samples": 60, **LENIENT}
        async with berlin_behind_a_bridge(tmp_path, broker, tolerances=tolerances) as (f, at_berlin):
            await f.start_aggregator(wide_model, encodings=["ternary"], downlink="ternary", **training(3))
            await f.until(lambda: f.summary(1), "round 1", timeout_s=60)
            await f.start_edge("porto")
            await f.listening("porto")
            await f.publish_boards("porto", 150)
            await f.until(lambda: f.view.current is not None and f.serves("porto", f.view.current.version), "porto")
            while not f.rests:
                known = f.view.history
                for participant in ("berlin", "lyon", "porto"):
                    await f.publish_boards(participant, 80)
                await f.until(lambda before=known: f.rests or f.view.history != before, "a round's end")  # type: ignore[misc]
            current, history = f.view.current, f.view.history
            assert current is not None
            assert current.delta is not None
            assert history is not None
            outcomes = {(p.participant, p.outcome) for summary in history.rounds for p in summary.participants}
            assert {("berlin", "accepted"), ("lyon", "accepted"), ("porto", "accepted")} <= outcomes
            await check_the_end(f, ("berlin", "lyon", "porto"))
            retained = at_berlin.retained()
            assert any(f"/down/delta/{current.version}/" in topic for topic in retained)
            assert not any(f"/down/model/{current.version}/" in topic for topic in retained)

    run(main(), timeout_s=140)
