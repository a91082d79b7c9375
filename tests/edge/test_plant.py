"""The plant's side on the broker's in-memory twin: no sample lost at a swap, no state that goes back in time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import Message
from edge.binding import bind
from edge.decision import Decision
from edge.outputs import Outputs, Profile
from edge.plant import Plant, Served
from edge.problem_log import ProblemLog
from edge.quality import QualityCounters
from edge.reading import make_reading
from edge.signal_map import SignalMap
from edge.store import SampleStore
from edge.unit_watch import UnitWatch
from tests.aio import Inbox, run
from tests.edge.versions import CONTRACT, LINE, MAP, board, model_of
from uns_topics.presence import Variant
from uns_topics.sparkplug import Payload, encode_payload

ROOT = f"{LINE}/_inference/tiny"
NOW = 1_700_100_000.0


class World:
    """A plant's session, a broker, and what a SCADA system sees."""

    def __init__(
        self,
        folder: Path,
        broker: MemoryBroker | None = None,
        outputs: Outputs | None = None,
        signal_map: SignalMap = MAP,
        stale_after_s: float | None = None,
    ) -> None:
        self.now = NOW
        self.broker = broker or MemoryBroker()
        self.executor = ThreadPoolExecutor(1)
        self.store = SampleStore(folder / "samples.sqlite")
        self.store.use(CONTRACT)
        self.seen = Inbox()
        self.kept: list[bytes] = []
        self.plant = Plant(
            self.broker.connector(),
            "berlin",
            "tiny",
            make_reading(bind(signal_map, CONTRACT), CONTRACT, outputs or Outputs("tiny", CONTRACT.output_name)),
            self.store,
            self.executor,
            home="acme/berlin/smt",
            max_batch=7,
            quality=QualityCounters(CONTRACT),
            units=UnitWatch(CONTRACT),
            problem_log=ProblemLog(),
            keep_problems=self.kept.append,
            on_stored=lambda: None,
            stale_after_s=stale_after_s,
            wall_clock=lambda: self.now,
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(m.payload) for m in self.seen.messages if m.topic.endswith("/event")]

    def leaf(self, name: str, root: str = ROOT) -> Any:
        return json.loads(self.broker.retained[f"{root}/{name}"].payload)["value"]

    async def until(self, condition: Callable[[], object]) -> None:
        await self.seen.until(lambda _: bool(condition()))


@asynccontextmanager
async def running(
    folder: Path,
    broker: MemoryBroker | None = None,
    outputs: Outputs | None = None,
    signal_map: SignalMap = MAP,
    stale_after_s: float | None = None,
) -> AsyncIterator[World]:
    world = World(folder, broker, outputs, signal_map, stale_after_s)
    try:
        async with (
            world.broker.connector().connect("scada", on_message=world.seen) as session,
            asyncio.TaskGroup() as tasks,  # a plant that ends by itself ends the test
        ):
            await session.subscribe("acme/#", "spBv1.0/#")
            tasks.create_task(world.plant.run())
            await world.until(lambda: "acme/berlin/smt/_inference/tiny/_edge/berlin/alive" in world.seen.topics)
            yield world
            await world.plant.close()
    finally:
        world.executor.shutdown()
        world.store.close()


def served(version: int, variant: Variant = Variant.GLOBAL) -> Served:
    return Served(model_of(version), version, variant, Decision(problem=None))


