"""An edge as a Sparkplug node on Mosquitto, as pysparkplug and mosquitto_sub hear it, over a kill -9 and a restart."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.aio import run
from tests.e2e.federation import FEDERATION, Federation, federation, inspected
from tests.e2e.sparkplug_node import HEIGHT, VOLUME, spi_source
from tests.e2e.test_leave import leave
from tests.servers import Server, free_port
from tests.support.prometheus import fetch, scrape
from tests.support.pysparkplug_environment import Peer, peer
from uns_topics.sparkplug import SparkplugTopic, decode_payload

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

DEVICE = "acme:berlin:smt:line1"
GROUP, NODE = "Headgate", "berlin-1"
READY = "ready"
"""Retained: whoever gets it is subscribed."""
ONE_ROUND = {"rounds": 1, "quorum": 1, "deadline_s": 30.0, "bootstrap_s": 1.0, "min_new_samples": 0}
BOARD = {"Board/Serial": "none", "Board/Paste volume": 0.0, "Board/Paste height": 0.0, "Board/Verdict": "none"}
SIGNAL_MAP: dict[str, Any] = {
    "signal_map": 1,
    "instance": "acme/{plant}/smt/line1",
    "sources": [spi_source(VOLUME, HEIGHT)],
}


class Watch:
    """What pysparkplug and mosquitto_sub hear of the node."""

    def __init__(self, reader: Peer) -> None:
        self._reader = reader
        self.raw: list[tuple[str, int, int, bytes]] = []

    @property
    def heard(self) -> list[dict[str, Any]]:
        lines = self._reader.lines
        assert not any("error" in line for line in lines), [line for line in lines if "error" in line]
        mine = f"spBv1.0/{GROUP}/"
        return [line for line in lines if line["topic"].startswith(mine) and line["kind"] != "NCMD"]

    @property
    def kinds(self) -> list[str]:
        return [line["kind"] for line in self.heard]

    def numbers(self, kind: str) -> list[int]:
        return [values(line)["bdSeq"] for line in self.heard if line["kind"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        return [line for line in self.heard if line["kind"] == kind][-1]


def values(line: dict[str, Any]) -> dict[str, Any]:
    return {metric["name"]: metric["value"] for metric in line["metrics"]}


@asynccontextmanager
async def mosquitto_sub(server: Server, watch: Watch) -> AsyncIterator[None]:
    """Topic, QoS, retain flag and bytes as Mosquitto's own client has them."""
    program = shutil.which("mosquitto_sub")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        *(program, "-h", server.host, "-p", str(server.port), "-q", "1", "-t", f"spBv1.0/{GROUP}/#", "-t", READY),
        *("-F", "%q %r %x %t"),
        stdout=asyncio.subprocess.PIPE,
    )

    ready = asyncio.Event()

    async def listen() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            qos, retain, raw, topic = line.decode().rstrip("\n").split(" ", 3)
            if topic == READY:
                ready.set()
            elif "/NCMD/" not in topic:
                watch.raw.append((topic, int(qos), int(retain), bytes.fromhex(raw)))

    listening = asyncio.create_task(listen())
    try:
        await ready.wait()
        yield
    finally:
        process.terminate()
        await process.wait()
        await listening


class Line:
    """The line's own edge node, which pysparkplug plays. Attributes: last_ms: of its last board."""

    def __init__(self) -> None:
        self._start_ms = round(time.time() * 1000) - 200 * 30_000
        self._index = 0

    @property
    def last_ms(self) -> int:
        return self._start_ms + (self._index - 1) * 30_000

    def boards(self, node: Peer, count: int) -> None:
        for index in range(self._index, self._index + count):
            volume, verdict = inspected(index)
            node.tell(
                {
                    "timestamp": self._start_ms + index * 30_000,
                    "Board/Serial": f"B{index}",
                    "Board/Paste volume": volume,
                    "Board/Paste height": 110.0 + index % 5,
                    "Board/Verdict": verdict,
                }
            )
        self._index += count


def test_a_host_sees_births_data_a_rebirth_and_deaths_over_a_kill_and_a_restart(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker) as f, peer(broker, "read") as reader:
            watch = Watch(reader)
            assert f.session is not None
            await f.session.publish(READY, b"1", retain=True)
            async with mosquitto_sub(broker, watch):
                listen = f"127.0.0.1:{free_port()}"
                await start(f, health={"listen": listen})
                await reader.until(lambda: watch.kinds == ["NBIRTH"], "the node's birth")
                shown = await scrape(listen)
                assert shown.value("headgate_edge_connected", session="spb") == 1
                assert shown.value("headgate_edge_sparkplug_born") == 1
                assert "sparkplug:" not in (await fetch(listen, "/readyz"))[1]
                birth = watch.last("NBIRTH")
                assert values(birth)["Properties/Federation"] == FEDERATION
                assert values(birth)["Node Control/Rebirth"] is False
                line = Line()
                async with peer(broker, "node", "berlin", "line1", "spi", first=BOARD) as node:
                    await line_is_born(reader, 1)
                    line.boards(node, 150)
                    await f.start_aggregator(base_model, tolerances=ONE_ROUND)
                    await f.until(lambda: f.rests, "the only round")
                    assert f.view.current is not None
                    version = f.view.current.version
                    await f.until(lambda: f.serves("berlin", version), f"berlin serves version {version}")
                    line.boards(node, 1)
                    await sees_inference(reader, watch, version, line.last_ms)
                    await rebirth(reader, watch)
                await kill_and_restart(f, reader, watch)
                async with peer(broker, "node", "berlin", "line1", "spi", first=BOARD) as node:
                    await line_is_born(reader, 2)  # anew: the edge has to hear it
                    line.boards(node, 1)
                    await reader.until(lambda: "DBIRTH" in kinds_since_restart(watch), "the device after the restart")
                    assert values(watch.last("DBIRTH"))["model_version"] == version
                assert await f.stop("berlin") == 0
                await reader.until(lambda: watch.numbers("NDEATH") == [0, 1], "the death of a clean stop")
                code, said = await leave(tmp_path, "berlin")
                assert code == 0, said
                await reader.until(lambda: watch.numbers("NDEATH") == [0, 1, 1], "the farewell")
            read_alike(watch)

    run(main(), timeout_s=140)


