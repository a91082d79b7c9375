"""The Sparkplug session on the broker's in-memory twin: its will, its number on disk, its order, its primary host."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker_bridge.groups import first_of
from broker_bridge.memory import MemoryBroker
from broker_bridge.session import BrokerRefused, Message, Session
from broker_bridge.settings import ConfigError
from edge.config import EdgeConfig, SparkplugConfig
from edge.outputs import Outputs
from edge.signal_map import SignalMap
from edge.sparkplug_node import EdgeNode
from edge.sparkplug_session import SESSION_KEY, SparkplugSession, farewell, make_session, refuse_own_node
from edge.store import SampleStore
from edge.variants import Served
from tests.aio import Inbox, run
from tests.edge.node_world import COMMAND, DEVICE, STATE, Said, prediction, read
from tests.edge.versions import model_of
from uns_topics.presence import Variant
from uns_topics.sparkplug import BDSEQ, rebirth_request, state_payload

NOW = 1_700_000_000.0
CLIENT = "berlin-spb"


class World:
    """A broker, a node's session, and what a host sees of it."""

    def __init__(self, folder: Path, broker: MemoryBroker | None = None, **config: Any) -> None:
        self.broker = broker or MemoryBroker()
        self.executor = ThreadPoolExecutor(1)
        self.store = SampleStore(folder / "samples.sqlite")
        self.seen = Inbox()
        self.host: Session | None = None
        settings = SparkplugConfig.model_validate({"group": "Headgate", "node": "berlin-1"} | config)
        self.session = SparkplugSession(
            self.broker.connector(),
            "berlin",
            EdgeNode(settings, Outputs("solder-defect", "score")),
            self.store,
            self.executor,
            wall_clock=lambda: NOW,
        )

    @property
    def said(self) -> list[Said]:
        found = []
        for message in self.seen.messages:
            if "/STATE/" not in message.topic and "/NCMD/" not in message.topic:
                found += read(
                    [cast("Any", SimpleNamespace(topic=message.topic, payload=message.payload, qos=message.qos))]
                )
        return found

    @property
    def kinds(self) -> list[str]:
        return [one.kind.value for one in self.said]

    def numbers(self, kind: str) -> list[object]:
        return [one.values[BDSEQ] for one in self.said if one.kind == kind]

    async def until(self, condition: Callable[[], object]) -> None:
        await self.seen.until(lambda _: bool(condition()))


@asynccontextmanager
async def running(folder: Path, broker: MemoryBroker | None = None, **config: Any) -> AsyncIterator[World]:
    world = World(folder, broker, **config)
    try:
        async with (
            world.broker.connector().connect("host", on_message=world.seen) as session,
            asyncio.TaskGroup() as tasks,  # a session that ends by itself ends the test
        ):
            world.host = session
            await session.subscribe("spBv1.0/#")
            tasks.create_task(world.session.run())
            yield world
            await world.session.close()
    finally:
        world.executor.shutdown()
        world.store.close()


async def say(world: World, topic: str, payload: bytes, *, retain: bool = False) -> None:
    assert world.host is not None
    await world.host.publish(topic, payload, qos=0, retain=retain)


def test_births_then_data_then_a_death_before_the_session_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            assert world.broker.clients == ("host", CLIENT)
            world.session.serves(Served(model_of(3), 3, Variant.GLOBAL))
            world.session.predicted([prediction()])
            world.session.predicted([prediction(NOW + 1, 0.5)])
            world.session.stale(prediction().instance)
            await world.until(lambda: len(world.said) == 5)
            assert (world.session.is_up, world.session.is_born) == (True, True)
            await world.session.close()
            await world.until(lambda: "NDEATH" in world.kinds)
            assert world.broker.clients == ("host",)
            world.session.predicted([prediction(NOW + 2)])  # nobody hears it
            assert world.kinds == ["NBIRTH", "NDATA", "DBIRTH", "DDATA", "DDATA", "NDEATH"]  # the will is not said
            assert [one.payload.seq for one in world.said] == [0, 1, 2, 3, 4, None]
            assert world.numbers("NBIRTH") == world.numbers("NDEATH") == [0]
            ours = [m for m in world.broker.record if m.topic.startswith("spBv1.0/Headgate/")]
            assert [(m.qos, m.retain) for m in ours] == [(0, False)] * 5 + [(1, False)]

    run(main())