def test_problems_are_kept_with_both_payloads(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world, world.broker.connector().connect("tags", on_message=print) as tags:
            world.plant.serve(served(1))
            good = board(1)
            for message in (good, Message(good.topic, b'{"timestamp": "PAPAGEI"}'), board(2)):
                await tags.publish(message.topic, message.payload)
            await world.until(lambda: any(e["key"] == "B2" for e in world.events))
            report, _ = world.plant.data_quality(2, 0, 0.0)
            assert "PAPAGEI" not in report.model_dump_json()
            assert report.problems == {"bad-timestamp": 1}
        (known,) = ProblemLog.load(world.kept[-1]).topics.values()
        assert (known.counts, known.bad.text) == ({"bad-timestamp": 1}, '{"timestamp": "PAPAGEI"}')
        assert known.good is not None
        assert known.good.head in (good.payload, board(2).payload)

    run(main())


def test_a_swap_between_two_inferences_loses_no_sample(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world, world.broker.connector().connect("tags", on_message=print) as tags:
            world.plant.serve(served(1))
            for index in range(60):
                message = board(index)
                await tags.publish(message.topic, message.payload)
                if index == 30:
                    await world.until(lambda: world.events)  # the first batch is through; more are on their way
                    world.plant.serve(served(2))
            await world.until(lambda: any(e["key"] == "B59" for e in world.events))
            first: dict[str, int] = {}
            for event in world.events:
                first.setdefault(event["key"], event["model_version"])
            assert list(first) == [f"B{i}" for i in range(60)]  # all of them, in order
            assert sorted(first.values()) == list(first.values())  # the old version never comes back
            assert set(first.values()) == {1, 2}
            for event in world.events:
                x = np.array([[int(event["key"][1:]) % 10, 3.5]], np.float32)
                by = model_of(event["model_version"]).run(x, np.zeros(1, np.int64)).reshape(-1)[0]
                assert event[CONTRACT.output_name] == pytest.approx(by, abs=1e-5)
        with sqlite3.connect(tmp_path / "samples.sqlite") as db:
            assert db.execute("SELECT count(DISTINCT sample) FROM predictions").fetchone() == (60,)
        db.close()

    run(main())


def test_a_swap_judges_the_newest_sample_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1, Variant.LAST_GOOD))
            world.plant.on_message(board(1))
            await world.until(lambda: world.events)
            assert world.leaf("variant") == "last-good"
            world.plant.serve(served(2))
            await world.until(lambda: len(world.events) == 2)
            await world.until(lambda: world.leaf("variant") == "global")
            assert world.leaf("model_version") == 2

    run(main())


def test_what_it_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            garbage = Message(f"{LINE}/spi", b"{")
            for message in (board(1), board(2), garbage, board(3), board(3)):
                world.plant.on_message(message)
            await world.until(lambda: len(world.events) == 3)
            assert world.plant.is_up
            assert (world.plant.messages, world.plant.inferences) == (5, 3)
            assert world.plant.counted == {"undecodable": 1, "duplicate": 1}
            assert world.plant.waiting == 0
        assert not world.plant.is_up

    run(main())


def test_state_never_goes_back_in_time_and_events_are_complete(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            for index in (5, 9, 7, 8, 3):
                world.plant.on_message(board(index))
                await world.until(lambda i=index: any(e["key"] == f"B{i}" for e in world.events))
            await world.until(lambda: len(world.events) == 5)
            topic = f"{ROOT}/{CONTRACT.output_name}"
            stamps = [json.loads(m.payload)["timestamp_ms"] for m in world.seen.messages if m.topic == topic]
            assert stamps == sorted(stamps)
            assert stamps[-1] == json.loads(board(9).payload)["timestamp"]

    run(main())


def test_a_reconnect_gives_back_the_leaves_as_they_are_by_now(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(1))
            await world.until(lambda: world.events)
            before = dict(world.broker.retained)
            world.broker.retained.clear()
            world.broker.drop("berlin-plant")
            world.plant.on_message(board(2))  # judged while nobody can hear of it
            await world.until(lambda: world.broker.retained.keys() == before.keys())
            stamp = json.loads(board(2).payload)["timestamp"]
            await world.until(
                lambda: f'{{"timestamp_ms":{stamp},' in world.broker.retained[f"{ROOT}/quality"].payload.decode()
            )
            topic = f"{ROOT}/{CONTRACT.output_name}"
            stamps = [json.loads(m.payload)["timestamp_ms"] for m in world.broker.record if m.topic == topic]
            assert stamps == sorted(stamps)

    run(main())


def test_a_leaf_that_is_cleared_while_a_reconnect_gives_it_back_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with running(tmp_path, broker) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(1))
            await world.until(lambda: f"{ROOT}/score" in broker.retained)
            broker.drop("berlin-plant")
            route, gone = broker.route, list[str]()

            def clear_all_but_alive(message: Message, *, retain: bool) -> None:
                route(message, retain=retain)
                if message.topic.endswith("/alive") and message.payload == b"true":  # the first that is given back
                    gone.extend(world.plant._leaves.payloads)
                    world.plant._leaves.payloads = {}  # as another output name does

            monkeypatch.setattr(broker, "route", clear_all_but_alive)
            await world.until(lambda: gone)
            world.plant.on_message(board(2))
            await world.until(lambda: world.plant.is_up and world.events[-1]["key"] == "B2")

    run(main(), timeout_s=30)