async def start(f: Federation, **settings: Any) -> None:
    f.write("berlin/sparkplug.yaml", SIGNAL_MAP)
    inference = {"home": "acme/berlin/smt/line1", "sparkplug": {"group": GROUP, "node": NODE}}
    await f.start_edge("berlin", signal_map="sparkplug.yaml", inference=inference, **settings)
    await f.listening("berlin")


async def line_is_born(reader: Peer, times: int) -> None:
    def births() -> int:
        return sum(line["topic"] == "spBv1.0/berlin/DBIRTH/line1/spi" for line in reader.lines)

    await reader.until(lambda: births() == times, "the births of the line")


async def sees_inference(reader: Peer, watch: Watch, version: int, at_ms: int) -> None:
    def stamps() -> set[int]:
        return {metric["timestamp"] for line in watch.heard if line["kind"] == "DDATA" for metric in line["metrics"]}

    await reader.until(lambda: at_ms in stamps(), "inference for the last board")
    versions = [
        values(line)["model_version"]
        for line in watch.heard
        if line["kind"] in ("DBIRTH", "DDATA") and "model_version" in values(line)
    ]
    assert versions[-1] == version
    device = watch.last("DBIRTH")
    assert device["device"] == DEVICE
    assert set(values(device)) == {"quality", "model_version", "variant", "score"}
    data = watch.last("DDATA")
    (score,) = [metric for metric in data["metrics"] if metric["name"] == "score"]
    assert 0.0 <= score["value"] <= 1.0
    assert {"name", "datatype"} <= set(score["sent"])
    assert score["properties"]["Quality"][:2] == [3, "int_value"]
    assert score["properties"]["Quality"][2] in (0, 192)
    assert "NDATA" in watch.kinds  # the model came while it was there


async def rebirth(reader: Peer, watch: Watch) -> None:
    assert watch.kinds.count("NBIRTH") == 1
    reader.tell({"rebirth": [GROUP, NODE]})
    await reader.until(lambda: watch.kinds[-2:] == ["NBIRTH", "DBIRTH"], "a rebirth")
    assert watch.kinds.count("NBIRTH") == 2
    assert set(watch.numbers("NBIRTH")) == {0}
    assert [line["seq"] for line in watch.heard[-2:]] == [0, 1]
    assert values(watch.heard[-1])["score"] is not None


async def kill_and_restart(f: Federation, reader: Peer, watch: Watch) -> None:
    await f.stop("berlin", signal.SIGKILL)
    await reader.until(lambda: watch.numbers("NDEATH") == [0], "the will")
    assert watch.heard[-1]["qos"] == 1
    f.messages.clear()  # what the process before said doesn't tell that this one listens
    await start(f)
    await reader.until(lambda: watch.numbers("NBIRTH")[-1] == 1, "the next session's birth")
    assert values(watch.last("NBIRTH"))["bdSeq"] == 1


def kinds_since_restart(watch: Watch) -> list[str]:
    return watch.kinds[watch.kinds.index("NDEATH") + 1 :]


def read_alike(watch: Watch) -> None:
    """Mosquitto's client has the same messages; nothing is retained; `seq` has no gap within a session."""
    assert len(watch.raw) >= len(watch.heard) - 1  # the last one may be on its way
    for (topic, qos, retain, raw), line in zip(watch.raw, watch.heard, strict=False):
        parsed = SparkplugTopic.parse(topic)
        assert parsed is not None
        assert (line["topic"], line["qos"], line["retain"], retain) == (topic, qos, False, 0)
        payload = decode_payload(raw)
        assert line["seq"] == payload.seq
        assert [(m["value"], m["timestamp"]) for m in line["metrics"]] == [
            (m.value, m.timestamp_ms) for m in payload.metrics
        ]
    expected = 0
    for line in watch.heard:
        if line["kind"] == "NDEATH":
            assert line["seq"] is None
            continue
        expected = 0 if line["kind"] == "NBIRTH" else (expected + 1) % 256
        assert line["seq"] == expected
