"""`headgate assess` on real Mosquitto, beside a plant with one fault of each kind: it finds these, and says nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from edge.binding import bind
from edge.signal_map import SignalMap
from headgate.exits import Exit
from tests.aio import run
from tests.edge.assess.plant import ALL_FAULTS, CONTRACT, LINE, SIGNAL_MAP, Faults, messages
from tests.servers import Server, mosquitto
from uns_topics.contract import Contract

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(120)]

TICK_S = 0.1
GAP_EVERY = 60
ENOUGH = 500
"""Messages in which at least one gap lies whole; a busy machine keeps up with 50 a second."""


@asynccontextmanager
async def plant(server: Server, faults: Faults) -> AsyncIterator[Counter[str]]:
    """A line that runs until the test ends. Yields what was published, by topic."""
    said: Counter[str] = Counter()

    async def publish() -> None:
        async with PahoConnector(BrokerConfig(url=server.url)).connect("plant", on_message=lambda _: None) as session:
            started_s = time.time()
            for heard in messages(10**6, start_s=started_s, tick_s=TICK_S, faults=faults, gap_every=GAP_EVERY):
                await asyncio.sleep(max(0.0, heard.time_s - time.time()))
                said[heard.topic] += 1
                await session.publish(heard.topic, heard.payload, qos=0)

    task = asyncio.create_task(publish(), name="plant")
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def configured(folder: Path, server: Server) -> Path:
    for name, content in (
        ("contract.yaml", CONTRACT),
        ("map.yaml", SIGNAL_MAP),
        (
            "edge.yaml",
            {
                "federation": "solder-defect",
                "participant": "berlin",
                "data_dir": "data",
                "broker": {"url": server.url},
                "signal_map": "map.yaml",
                "contract": "contract.yaml",
            },
        ),
    ):
        (folder / name).write_text(yaml.safe_dump(content), "utf-8")
    return folder / "edge.yaml"


async def assess(*arguments: str) -> tuple[int, str]:
    """Exit code and stdout of the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headgate", "assess", *arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    try:
        out, error = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"Traceback" not in error, error.decode()
    return process.returncode or 0, out.decode()


def found(out: str) -> set[tuple[str, str]]:
    content = json.loads(out)
    return {(finding["check"], finding["where"].removeprefix(f"{LINE}/")) for finding in content["findings"]}


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(), set[tuple[str, str]]()),
        (
            ALL_FAULTS,
            {
                ("unit", "printer/temperature"),
                ("gap", "printer/humidity"),
                ("duplicates", "printer/speed"),
                ("clock", "printer/force"),
                ("label-code", "aoi"),
            },
        ),
    ],
    ids=["good", "faulty"],
)
def test_it_finds_each_fault_and_no_more_and_publishes_nothing(
    tmp_path: Path, broker: Server, faults: Faults, expected: set[tuple[str, str]]
) -> None:
    async def main() -> None:
        heard: Counter[str] = Counter()

        def listen(message: Message) -> None:
            heard[message.topic] += 1

        config, page, record = configured(tmp_path, broker), tmp_path / "report.html", tmp_path / "heard.jsonl"
        connector = PahoConnector(BrokerConfig(url=broker.url))
        async with connector.connect("listener", on_message=listen) as session:
            await session.subscribe("#")
            async with plant(broker, faults) as said:
                code, out = await assess(
                    *("--config", str(config), "--seconds", "80", "--max-messages", str(ENOUGH), "--no-training"),
                    *("--json", "--html", str(page), "--record", str(record)),
                )
                assert set(heard) <= set(said)
                assert all(heard[topic] <= said[topic] for topic in heard)
        content = json.loads(out)
        assert found(out) == expected, content["findings"]
        assert code == (Exit.FINDINGS if expected else Exit.OK)
        assert content["messages"] == ENOUGH
        assert content["ended"] == f"{ENOUGH:,} messages were enough"
        assert content["round_trip"]["median_ms"] > 0
        assert content["samples"] > 20
        assert not (tmp_path / "data").exists()
        text = page.read_text("utf-8")
        assert all(where in text for _, where in expected)

        again, out = await assess("--config", str(config), "--data", str(record), "--no-training", "--json")
        assert (again, found(out)) == (code, expected)

    run(main(), 110)


def test_a_broker_that_lets_it_only_read_is_enough(tmp_path: Path) -> None:
    acl = "user reader\ntopic read #\nuser plant\ntopic readwrite #\n"

    async def main(server: Server) -> None:
        config = configured(tmp_path, server)
        settings: dict[str, Any] = yaml.safe_load(config.read_text("utf-8"))
        (tmp_path / "password").write_text("r", "utf-8")
        settings["broker"] |= {"username": "reader", "password_file": "password"}
        config.write_text(yaml.safe_dump(settings), "utf-8")
        (tmp_path / "plant").write_text("p", "utf-8")
        broker = BrokerConfig(url=server.url, username="plant", password_file=tmp_path / "plant")
        async with PahoConnector(broker).connect("line", on_message=lambda _: None) as session:
            for heard in list(messages(1))[:4]:
                await session.publish(heard.topic, heard.payload, retain=True)
        code, out = await assess("--config", str(config), "--seconds", "1", "--no-training", "--json")
        assert code == Exit.FINDINGS
        assert found(out) == {("coverage", "paste_height")}
        assert json.loads(out)["round_trip"]["failed"] is None

    with mosquitto(passwords={"reader": "r", "plant": "p"}, acl=acl) as server:
        run(main(server), 60)


def test_a_plant_that_is_away_ends_with_a_sentence(tmp_path: Path, broker: Server) -> None:
    config = configured(tmp_path, broker)
    broker.kill()

    async def main() -> None:
        code, out = await assess("--config", str(config), "--seconds", "1", "--no-training", "--json")
        assert (code, out) == (Exit.BROKER, "")

    run(main(), 60)


def test_it_proposes_a_map_from_a_broker_and_publishes_nothing(tmp_path: Path, broker: Server) -> None:
    async def main() -> None:
        heard: Counter[str] = Counter()

        def listen(message: Message) -> None:
            heard[message.topic] += 1

        configured(tmp_path, broker)
        connector = PahoConnector(BrokerConfig(url=broker.url))
        async with connector.connect("listener", on_message=listen) as session:
            await session.subscribe("#")
            async with plant(broker, Faults()) as said:
                code, out = await assess(
                    *("--suggest", "--broker", broker.url, "--contract", str(tmp_path / "contract.yaml")),
                    *("--seconds", "60", "--max-messages", "400", "acme/#"),
                )
                assert set(heard) <= set(said)
                assert all(heard[topic] <= said[topic] for topic in heard)
        assert code == Exit.OK
        bound = bind(SignalMap.model_validate(yaml.safe_load(out)), Contract.model_validate(CONTRACT))
        assert bound.is_labelled

    run(main(), 110)
