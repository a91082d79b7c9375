"""Every strategy that a plan may name, from `aggregator.yaml` to a version, with its state across a restart."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from aggregator.combine import combine, decode_state, encode_state
from aggregator.config import AggregatorConfig
from aggregator.store import Store, sqlite_url
from aggregator.strategies import STRATEGIES, make_strategy
from aggregator.strategies.base import Strategy
from aggregator.updates import decoded
from aggregator.vectors import VectorFiles
from broker_bridge.memory import MemoryBroker
from tests.aggregator.test_service import history, make_config, running
from tests.aio import run
from tests.support.scripted_participant import ScriptedParticipant
from tests.support.tiny_template import tiny_model, tiny_template
from uns_topics.tensors import Role, vector_sha256

NAMES = ("a", "b", "c", "d", "e")


def configured(folder: Path, name: str, rounds: int) -> AggregatorConfig:
    """As a person writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(tiny_model())
    text = f"""
federation: tiny
model: {folder / "model.onnx"}
data_dir: {folder / "data"}
strategy: {{name: {name}, options: {{}}}}
training: {{optimizer: sgd}}
encodings: [f32]
downlink: null
tolerances: {{quorum: 5, rounds: {rounds}, promotion_margin: 10, site_limit: 10, max_staleness: 1}}
"""
    return AggregatorConfig.model_validate(yaml.safe_load(text))


async def play(folder: Path, name: str, runs: tuple[int, ...]) -> list[str]:
    """SHA-256 of the versions that two rounds made. Args: runs: an aggregator each, up to this many rounds."""
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), p)) for p in NAMES]
        for rounds in runs:
            async with running(broker, configured(folder, name, rounds)):
                for person in people:
                    await person.until(lambda p=person, n=rounds: p.current is not None and p.current.version == n + 1)
                await people[0].until(lambda n=rounds: len(history(broker).rounds) == n)
        assert [r.result for r in history(broker).rounds] == ["promoted"] * runs[-1]
    store = Store(sqlite_url(folder / "data"))
    try:
        check_last_version(store, folder, make_strategy(configured(folder, name, 2).strategy))
        return [sha256 for _, sha256 in sorted(store.newest_versions(4))]
    finally:
        store.close()


def check_last_version(store: Store, folder: Path, strategy: Strategy) -> None:
    """Version 3 is what the stored updates and the state of version 2 make, and no other state does."""
    table, files = tiny_template().table, VectorFiles(folder / "data" / "vectors")
    shas = dict(store.newest_versions(4))
    raw = store.strategy_state(2)
    assert raw is not None
    restored, initial = decode_state(raw), strategy.init(table.elements(Role.WEIGHT))
    assert restored.keys() == initial.keys()
    weights, control = [one.num_examples for one in store.counted(2)], "control" in initial
    load = lambda i: store.update_bytes(NAMES[i], 2)  # noqa: E731
    with decoded(NAMES, weights, load, table, ("f32",), folder, control=control) as (
        deltas,
        buffers,
    ):
        base = files.read(2, shas[2], table.size)
        again = combine(base, strategy, restored, deltas, buffers, table)
        anew = combine(base, strategy, initial, deltas, buffers, table)
    assert vector_sha256(again.vector) == shas[3]
    assert encode_state(again.state) == store.strategy_state(3)
    moves_by_state = initial and not control  # a control variate steps itself alone: edges correct their steps by it
    assert (vector_sha256(anew.vector) == shas[3]) == (not moves_by_state)
    assert (encode_state(anew.state) == store.strategy_state(3)) == (not initial)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_strategy_through_two_rounds_and_a_restart(name: str, tmp_path: Path) -> None:
    whole: list[list[str]] = []

    async def both() -> None:
        whole.append(await play(tmp_path / "whole", name, (2,)))
        whole.append(await play(tmp_path / "restarted", name, (1, 2)))

    run(both())
    assert len(set(whole[0])) == 4
    assert whole[0] == whole[1], "a restart between two rounds changes no bit"


def test_fedprox_reaches_the_participants(tmp_path: Path) -> None:
    async def joined() -> None:
        broker = MemoryBroker()
        config = make_config(tmp_path, strategy={"name": "fedprox", "options": {"mu": 0.25}})
        async with running(broker, config), ScriptedParticipant(broker.connector(), "a") as person:
            await person.until(lambda: person.plan is not None)
            assert person.plan is not None
            assert person.plan.training.proximal_mu == 0.25

    run(joined())
