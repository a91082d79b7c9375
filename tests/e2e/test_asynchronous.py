"""FedBuff with real processes on real Mosquitto: the slow plant's update goes into a later version."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aggregator.store import Counted, Store, sqlite_url
from tests.aio import run
from tests.e2e import bridged
from tests.e2e.federation import Federation, federation
from tests.servers import Server, mosquitto
from uns_topics.presence import ParticipantState
from uns_topics.reports import LastUpdate

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

PLANTS = ("berlin", "lyon", "porto")


def is_training(f: Federation, participant: str) -> bool:
    known = f.view.participants.get(participant)
    return known is not None and known.status is not None and known.status.state is ParticipantState.TRAINING


def is_asked(f: Federation, participant: str, round_number: int) -> bool:
    announced = f.view.round
    return announced is not None and announced.round_number == round_number and participant in announced.cohort


def last_update(f: Federation, participant: str) -> LastUpdate | None:
    known = f.view.participants.get(participant)
    return known.last_update if known is not None else None


@pytest.mark.parametrize("is_bridged", [False, True], ids=["one broker", "behind a bridge"])
def test_a_slow_plants_update_goes_into_a_later_version(
    tmp_path: Path, base_model: Path, broker: Server, is_bridged: bool
) -> None:
    gates = {plant: tmp_path / f"{plant}-gate" for plant in PLANTS}

    async def release(plant: str) -> None:
        """Its trainer, which is reading, goes on."""
        await asyncio.to_thread(gates[plant].write_bytes, b"")

    async def main() -> None:
        # Whoever isn't ready when the round opens is asked as well when its deadline passes below quorum.
        tolerances = {"max_staleness": 2, "min_new_samples": 1, "deadline_s": 5.0, "attempts": 10}
        tolerances |= {"promotion_margin": 100.0, "site_limit": 100.0}
        async with AsyncExitStack() as stack:
            f = await stack.enter_async_context(federation(tmp_path, broker, tolerances=tolerances))
            urls = dict.fromkeys(PLANTS, broker.url)
            if is_bridged:
                own = stack.enter_context(mosquitto())
                urls["porto"] = own.url
                await stack.enter_async_context(bridged.plant(f, "porto", own))
                await bridged.start_bridge(f, "gate", own.url, broker.url, ("porto",))
            for plant, gate in gates.items():
                os.mkfifo(gate)
                waiting = [sys.executable, "-m", "tests.support.waiting_trainer", str(gate)]
                await f.start_edge(plant, trainer={"command": waiting}, broker={"url": urls[plant]})
                await f.listening(plant)
                await f.publish_boards(plant, 150)
            await f.start_aggregator(base_model, strategy={"name": "fedbuff", "options": {"buffer": 2}})
            await f.until(lambda: all(is_training(f, plant) for plant in PLANTS), "all three train")
            for plant in ("berlin", "lyon"):
                await release(plant)
            await f.until(lambda: f.summary(1), "the first round without porto")
            await f.publish_boards("berlin", 30)
            await f.until(lambda: is_asked(f, "berlin", 2), "berlin is asked again")
            await release("berlin")
            await f.until(
                lambda: (said := last_update(f, "berlin")) is not None and said.round_number == 2, "berlin goes on"
            )
            assert is_training(f, "porto")
            assert f.summary(2) is None
            await release("porto")
            await f.until(lambda: f.rests, "the second round with porto's first update")
            await f.until(lambda: last_update(f, "porto"), "porto's report")
            current, second, said = f.view.current, f.summary(2), last_update(f, "porto")
            assert current is not None
            assert second is not None
            assert said is not None
            assert (current.version, current.lineage.parent, current.lineage.contributors) == (3, 2, 2)
            accepted = [p.participant for p in second.participants if p.outcome == "accepted"]
            assert accepted == ["berlin", "porto"]
            assert (said.round_number, said.result) == (1, "accepted")
            command = ["model", "replay", "3", "--config", str(tmp_path / "aggregator.yaml"), "--json"]
            ran = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "headgate", *command], capture_output=True, text=True, timeout=60
            )
            assert ran.returncode == 0, ran.stderr
            assert json.loads(ran.stdout)["agrees"]
            for name in list(f.services):
                assert await f.stop(name) == 0
            store = Store(sqlite_url(tmp_path / "aggregator"))
            berlin, porto = store.counted(2)
            store.close()
            assert (berlin.participant, berlin.round_number, berlin.staleness) == ("berlin", 2, 0)
            assert porto == Counted("porto", 1, said.num_examples, 1)

    run(main(), timeout_s=140)
