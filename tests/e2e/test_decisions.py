"""A plant's decisions as SCADA sees them: an edge process on Mosquitto, its leaves by `mosquitto_sub`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.aio import run
from tests.edge.test_decisions import announced, slanted
from tests.edge.versions import CONTRACT, LINE, TEMPLATE, plan_of
from tests.servers import Server
from uns_topics.model import Value
from uns_topics.payloads import Writer
from uns_topics.presence import AggregatorStatus
from uns_topics.tensors import Vector, vector_bytes
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest, chunk_of, encode_chunk

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(240)]

LEAVES = f"{LINE}/_inference/tiny"
STATUS = "fl/v1/tiny/up/berlin/status"
QUALITY = {"min_samples": 1, "max_missing": 0.2, "min_dwell_s": 60}
SOURCES = [
    {
        "topic": f"{LINE}/spi", "form": "flat", "key": "board",
        "features": [{"feature": f"x{i}", "field": f"x{i}", "unit": ""} for i in range(2)],
    },
    {
        "topic": f"{LINE}/aoi", "form": "flat", "key": "board",
        "label": {"field": "verdict", "source": "aoi", "codes": {"OK": "good", "NOK": "defect"}},
    },
]  # fmt: skip


class Plant:
    """The plant's tags, an aggregator's words, and what `mosquitto_sub` has printed: the last line of each topic."""

    def __init__(self, folder: Path, server: Server, session: Session) -> None:
        self.folder = folder
        self.server = server
        self.session = session
        self.last: dict[str, Any] = {}
        self.course: list[tuple[str, Any]] = []
        self.events: dict[str, Any] = {}
        self.changed = asyncio.Event()
        self.boards = 0
        self.edge: asyncio.subprocess.Process | None = None
        self.writer = Writer("tiny", "aggregator", "00000001")

    async def listen(self, sub: asyncio.subprocess.Process) -> None:
        assert sub.stdout is not None
        while line := (await sub.stdout.readline()).decode().rstrip("\n"):
            topic, _, payload = line.partition("\t")
            body = json.loads(payload) if payload else None
            self.last[topic] = body
            if topic.endswith("/event"):
                self.events[body["key"]] = body
            elif topic.startswith(LEAVES) and "/_edge/" not in topic:
                self.course.append((topic.rpartition("/")[2], body["value"]))
            self.changed.set()

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            log = (self.folder / "edge.log").read_text()[-3000:]
            raise AssertionError(f"never came: {what}\n{self.course[-12:]}\n{log}") from None

    def leaf(self, name: str) -> Any:
        body = self.last.get(f"{LEAVES}/{name}")
        return body["value"] if body is not None else None

    def shows(self, **leaves: Any) -> bool:
        return all(self.leaf(name) == value for name, value in leaves.items())

    def agree(self) -> bool:
        names = ("quality", "threshold", "alarm", "model_version", "variant", "score")
        return len({self.last[f"{LEAVES}/{name}"]["timestamp_ms"] for name in names}) == 1

    async def say(self, kind: Kind, body: Value) -> None:
        await self.session.publish(str(FlTopic("tiny", kind)), self.writer.seal(body), retain=True)

    async def chunks(self, kind: Kind, content: bytes, manifest: TransferManifest, **where: int) -> None:
        for index in range(len(manifest.chunks)):
            topic = str(FlTopic("tiny", kind, index=index, **where))
            await self.session.publish(topic, encode_chunk(chunk_of(content, manifest, index)), retain=True)

    async def version(self, number: int, vector: Vector) -> None:
        manifest = announced(number, vector)
        await self.chunks(Kind.MODEL_CHUNK, vector_bytes(vector), manifest.full, version=number)
        await self.say(Kind.MODEL_CURRENT, manifest)

    async def board(self, x0: float | None, verdict: str | None = None) -> str:
        key, stamp = f"B{self.boards}", 1_700_000_000_000 + 30_000 * self.boards
        self.boards += 1
        spi = {"timestamp": stamp, "board": key, "x0": x0, "x1": 3.5}
        await self.session.publish(f"{LINE}/spi", json.dumps(spi).encode())
        if verdict is not None:
            aoi = {"timestamp": stamp + 5000, "board": key, "verdict": verdict}
            await self.session.publish(f"{LINE}/aoi", json.dumps(aoi).encode())
        return key

    async def many(self, count: int) -> None:
        """Boards with verdicts; every fifth is bad. They end with a good one."""
        for index in range(count):
            is_bad = index % 5 == 0
            await self.board(9.0 if is_bad else float(index % 4), "NOK" if is_bad else "OK")

    async def score(self, x0: float) -> float:
        """What the model that runs says of a board."""
        key = await self.board(x0)
        await self.until(lambda: key in self.events, f"the event of {key}")
        return float(self.events[key]["score"])

    async def start(self, **inference: Any) -> None:
        settings = {
            "federation": "tiny", "participant": "berlin", "data_dir": "data", "signal_map": "signal-map.yaml",
            "contract": "contract.yaml", "broker": {"url": self.server.url}, "trainer": {"enabled": False},
            "inference": {"alarm": {"rule": "cost", "miss": 5, "false_alarm": 1, "hysteresis": 0.3}, **inference},
        }  # fmt: skip
        (self.folder / "edge.yaml").write_text(yaml.safe_dump(settings))
        alive = f"{LINE}/_inference/tiny/_edge/berlin/alive"
        self.last.pop(alive, None)
        with (self.folder / "edge.log").open("ab") as log:
            self.edge = await headgate("edge", "--config", str(self.folder / "edge.yaml"), stdout=log, stderr=log)
        await self.until(lambda: self.last.get(alive) is True, "the edge is alive")

    async def stop(self) -> None:
        if self.edge is not None:
            self.edge.terminate()
            await self.edge.wait()
            self.edge = None


async def headgate(*arguments: str, **streams: Any) -> asyncio.subprocess.Process:
    environment = {**os.environ, "HEADGATE_DIE_WITH_PARENT": "1", "OMP_NUM_THREADS": "1"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headgate", *arguments, env=environment, **streams
    )


@asynccontextmanager
async def plant(folder: Path, server: Server) -> AsyncIterator[Plant]:
    contract = {**CONTRACT.model_dump(mode="json"), "quality": QUALITY}
    (folder / "contract.yaml").write_text(yaml.safe_dump(contract))
    (folder / "signal-map.yaml").write_text(yaml.safe_dump({"signal_map": 1, "instance": LINE, "sources": SOURCES}))
    watch = ("-h", server.host, "-p", str(server.port), "-F", "%t\t%p", "-t", "acme/#", "-t", STATUS)
    sub = await asyncio.create_subprocess_exec(
        "mosquitto_sub", *watch, "-T", f"{LINE}/spi", "-T", f"{LINE}/aoi", stdout=asyncio.subprocess.PIPE
    )

    def ignore(_: Message) -> None:
        pass

    try:
        async with PahoConnector(BrokerConfig(url=server.url)).connect("federation", on_message=ignore) as session:
            made = Plant(folder, server, session)
            listening = asyncio.create_task(made.listen(sub))
            await made.say(Kind.AGGREGATOR_STATUS, AggregatorStatus(birth=1, state="online", epoch=1))
            plan = plan_of()
            await made.chunks(Kind.SKELETON_CHUNK, TEMPLATE.skeleton, plan.template.skeleton)
            await made.say(Kind.PLAN, plan)
            try:
                yield made
            finally:
                await made.stop()
                assert not listening.done(), listening.exception()
                listening.cancel()
    finally:
        sub.terminate()
        await sub.wait()


def test_probation_alarm_held_swap_hold_and_stale_as_scada_sees_them(tmp_path: Path, broker: Server) -> None:
    async def main() -> None:
        async with plant(tmp_path, broker) as p:
            await p.version(1, slanted(0.0))  # the same score for all
            await p.start(stale_after_s=600)

            # Probation: a number, uncertain, and never an alarm.
            await p.until(lambda: (p.last.get(STATUS) or {}).get("serves"), "version 1 serves")
            await p.board(9.0)
            await p.until(lambda: p.shows(quality=256, alarm=False, model_version=1, variant="global"), "probation")
            assert p.leaf("threshold") is None
            await p.many(600)
            await p.until(lambda: f"B{p.boards - 1}" in p.events, "all boards")
            await p.until(lambda: p.shows(quality=192, alarm=True), "the end of probation")
            assert p.course.index(("alarm", True)) > p.course.index(("quality", 192))

            # A version that would alarm far less often is held, too, until a person lets it pass.
            await p.version(2, slanted(1.0))
            await p.until(lambda: p.last[STATUS]["reason"] == "swap-held", "the swap is held")
            await p.until(lambda: p.shows(model_version=1, variant="last-good", alarm=True), "version 1 runs on")
            await p.board(0.0)
            released = await headgate("edge", "release", "--config", str(p.folder / "edge.yaml"), stdout=-1)
            said, _ = await released.communicate()
            assert released.returncode == 0
            assert said.decode().startswith("version 2 (global) may run instead of version 1: ")
            await p.until(lambda: p.shows(model_version=2, variant="global", alarm=False), "version 2 runs")
            await p.until(lambda: p.last[STATUS]["reason"] != "swap-held", "nothing is held any more")

            # Alarm: on past the threshold, still on in between, off below the clear level.
            threshold, low = p.leaf("threshold"), 0.7 * p.leaf("threshold")
            assert await p.score(9.0) > threshold
            await p.until(lambda: p.shows(alarm=True), "the alarm comes on")
            inner, outer = 0.0, 9.0
            while True:
                x0 = (inner + outer) / 2
                found = await p.score(x0)
                if low < found < threshold:
                    break
                inner, outer = (x0, outer) if found <= low else (inner, x0)
            p.course.clear()
            assert await p.score(9.0) > threshold
            assert low < await p.score(x0) < threshold
            assert await p.score(0.0) < low
            await p.until(lambda: p.shows(alarm=False), "the alarm goes off")
            assert [value for name, value in p.course if name == "alarm"][-3:] == [True, True, False]
            await p.until(p.agree, "siblings of one inference share a timestamp")
            assert p.course[-1][0] == "score", "the value comes last"

            # Hold: inference goes on, uncertain, and comes back.
            for _ in range(300):
                await p.board(None)
            await p.until(lambda: p.shows(quality=256) and p.last[STATUS]["state"] == "hold", "the gate holds")
            score = await p.score(1.0)
            await p.until(lambda: p.leaf("score") == score, "it infers on")
            await p.many(1500)
            while p.last[STATUS]["state"] == "hold":  # better for the dwell, too, in event time
                await p.score(1.0)
            await p.until(lambda: p.shows(quality=192) and p.last[STATUS]["state"] != "hold", "the gate lets go")

            # Over a restart the alarm is still on, and inputs that stopped are stale.
            await p.score(9.0)
            await p.until(lambda: p.shows(alarm=True) and p.agree(), "the alarm is on")
            score = p.leaf("score")
            await p.stop()
            await p.start(stale_after_s=1.0)
            await p.until(lambda: p.shows(quality=516), "stale")
            assert p.shows(alarm=True, score=score)
            await p.board(x0)
            await p.until(lambda: p.shows(quality=192), "back")
            assert p.shows(alarm=True)
            await p.board(0.0)
            await p.until(lambda: p.shows(alarm=False), "off")
            await p.until(p.agree, "one timestamp")

    run(main(), timeout_s=220)
