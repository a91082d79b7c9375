"""Real processes that die by kill -9: an aggregator in every phase of a round, a broker with all that it held."""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from aggregator import tables
from aggregator.config import AggregatorConfig
from aggregator.replay import replay
from aggregator.state import Phase
from aggregator.store import Store, StoreError, sqlite_url
from broker_bridge.settings import load
from tests.aio import run
from tests.e2e.federation import Federation, federation
from tests.servers import Server, free_port, mosquitto

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(600)]

PHASES = (Phase.OPEN, Phase.COLLECTING, Phase.AGGREGATING, Phase.COMMITTED, Phase.PUBLISHING, Phase.EVALUATING)
"""Waiting is none that is ever stored here: the end of a round opens the next one in the same step."""
EDGE_DEATHS = (
    ("edge.updates:Updates.pack", "before"),
    ("edge.outbox:Outbox.send", "before"),
    ("edge.outbox:Outbox.send", "after"),
    ("broker_bridge.upload:Upload._send", "after"),
    ("edge.outbox:Outbox.settle", "before"),
    ("edge.outbox:Outbox.settle", "after"),
    ("edge.models:ModelStore.save", "before"),
    ("edge.models:ModelStore.save", "after"),
    ("edge.models:ModelStore.mark_served", "before"),
    ("edge.models:ModelStore.mark_served", "after"),
)
KILLED = -signal.SIGKILL
BROKER_DEATHS = 5
LENIENT = {"promotion_margin": 100.0, "site_limit": 100.0}


