"""Simulated plants as publishers: nothing is lost, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker_bridge.config import BrokerConfig
from broker_bridge.memory import MemoryBroker
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from headgate.cli import main
from headgate.demo.simulator import IN_FLIGHT, Publisher, publish_fast, publish_paced
from headgate.exits import Exit
from headgate.plants.emission import Emission
from tests.aio import Inbox, run
from tests.servers import mosquitto

CLIENT = "simulator"


def emissions(count: int) -> Iterator[Emission]:
    return (Emission(1000.0 + index, f"acme/tag{index % 3}", json.dumps(index).encode()) for index in range(count))


def said(broker: MemoryBroker) -> set[int]:
    return {json.loads(m.payload) for m in broker.record if m.topic.startswith("acme/tag")}


async def running(publisher: Publisher) -> asyncio.Task[None]:
    return asyncio.create_task(publisher.run())


def test_history_arrives_in_full() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        publisher = Publisher(broker.connector(), CLIENT)
        link = await running(publisher)
        count = 3 * IN_FLIGHT + 1
        assert await publish_fast(publisher, emissions(count)) == count
        assert said(broker) == set(range(count))
        await publisher.close()
        await link

    run(body())


def test_what_was_not_acknowledged_is_published_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker_bridge.link.delay", lambda *_: 0.0)

    async def body() -> None:
        broker = MemoryBroker()
        publisher = Publisher(broker.connector(), CLIENT)
        link = await running(publisher)
        drops = 0

        def dropping() -> Iterator[Emission]:
            nonlocal drops
            for index, emission in enumerate(emissions(4 * IN_FLIGHT)):
                if index % IN_FLIGHT == IN_FLIGHT - 1 and CLIENT in broker.clients:
                    # In the middle of a batch: its messages are on their way when the connection ends.
                    asyncio.get_running_loop().call_soon(broker.drop, CLIENT)
                    drops += 1
                yield emission

        count = await publish_fast(publisher, dropping())
        assert drops >= 2
        assert count == 4 * IN_FLIGHT
        assert said(broker) == set(range(count))
        await publisher.close()
        await link

    run(body())


def test_a_broker_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker_bridge.link.delay", lambda *_: 0.0)

    async def body() -> None:
        broker = MemoryBroker()
        broker.stop()
        publisher = Publisher(broker.connector(), CLIENT)
        link = await running(publisher)
        sending = asyncio.create_task(publish_fast(publisher, emissions(5)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sending.done()
        broker.start()
        assert await sending == 5
        assert said(broker) == set(range(5))
        await publisher.close()
        await link

    run(body())


def test_a_plant_starts_once_its_edge_listens() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        publisher = Publisher(broker.connector(), CLIENT)
        heard = asyncio.Event()
        publisher.listen("acme/alive", heard)
        link = await running(publisher)
        await publisher.publish(Emission(0.0, "acme/alive", b"false"))
        await publisher.publish(Emission(0.0, "acme/other", b"true"))
        assert not heard.is_set()
        broker.route(Message("acme/alive", b"true"), retain=True)
        await heard.wait()
        await publisher.close()
        await link

    run(body())


def test_paced_publishing_keeps_the_distances_of_event_time() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        publisher = Publisher(broker.connector(), CLIENT)
        link = await running(publisher)
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await publish_paced(publisher, emissions(4), speed=20.0) == 4
        assert loop.time() - started >= 3 / 20
        assert [m.payload for m in broker.record] == [b"0", b"1", b"2", b"3"]
        await publisher.close()
        await link

    run(body())


@pytest.mark.broker
def test_one_plant_alone_with_a_password(tmp_path: Path) -> None:
    """`--participant` and `--config`: only that plant's tags come, from a broker that lets nobody else in."""
    tags = ("acme/berlin/#", "acme/lyon/#")
    with mosquitto(passwords={"line": "secret", "berlin": "other"}) as server:
        (tmp_path / "line").write_text("secret\n")
        (tmp_path / "other").write_text("other\n")
        config = {"broker": {"url": server.url, "username": "line", "password_file": "line"}}
        (tmp_path / "line.yaml").write_text(yaml.safe_dump(config))
        berlin = BrokerConfig(url=server.url, username="berlin", password_file=tmp_path / "other")

        async def body() -> None:
            inbox = Inbox()
            async with PahoConnector(berlin).connect("edge", on_message=inbox) as session:
                await session.subscribe(*tags)
                alive = "acme/berlin/smt/_inference/solder-defect/_edge/berlin/alive"
                await session.publish(alive, b"true", retain=True)
                command = (sys.executable, "-m", "headgate", "simulate", "--participant", "berlin")
                process = await asyncio.create_subprocess_exec(*command, "--config", str(tmp_path / "line.yaml"))
                try:
                    await inbox.count(200)
                finally:
                    process.terminate()
                    assert await process.wait() == 0
            assert {topic.split("/")[1] for topic in inbox.topics} == {"berlin"}

        run(body())


def test_a_plant_that_a_scenario_lacks_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--plants", "2", "--participant", "porto"]) == Exit.USAGE
    assert "scenario solder has no plant 'porto'; it has berlin, lyon" in capsys.readouterr().err