def test_nothing_is_said_after_the_death(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            world.session.predicted([prediction()])
            await world.until(lambda: "DBIRTH" in world.kinds)
            late = iter(range(1, 100))

            def goes_on(_: Message) -> None:
                world.session.predicted([prediction(NOW + next(late))])

            async with world.broker.connector().connect("late", on_message=goes_on) as other:
                await other.subscribe("spBv1.0/+/NDEATH/#")
                await world.session.close()
                await world.until(lambda: "NDEATH" in world.kinds)
                await other.publish("spBv1.0/Headgate/NDEATH/berlin-1", b"")  # what was said before it is through
            assert next(late) > 1
            assert "DDATA" not in world.kinds

    run(main())


def test_a_lost_session_is_told_by_its_will_and_the_next_has_the_next_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            world.session.predicted([prediction()])
            await world.until(lambda: "DBIRTH" in world.kinds)
            world.broker.drop(CLIENT)
            await world.until(lambda: world.kinds.count("DBIRTH") == 2)
            assert world.kinds == ["NBIRTH", "DBIRTH", "NDEATH", "NBIRTH", "DBIRTH"]
            assert (world.numbers("NDEATH"), world.numbers("NBIRTH")) == ([0], [0, 1])
            (will,) = [m for m in world.broker.record if "/NDEATH/" in m.topic]
            assert (will.qos, will.retain) == (1, False)

    run(main())


def test_the_number_goes_on_over_restarts_and_begins_anew_after_255(tmp_path: Path) -> None:
    async def main() -> None:
        numbers = []
        for node in ("berlin-1", "berlin-1", "berlin-1", "berlin-2", "berlin-2"):
            if len(numbers) == 2:
                with SampleStore(tmp_path / "samples.sqlite") as store:
                    store.put(SESSION_KEY, b'{"group": "Headgate", "node": "berlin-1", "bdseq": 255}')
            async with running(tmp_path, node=node) as world:
                await world.seen.count(1)
                numbers.append(first_bdseq(world))
        assert numbers == [0, 1, 0, 0, 1]  # another node has its own

    run(main())


def first_bdseq(world: World) -> object:
    message = world.seen.messages[0]
    assert "/NBIRTH/" in message.topic
    renamed = message.topic.replace("berlin-2", "berlin-1")
    (birth,) = read([cast("Any", SimpleNamespace(topic=renamed, payload=message.payload, qos=0))])
    return birth.values[BDSEQ]


def test_a_number_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        world = World(tmp_path)

        def full(_name: str, _content: bytes) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        world.store.put = full  # type: ignore[method-assign] # a disk that is full
        async with world.broker.connector().connect("host", on_message=world.seen) as session:
            await session.subscribe("spBv1.0/#")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(world.session.run())
                await world.until(lambda: world.kinds == ["NBIRTH"])
                world.broker.drop(CLIENT)
                await world.until(lambda: world.numbers("NBIRTH") == [0, 1])
                await world.session.close()
        world.executor.shutdown()
        world.store.close()

    with caplog.at_level(logging.WARNING, "headgate.edge"):
        run(main())
    assert "the number of the Sparkplug session can't be kept: database or disk is full" in caplog.text


def test_a_command_is_answered_with_births(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            world.session.predicted([prediction()])
            await world.until(lambda: "DBIRTH" in world.kinds)
            for _ in range(5):
                await say(world, COMMAND, rebirth_request(1))
            await world.until(lambda: world.kinds.count("DBIRTH") == 2)
            assert world.kinds == ["NBIRTH", "DBIRTH", "NBIRTH", "DBIRTH"]
            assert world.numbers("NBIRTH") == [0, 0]

    run(main())


def test_no_birth_is_said_where_commands_cannot_be_heard(tmp_path: Path) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.denied_filters = frozenset({COMMAND})
        with pytest.raises(BaseExceptionGroup) as raised:
            async with running(tmp_path, broker):
                await asyncio.Event().wait()
        assert isinstance(first_of(raised.value), BrokerRefused)
        assert not any("/NBIRTH/" in m.topic for m in broker.record)

    run(main())


def test_a_node_waits_for_its_primary_host_and_leaves_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with running(tmp_path, broker, primary_host="scada") as world:
            await say(world, STATE, state_payload(False, 10), retain=True)
            world.session.predicted([prediction()])
            await say(world, STATE, state_payload(True, 11), retain=True)
            await world.until(lambda: world.kinds == ["NBIRTH", "DBIRTH"])
            first = world.numbers("NBIRTH")[0]
            await say(world, STATE, state_payload(False, 10), retain=False)  # a late will of an earlier session of it
            await say(world, STATE, state_payload(False, 11), retain=True)
            await world.until(lambda: "NDEATH" in world.kinds)
            assert world.numbers("NDEATH") == [first]
            await say(world, STATE, state_payload(True, 12), retain=True)
            await world.until(lambda: world.kinds.count("DBIRTH") == 2)
            assert world.kinds == ["NBIRTH", "DBIRTH", "NDEATH", "NBIRTH", "DBIRTH"]
            assert world.numbers("NBIRTH") == [first, cast("int", first) + 1]

    run(main())


def test_what_waits_for_too_long_a_time_gives_way_to_births(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge.sparkplug_session.MAX_QUEUED", 20)

    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            for index in range(30):  # in one turn of the loop: nothing can be sent in between
                world.session.predicted([prediction(NOW + index, index / 100)])
            await world.until(lambda: "DDATA" in world.kinds)
            await world.until(lambda: world.said[-1].values.get("score") == 0.29)
            assert world.kinds == ["NBIRTH", "NBIRTH", "DBIRTH"] + ["DDATA"] * 9
            assert [one.payload.seq for one in world.said[1:]] == list(range(11))

    with caplog.at_level(logging.WARNING, "headgate.edge"):
        run(main())
    assert "more than 20 Sparkplug messages waited to be sent: births take their place" in caplog.text


def test_what_a_broker_refuses_is_said_to_people_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.denied_topics = frozenset({f"spBv1.0/Headgate/DBIRTH/berlin-1/{DEVICE}"})
        async with running(tmp_path, broker) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            world.session.predicted([prediction()])
            world.session.serves(Served(model_of(3), 3, Variant.GLOBAL))
            await world.until(lambda: "NDATA" in world.kinds)
            assert [one.payload.seq for one in world.said] == [0, 2]  # a host sees that something is missing

    with caplog.at_level(logging.WARNING, "headgate.edge"):
        run(main())
    assert "not authorised" in caplog.text


def test_an_instance_that_can_be_no_device_is_named_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
            for index in range(3):
                world.session.predicted([prediction(NOW + index, instance=name) for name in ("acme/A", "acme/a")])

    with caplog.at_level(logging.ERROR, "headgate.edge"):
        run(main())
    assert [r.message for r in caplog.records] == [
        "acme/a is no Sparkplug device: its id differs from acme/A's in case alone"
    ]


def test_a_farewell_is_the_death_of_the_last_session(tmp_path: Path) -> None:
    async def main() -> None:
        with SampleStore(tmp_path / "samples.sqlite") as store:
            assert farewell(store) is None
        async with running(tmp_path) as world:
            await world.until(lambda: world.kinds == ["NBIRTH"])
        with SampleStore(tmp_path / "samples.sqlite") as store:
            death = farewell(store, lambda: NOW)
        assert death is not None
        topic, payload, qos, retain = death
        (said,) = read([cast("Any", SimpleNamespace(topic=topic, payload=payload, qos=qos))])
        assert (said.kind, said.values, qos, retain) == ("NDEATH", {BDSEQ: 0}, 1, False)

    run(main())


def edge_config(folder: Path) -> EdgeConfig:
    return EdgeConfig.model_validate(
        {
            "federation": "solder-defect", "participant": "berlin", "data_dir": folder, "broker": {},
            "signal_map": folder / "signal-map.yaml",
            "inference": {"sparkplug": {"group": "acme", "node": "line1"}},
        }
    )  # fmt: skip


def test_an_edge_that_would_read_its_own_node_is_refused(tmp_path: Path) -> None:
    config = edge_config(tmp_path)
    source = {
        "topic": "spBv1.0/{site}/+/line1/spi",
        "form": "sparkplug",
        "features": [{"feature": "f", "field": "F", "unit": "%"}],
    }
    signal_map = SignalMap.model_validate({"instance": "{site}", "sources": [source]})
    with pytest.raises(ConfigError, match="covers this edge's own Sparkplug node, group 'acme' and node 'line1'"):
        refuse_own_node(config, signal_map)
    node = SparkplugConfig(group="acme", node="headgate")
    other = config.model_copy(update={"inference": replace_node(config, node)})
    refuse_own_node(other, signal_map)
    refuse_own_node(config.model_copy(update={"inference": replace_node(config, None)}), signal_map)


def replace_node(config: EdgeConfig, node: SparkplugConfig | None) -> Any:
    return config.inference.model_copy(update={"sparkplug": node})


def test_metrics_that_differ_in_case_alone_make_no_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = edge_config(tmp_path)
    with SampleStore(tmp_path / "samples.sqlite") as store, ThreadPoolExecutor(1) as executor:
        connector = MemoryBroker().connector()
        made = [
            make_session(config, Outputs("solder-defect", output), connector, store, executor)
            for output in ("Quality", "score")
        ]
    assert [one is None for one in made] == [True, False]
    assert caplog.messages == ["no Sparkplug node: the output Quality is named like another leaf but for its case"]


@pytest.mark.parametrize("field", ["group", "node", "primary_host"])
def test_a_name_that_is_no_id_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="'a/b' is no Sparkplug id: one topic segment"):
        SparkplugConfig.model_validate({"group": "g", "node": "n", field: "a/b"})