def test_a_new_session_asks_sparkplug_nodes_for_their_births(tmp_path: Path) -> None:
    spark = {"topic": "spBv1.0/{line}/+/node/spi", "form": "sparkplug", "key": "Board"}
    source = {**spark, "features": [{"feature": f"x{i}", "field": f"X {i}", "unit": ""} for i in range(2)]}
    signal_map = SignalMap.model_validate({"instance": "acme/berlin/smt/{line}", "sources": [source]})

    async def main() -> None:
        async with running(tmp_path, signal_map=signal_map) as world:
            birth = encode_payload(Payload(1, (), 0))
            world.plant.on_message(Message("spBv1.0/line1/NBIRTH/node", birth))
            world.broker.denied_topics = frozenset({"spBv1.0/line1/NCMD/node"})
            world.broker.drop("berlin-plant")
            await world.until(
                lambda: world.seen.topics.count("acme/berlin/smt/_inference/tiny/_edge/berlin/alive") == 3
            )
            assert world.plant.problems == {"rebirth-not-sent": 1}
            world.broker.denied_topics = frozenset()
            world.plant.on_message(Message("spBv1.0/line2/NDATA/node", encode_payload(Payload(1, (), 7))))
            await world.until(lambda: "spBv1.0/line2/NCMD/node" in world.seen.topics)
            assert world.plant.counted == {"no-birth": 1, "rebirth-not-sent": 1}
            (command,) = [m for m in world.broker.record if "/NCMD/" in m.topic]
            assert (command.qos, command.retain) == (0, False)

    run(main())


def test_a_store_that_fails_ends_learning_and_not_inference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))

            def full(*_: object) -> None:
                raise sqlite3.OperationalError("database or disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(world.store, "add", full)
                world.plant.on_message(board(1))
                await world.until(lambda: world.events)
            world.plant.on_message(board(2))
            await world.until(lambda: len(world.events) == 2)
            assert world.plant.problems["not-stored"] == 1
            assert world.store.counts().samples == 1
        assert "disk is full" in caplog.text

    run(main())


def test_a_model_that_fails_is_a_bad_quality_and_the_next_one_serves(tmp_path: Path) -> None:
    async def main() -> None:
        class Broken:
            def run(self, features: np.ndarray, contexts: np.ndarray) -> np.ndarray:
                raise RuntimeError("onnxruntime gave up")

        class Endless:
            def run(self, features: np.ndarray, contexts: np.ndarray) -> np.ndarray:
                return np.full(len(features), np.inf, np.float32)

        async with running(tmp_path) as world:
            for broken in (Broken(), Endless()):
                world.plant.serve(Served(broken, 8, Variant.GLOBAL))  # type: ignore[arg-type]
                world.plant.on_message(board(1))
                await world.until(lambda: f"{ROOT}/quality" in world.broker.retained)
                await world.until(lambda: world.leaf("quality") == 512)
                assert f"{ROOT}/{CONTRACT.output_name}" not in world.broker.retained
            assert world.events == []
            assert world.plant.problems["inference-failed"] >= 1
            world.plant.serve(served(1))
            await world.until(lambda: f"{ROOT}/{CONTRACT.output_name}" in world.broker.retained)
            assert world.leaf("quality") == 192

    run(main())


def test_a_broker_that_takes_not_all_of_our_topics_is_said_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            world.broker.denied_topics = frozenset(
                {f"{ROOT}/quality", "acme/berlin/smt/_inference/tiny/_edge/berlin/alive"}
            )
            world.plant.on_message(board(1))
            await world.until(lambda: world.seen.topics[-1] == f"{ROOT}/{CONTRACT.output_name}")
            world.broker.drop("berlin-plant")
            await world.until(lambda: world.seen.topics.count(f"{ROOT}/{CONTRACT.output_name}") == 2)
            assert world.plant.problems["inference-not-published"] == 1
            assert world.store.counts().samples == 1
        assert "doesn't take 2 of our topics" in caplog.text

    run(main())


def test_what_an_earlier_configuration_published_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with running(tmp_path, broker) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(1))
            await world.until(lambda: f"{ROOT}/{CONTRACT.output_name}" in broker.retained)
        broker.retained["acme/berlin/smt/line1/spi"] = board(1)
        old = {topic for topic in broker.retained if "/_inference/" in topic}
        assert len(old) == 5  # four leaves and alive
        async with running(tmp_path, broker) as world:  # the same again: nothing is cleared
            assert old <= set(broker.retained)
        moved = Outputs("tiny", CONTRACT.output_name, profile=Profile.SCALAR, out_root="ai")
        async with running(tmp_path, broker, moved) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(2))
            await world.until(lambda: f"ai/{ROOT}/{CONTRACT.output_name}" in broker.retained)
            assert broker.retained[f"ai/{ROOT}/variant"].payload == b"global"
            kept = {"acme/berlin/smt/_inference/tiny/_edge/berlin/alive"}
            await world.until(lambda: old & set(broker.retained) == kept)  # while the new ones are published already
            assert "acme/berlin/smt/line1/spi" in broker.retained

    run(main())