def test_an_aggregator_killed_in_every_phase_finishes_its_rounds_with_the_same_models(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    """Each phase before and behind the commit that enters it: twelve deaths of one federation."""
    deaths = [(phase, when) for phase in PHASES for when in ("before", "after")]

    async def main() -> None:
        async with federation(tmp_path, broker, tolerances={"rounds": len(deaths) + 1, **LENIENT}) as f:
            for participant in ("berlin", "lyon"):
                await f.start_edge(participant)
                await f.listening(participant)
                await f.publish_boards(participant, 150)
            path = f.write("aggregator.yaml", config_of(f, base_model))
            for phase, when in deaths:
                service = await f.start(
                    "aggregator", phase.value, when, "--config", str(path), module="tests.support.dying_aggregator"
                )
                async with asyncio.timeout(60):
                    assert await service.process.wait() == KILLED, service.tail()
            await f.start("aggregator", "aggregator", "--config", str(path))
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            for participant in ("berlin", "lyon"):
                await f.until(
                    lambda p=participant: f.view.current and f.serves(p, f.view.current.version),  # type: ignore[misc]
                    f"{participant} serves the last version",
                )
            assert await f.stop("aggregator") == 0
            check(f, load(AggregatorConfig, path))

    run(main(), timeout_s=580)


def test_an_edge_killed_anywhere_counts_once_and_serves_whole_models(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    """berlin dies behind its training, at its outbox, behind an upload, at a receipt, and at a swap of the model."""

    async def main() -> None:
        async with federation(tmp_path, broker, tolerances={"rounds": 200, **LENIENT}) as f:
            config = f.write_edge("berlin")
            await f.start_edge("lyon")
            await f.start("berlin", "edge", "--config", str(config))
            for participant in ("berlin", "lyon"):
                await f.listening(participant)
                await f.publish_boards(participant, 150)
            path = f.write("aggregator.yaml", config_of(f, base_model))
            await f.start("aggregator", "aggregator", "--config", str(path))
            await f.until(lambda: f.summary(1), "round 1")
            assert await f.stop("berlin", signal.SIGKILL) == KILLED
            for place, when in EDGE_DEATHS:
                service = await f.start(
                    "berlin", place, when, "--config", str(config), module="tests.support.dying_edge"
                )
                async with asyncio.timeout(60):
                    assert await service.process.wait() == KILLED, service.tail()
            await f.start("berlin", "edge", "--config", str(config))
            last = max((one.round_number for one in f.view.history.rounds), default=0) if f.view.history else 0
            await f.until(lambda: f.summary(last + 3), "three rounds more")
            assert await f.stop("aggregator") == 0
            assert await f.stop("berlin") == 0
            check(f, load(AggregatorConfig, path))

    run(main(), timeout_s=580)


def test_a_broker_killed_with_all_that_it_held_loses_no_update_and_repeats_none(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    """Five times at random, in the middle of rounds; it comes back empty, on the same port."""
    rng = random.Random(7)

    async def main() -> None:
        with ExitStack() as stack:
            port = free_port()
            own = stack.enter_context(mosquitto(port=port))
            async with federation(tmp_path, broker, tolerances={"rounds": 40, **LENIENT}) as f:
                fl = {"broker": {"url": own.url}, "plant_broker": {"url": broker.url}}
                for participant in ("berlin", "lyon"):
                    await f.start_edge(participant, **fl)
                    await f.listening(participant)
                    await f.publish_boards(participant, 150)
                path = f.write("aggregator.yaml", {**config_of(f, base_model), "broker": {"url": own.url}})
                await f.start("aggregator", "aggregator", "--config", str(path))
                config = load(AggregatorConfig, path)
                for _ in range(BROKER_DEATHS):
                    await until_rounds(config, len(ended(config)) + 1)
                    await asyncio.sleep(rng.uniform(0.0, 0.5))  # anywhere in the next round
                    own.kill()
                    stack.close()
                    own = stack.enter_context(mosquitto(port=port))
                await until_rounds(config, len(ended(config)) + 2)
                assert await f.stop("aggregator") == 0
                for participant in ("berlin", "lyon"):
                    assert await f.stop(participant) == 0
                check(f, config)

    run(main(), timeout_s=580)


def config_of(f: Federation, model: Path) -> dict[str, object]:
    tolerances = {"quorum": 2, "deadline_s": 20.0, "bootstrap_s": 5.0, "min_new_samples": 0, "grace_s": 5.0}
    return {
        "federation": "solder-defect",
        "model": str(model),
        "data_dir": "aggregator",
        "broker": f.broker(),
        "training": {"steps": 20, "batch_size": 32},
        "tolerances": {**tolerances, **f.tolerances},
        "heartbeat_s": 0.5,
        "keep_rounds": 100,
    }


def ended(config: AggregatorConfig) -> list[int]:
    """Numbers of the rounds that are over, from the store of a running aggregator."""
    try:
        store = Store(sqlite_url(config.data_dir))
    except StoreError:  # it is being made
        return []
    try:
        return [summary.round_number for summary in store.history(1000)]
    finally:
        store.close()


async def until_rounds(config: AggregatorConfig, count: int) -> None:
    """Until so many rounds are over. There is no message to wait for: the broker that would bring it dies."""
    async with asyncio.timeout(120):
        while len(await asyncio.to_thread(ended, config)) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.1)


def check(f: Federation, config: AggregatorConfig) -> None:
    """What was receipted is in the model once; every version is what its updates make."""
    store = Store(sqlite_url(config.data_dir))
    rounds = store.history(1000)
    counted = {
        one.round_number: Counter(update.participant for update in store.counted(one.round_number)) for one in rounds
    }
    made = [summary.version for summary in rounds if summary.version is not None]
    with store._transaction() as connection:
        accepted = connection.execute(
            select(tables.receipts.c.participant, tables.receipts.c.round_number).where(
                tables.receipts.c.result == "accepted"
            )
        ).all()
    store.close()
    assert [summary.round_number for summary in rounds] == list(range(1, len(rounds) + 1))
    assert made
    assert len(set(made)) == len(made)
    for participants in counted.values():
        assert all(count == 1 for count in participants.values())
    receipted = Counter((row.participant, row.round_number) for row in accepted)
    assert set(receipted.values()) == {1}
    for name in ("berlin", "lyon"):
        log = (f.folder / f"{name}.log").read_text()
        assert "Traceback" not in log, log
        heard = {int(number) for number in re.findall(r"round (\d+): update accepted", log)}
        assert heard <= {number for participant, number in receipted if participant == name}
        assert heard
    for summary in rounds:
        outcomes = {one.participant for one in summary.participants if one.outcome == "accepted"}
        assert outcomes == set(counted[summary.round_number])
    for version in made:
        assert replay(config, version).agrees, version
    assert "Traceback" not in (f.folder / "aggregator.log").read_text()
