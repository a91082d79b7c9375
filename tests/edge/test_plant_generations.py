"""A plant between two contracts: it learns by the new one while the old one's model is fed as before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.binding import bind
from edge.config import SparkplugConfig
from edge.coverage import bind_what_fits, narrowed
from edge.handover import Learning
from edge.inference import Input
from edge.models import open_own
from edge.outputs import Outputs, Prediction
from edge.quality import QualityCounters
from edge.reading import Reading, Readings, make_reading
from edge.signal_map import SignalMap
from edge.sparkplug_node import EdgeNode
from edge.sparkplug_session import SparkplugSession
from edge.store_file import StoreError
from edge.unit_watch import UnitWatch
from edge.variants import Served
from tests.aio import run
from tests.edge.test_plant import ROOT, World, running
from tests.edge.versions import CONTRACT, LINE, MAP, NARROW, board, model_of
from tests.support.tiny_template import tiny_template, tiny_vector
from uns_topics.contract import Contract
from uns_topics.presence import Variant


def narrow_reading() -> Reading:
    return make_reading(bind_what_fits(MAP, NARROW), NARROW, Outputs("tiny", NARROW.output_name))


def learn(world: World, reading: Reading, begun: list[str]) -> None:
    def begin() -> None:
        world.store.use(NARROW)
        begun.append("begun")

    quality, units = QualityCounters(NARROW), UnitWatch(NARROW)
    world.plant.learn(Learning(reading, quality, units, begin=begin, done=lambda: begun.append("done")))


def narrow_model(version: int) -> Served:
    template = tiny_template(NARROW)
    return Served(open_own(template, tiny_vector(template, seed=version)), version, Variant.GLOBAL)


def test_the_old_model_judges_on_while_samples_of_the_new_contract_are_stored(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(Served(model_of(1), 1, Variant.GLOBAL))
            world.plant.on_message(board(1))
            await world.until(lambda: len(world.events) == 1)
            begun: list[str] = []
            reading = narrow_reading()
            learn(world, reading, begun)
            for index in range(2, 6):
                world.plant.on_message(board(index))
            await world.until(lambda: len(world.events) == 5)
            assert begun == ["begun", "done"]
            assert {event["model_version"] for event in world.events} == {1}
            assert [event["key"] for event in world.events] == [f"B{i}" for i in range(1, 6)]
            expected = model_of(1).run(np.array([[5.0, 3.5]], np.float32), np.zeros(1, np.int64))
            assert world.events[-1]["score"] == pytest.approx(float(expected[0]), abs=1e-5)
            assert world.store.counts().samples == 4  # the first one was of the contract before

            served = narrow_model(2)
            world.plant.serve(served, reading)
            await world.until(lambda: world.leaf("model_version") == 2)
            world.plant.on_message(board(6))
            await world.until(lambda: world.events[-1]["key"] == "B6")
            expected = served.model.run(np.array([[3.5]], np.float32), np.zeros(1, np.int64))
            assert world.events[-1]["score"] == pytest.approx(float(expected[0]), abs=1e-5)
            assert world.store.counts().samples == 5
            assert world.leaf("model_version", ROOT) == 2

    run(main(), timeout_s=30)


def test_what_waited_is_stored_under_the_contract_that_it_was_read_by(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            before: list[int] = []
            for index in range(5):
                world.plant.on_message(board(index))
            reading, begun = narrow_reading(), list[str]()

            def begin() -> None:
                before.append(world.store.counts().samples)
                world.store.use(NARROW)

            world.plant.learn(
                Learning(
                    reading, QualityCounters(NARROW), UnitWatch(NARROW), begin=begin, done=lambda: begun.append("done")
                )
            )
            world.plant.on_message(board(5))
            world.plant.serve(narrow_model(2), reading)
            await world.until(lambda: world.events and world.events[-1]["key"] == "B5")
            assert before == [5]
            assert world.store.counts().samples == 1
            assert begun == ["done"]
            assert world.plant.messages == 6  # counted over both contracts

    run(main(), timeout_s=30)


def test_what_waits_for_the_old_model_is_taken_in_batches_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.plant.BATCH_EFFECTS", 3)
    monkeypatch.setattr("edge.plant.MAX_WAITING", 8)

    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(Served(model_of(1), 1, Variant.GLOBAL))
            learn(world, narrow_reading(), [])
            sizes, infer = list[int](), world.plant._inference.run

            def run_and_count(taken: Sequence[Input], served: Served) -> list[Prediction]:
                sizes.append(len(taken))
                return infer(taken, served)

            monkeypatch.setattr(world.plant._inference, "run", run_and_count)
            for index in range(10):
                world.plant.on_message(board(index))
            await world.until(lambda: len(world.events) == 8)
            assert max(sizes) == 3
            assert world.plant.problems["overload"] == 4  # two for the store, and two for the model
            assert world.store.counts().samples == 8

    run(main(), timeout_s=30)


def test_two_contracts_in_a_row_are_begun_one_after_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            begun: list[str] = []
            world.plant.on_message(board(1))
            learn(world, narrow_reading(), begun)
            world.plant.on_message(board(2))
            quality, units = QualityCounters(CONTRACT), UnitWatch(CONTRACT)
            reading = make_reading(bind(MAP, CONTRACT), CONTRACT, Outputs("tiny", CONTRACT.output_name))

            def begin() -> None:
                begun.append(f"{world.store.counts().samples} of the narrow one")
                world.store.use(CONTRACT)

            world.plant.learn(Learning(reading, quality, units, begin=begin, done=lambda: begun.append("done")))
            world.plant.on_message(board(3))
            world.plant.serve(Served(model_of(1), 1, Variant.GLOBAL), reading)
            await world.until(lambda: world.events and world.events[-1]["key"] == "B3")
            assert begun == ["begun", "done", "1 of the narrow one", "done"]
            assert world.store.counts().samples == 1

    run(main(), timeout_s=30)


def test_a_store_that_cannot_change_keeps_nothing_until_it_can(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(Served(model_of(1), 1, Variant.GLOBAL))
            world.plant.on_message(board(1))
            await world.until(lambda: len(world.events) == 1)
            failures: list[Exception] = [StoreError("no"), sqlite3.OperationalError("full"), OSError("full")]

            def begin() -> None:
                if failures:
                    raise failures.pop(0)
                world.store.use(NARROW)

            reading = narrow_reading()
            world.plant.learn(
                Learning(reading, QualityCounters(NARROW), UnitWatch(NARROW), begin=begin, done=lambda: None)
            )
            for index in range(2, 6):
                world.plant.on_message(board(index))
                await world.until(lambda index=index: len(world.events) == index)  # type: ignore[misc]  # bound by name
            world.plant.serve(narrow_model(2), reading)
            await world.until(lambda: world.leaf("model_version") == 2)
            assert not failures
            assert world.store.is_of(NARROW)
            assert world.store.counts().samples <= 3  # none of those that came before it could
            assert world.plant.problems["not-stored"] >= 3

    run(main(), timeout_s=30)


def test_what_only_the_new_contract_needs_is_heard_at_once(tmp_path: Path) -> None:
    feature = {"name": "y", "unit": "", "minimum": 0, "maximum": 1}
    wide = Contract.model_validate(CONTRACT.model_dump() | {"features": [*CONTRACT.model_dump()["features"], feature]})
    oven = {
        "topic": "acme/berlin/smt/{line}/oven",
        "form": "flat",
        "features": [{"feature": "y", "field": "y", "unit": ""}],
    }
    whole = SignalMap.model_validate(
        MAP.model_dump(exclude_unset=True) | {"sources": [*MAP.model_dump(exclude_unset=True)["sources"], oven]}
    )

    async def main() -> None:
        async with running(tmp_path, signal_map=narrowed(whole, CONTRACT)) as world:
            reading, begun = make_reading(bind(whole, wide), wide, Outputs("tiny", wide.output_name)), asyncio.Event()
            world.plant.learn(
                Learning(
                    reading,
                    QualityCounters(wide),
                    UnitWatch(wide),
                    begin=lambda: None,
                    done=begun.set,
                )
            )
            await begun.wait()
            async with world.broker.connector().connect("oven", on_message=lambda _: None) as session:
                await session.publish(f"{LINE}/oven", b'{"timestamp": 1700000000000, "y": 0.5}')
                await session.publish(f"{LINE}/spi", board(1).payload)
            await world.until(lambda: world.plant.messages == 2)

    run(main(), timeout_s=30)


def test_a_restart_between_two_contracts_feeds_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            readings = Readings(MAP, lambda contract: Outputs("tiny", contract.output_name))
            reading = readings.to_learn(NARROW, bind_what_fits(MAP, NARROW))
            learn(world, reading, [])
            old = readings.to_serve(CONTRACT)
            assert old is not None
            assert old is readings.to_serve(CONTRACT)
            world.plant.serve(Served(model_of(1), 1, Variant.LAST_GOOD), old)
            world.plant.on_message(board(3))
            await world.until(lambda: world.events and world.events[-1]["key"] == "B3")
            assert world.events[-1]["model_version"] == 1
            assert world.store.counts().samples == 1

    run(main(), timeout_s=30)


def test_a_model_that_the_map_no_longer_feeds_has_no_reading() -> None:
    readings = Readings(MAP, lambda contract: Outputs("tiny", contract.output_name))
    wider = Contract.model_validate(
        CONTRACT.model_dump()
        | {"features": [*CONTRACT.model_dump()["features"], {"name": "y", "unit": "", "minimum": 0, "maximum": 1}]}
    )
    assert readings.to_serve(wider) is None
    assert readings.to_serve(CONTRACT) is not None
    assert bind(MAP, CONTRACT).keyed == {0, 1}


def test_what_is_neither_learnt_nor_runs_is_forgotten() -> None:
    readings = Readings(MAP, lambda contract: Outputs("tiny", contract.output_name))
    learnt = readings.to_learn(CONTRACT, bind(MAP, CONTRACT))
    assert readings.to_serve(CONTRACT) is learnt
    narrow = readings.to_learn(NARROW, bind_what_fits(MAP, NARROW))
    assert readings.to_serve(CONTRACT) is learnt
    assert readings.to_serve(NARROW) is narrow
    assert readings.to_serve(CONTRACT) is not learnt


def test_the_sparkplug_node_says_the_output_of_the_model_that_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            node = EdgeNode(SparkplugConfig(group="Headgate", node="berlin"), Outputs("tiny", CONTRACT.output_name))
            connector = world.broker.connector()
            world.plant.sparkplug = SparkplugSession(connector, "berlin", node, world.store, world.executor)
            world.plant.serve(Served(model_of(1), 1, Variant.GLOBAL))
            assert node.outputs.output == CONTRACT.output_name
            reading = make_reading(bind_what_fits(MAP, NARROW), NARROW, Outputs("tiny", "remaining"))
            learn(world, reading, [])
            assert node.outputs.output == CONTRACT.output_name
            world.plant.serve(narrow_model(2), reading)
            assert node.outputs.output == "remaining"

    run(main(), timeout_s=30)