def test_inputs_that_nobody_trained_on_make_an_answer_uncertain(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(1, x0=4))
            world.plant.on_message(board(2, x0=400))
            world.plant.on_message(board(3, x0=4))
            await world.until(lambda: len(world.events) == 3)
            assert [event["quality"] for event in world.events] == [192, 256, 192]
            world.plant.hold(True)
            await world.until(lambda: world.leaf("quality") == 256)  # said at once, of the newest sample
            world.plant.on_message(board(4))
            await world.until(lambda: world.events[-1]["key"] == "B4")
            assert world.events[-1]["quality"] == 256
            world.plant.hold(False)
            await world.until(lambda: world.leaf("quality") == 192)

    run(main())


def test_what_comes_later_than_usual_is_replayed(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            world.plant.serve(served(1))
            first_s = 1_700_000_000 + 30
            for index, arrival_s in ((1, first_s), (2, first_s + 30), (3, first_s + 3600), (100, first_s + 99 * 30)):
                world.now = arrival_s
                world.plant.on_message(board(index))
            await world.until(lambda: len(world.events) == 4)
            assert [event["quality"] for event in world.events] == [192, 192, 203, 192]

    run(main())


def test_inputs_that_stop_are_marked_stale_and_come_back_by_themselves(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, stale_after_s=0.2) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(1))
            await world.until(lambda: world.events)
            value = world.leaf(CONTRACT.output_name)
            await world.until(lambda: world.leaf("quality") == 516)
            assert world.leaf(CONTRACT.output_name) == value
            world.plant.on_message(board(2))
            await world.until(lambda: world.leaf("quality") == 192)
            await world.until(lambda: world.leaf("quality") == 516)
            stamps = [
                json.loads(m.payload)["timestamp_ms"] for m in world.seen.messages if m.topic == f"{ROOT}/quality"
            ]
            assert stamps == sorted(stamps)

    run(main())


def test_after_a_restart_leaves_go_on_in_event_time_and_become_stale_without_a_sample(tmp_path: Path) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with running(tmp_path, broker) as world:
            world.plant.serve(served(1))
            world.plant.on_message(board(5))
            await world.until(lambda: world.events)
        before = broker.retained[f"{ROOT}/{CONTRACT.output_name}"].payload
        async with running(tmp_path, broker, stale_after_s=0.3) as world:
            world.plant.serve(served(2))
            world.plant.on_message(board(4))  # a backlog
            await world.until(lambda: world.events)
            assert broker.retained[f"{ROOT}/{CONTRACT.output_name}"].payload == before
            await world.until(lambda: world.leaf("quality") == 516)
            world.plant.on_message(board(6))
            await world.until(lambda: world.leaf("model_version") == 2)

    run(main())
