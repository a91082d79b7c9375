"""A federation of real processes on a real broker, driven and watched by a test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from edge.outputs import alive_topic
from headgate.demo.watch import View
from tests.servers import Server
from uns_topics.rounds import RoundSummary

FEDERATION = "solder-defect"
CONTRACT: dict[str, Any] = {
    "contract": 1,
    "federation": FEDERATION,
    "features": [
        {"name": "volume", "unit": "%", "minimum": 0, "maximum": 200},
        {"name": "height", "unit": "um", "minimum": 0, "maximum": 300, "optional": True},
    ],
    "label": {
        "kind": "classes",
        "name": "solder",
        "classes": ["good", "defect"],
        "positive": "defect",
        "matures_after_s": 300.0,
    },
    "sample": {"kind": "event", "key": "board"},
    "metric": "average_precision",
    "quality": {"min_samples": 50},
}
NUMPY_TRAINER = (sys.executable, "-m", "tests.support.numpy_trainer")
HANGING_TRAINER = (sys.executable, "-m", "tests.support.hanging_trainer")


def signal_map(participant: str) -> dict[str, Any]:
    """Boards and verdicts of one line."""
    path = f"acme/{participant}/smt/line1"
    return {
        "signal_map": 1,
        "instance": path,
        "sources": [
            {
                "topic": f"{path}/spi",
                "form": "flat",
                "keys": {"timestamp": "timestamp_ms"},
                "key": "board",
                "features": [
                    {"feature": "volume", "field": "volume", "unit": "%"},
                    {"feature": "height", "field": "height", "unit": "um"},
                ],
            },
            {
                "topic": f"{path}/aoi",
                "form": "flat",
                "keys": {"timestamp": "timestamp_ms"},
                "key": "board",
                "label": {"field": "verdict", "source": "aoi", "codes": {"OK": "good", "BRIDGE": "defect"}},
            },
        ],
    }


def inspected(index: int, own: float = 0.0) -> tuple[float, str]:
    """Paste volume and verdict of a board: every tenth has too much and a bridge. Args: own: a plant's own offset."""
    is_bad = index % 10 == 3
    return (150.0 if is_bad else 95.0) + own + index % 7, "BRIDGE" if is_bad else "OK"


@dataclass
class Service:
    """A `headgate` process with its log."""

    process: asyncio.subprocess.Process
    log: Path

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Federation:
    """Configuration files under `folder`, processes, and what a dashboard sees."""

    folder: Path
    server: Server
    protocol: str = "3.1.1"
    trainer: Sequence[str] | None = NUMPY_TRAINER
    tolerances: dict[str, Any] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    session: Session | None = None
    view: View = field(default_factory=lambda: View(FEDERATION, "score", time.monotonic()))
    plants: dict[str, Session] = field(default_factory=dict)
    """Sessions with plants' own brokers, by participant; without one its tags are on the federation's broker."""
    boards: dict[str, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    listener: Callable[[Message], None] | None = None
    """Called with each message after the view took it in."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def broker(self) -> dict[str, Any]:
        return {"url": self.server.url, "protocol": self.protocol}

    def write(self, name: str, content: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path

    async def start(self, name: str, *arguments: str, module: str = "headgate") -> Service:
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, stdout=file, stderr=file,
                env={**os.environ, "HEADGATE_DIE_WITH_PARENT": "1", "OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parent.parent.parent,
            )  # fmt: skip
        self.services[name] = Service(process, log)
        return self.services[name]

    async def start_aggregator(self, model: Path, *arguments: str, **settings: Any) -> Service:
        tolerances = {"rounds": 2, "quorum": 2, "deadline_s": 30.0, "bootstrap_s": 5.0, "min_new_samples": 0}
        config = {
            "federation": FEDERATION,
            "model": str(model),
            "data_dir": "aggregator",
            "broker": self.broker(),
            "training": {"steps": 20, "batch_size": 32},
            "tolerances": {**tolerances, **self.tolerances},
            "heartbeat_s": 0.5,
            **settings,
        }
        path = self.write("aggregator.yaml", config)
        return await self.start("aggregator", "aggregator", "--config", str(path), *arguments)

    def write_edge(self, participant: str, *, tags: Mapping[str, Any] | None = None, **settings: Any) -> Path:
        """The configuration of an edge of boards and verdicts, with its files."""
        self.write(f"{participant}/signal-map.yaml", tags or signal_map(participant))
        self.write("contract.yaml", CONTRACT)
        trainer = {"command": list(self.trainer)} if self.trainer is not None else {}
        config = {
            "federation": FEDERATION,
            "participant": participant,
            "data_dir": "data",
            "broker": self.broker(),
            "signal_map": "signal-map.yaml",
            "contract": "../contract.yaml",
            "trainer": trainer,
            **settings,
        }
        return self.write(f"{participant}/edge.yaml", config)

    async def start_edge(self, participant: str, **settings: Any) -> Service:
        """Args: settings: of the edge; `tags` is another signal map than that of boards and verdicts."""
        path = self.write_edge(participant, **settings)
        return await self.start(participant, "edge", "--config", str(path))

    async def listening(self, participant: str) -> None:
        """Until the edge says that it reads its plant."""
        topic = alive_topic(f"acme/{participant}/smt/line1", FEDERATION, participant)
        await self.until(lambda: any(m.topic == topic and m.payload == b"true" for m in self.messages), f"{topic} true")

    async def publish_boards(self, participant: str, count: int, **more: float) -> None:
        """Boards and their verdicts. Args: more: fields of each board."""
        session = self.plants.get(participant, self.session)
        assert session is not None
        first = self.boards.get(participant, 0)
        own = sum(participant.encode()) % 40 / 8  # plants with the very same boards would be refused as copies
        sends = []
        for index in range(first, first + count):
            stamp = 1_700_000_000_000 + index * 30_000
            volume, verdict = inspected(index, own)
            spi = {"timestamp_ms": stamp, "board": f"B{index}", "volume": volume, "height": 110.0 + index % 5, **more}
            aoi = {"timestamp_ms": stamp + 5000, "board": f"B{index}", "verdict": verdict}
            for leaf, body in (("spi", spi), ("aoi", aoi)):
                topic = f"acme/{participant}/smt/line1/{leaf}"
                sends.append(session.publish(topic, json.dumps(body).encode()))
        self.boards[participant] = first + count
        await asyncio.gather(*sends)

    def on_plant_message(self, message: Message) -> None:
        """A message on a plant's own broker."""
        self.messages.append(message)
        self._changed.set()

    def on_message(self, message: Message) -> None:
        self.messages.append(message)
        self.view.on_message(message)
        if self.listener is not None:
            self.listener(message)
        self._changed.set()

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> None:
        """Wait until the broker's messages bring a condition about."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    dead = [n for n, s in self.services.items() if s.process.returncode not in (None, 0, -9)]
                    assert not dead, f"{dead[0]} ended: {self.services[dead[0]].tail()}"
                    await self._changed.wait()
        except TimeoutError:
            logs = "\n".join(f"--- {name}\n{service.tail()}" for name, service in self.services.items())
            raise AssertionError(f"never came: {what}\n{logs}") from None

    def summary(self, round_number: int) -> RoundSummary | None:
        """A round that has ended, as the history tells it."""
        rounds = self.view.history.rounds if self.view.history is not None else ()
        return next((ended for ended in rounds if ended.round_number == round_number), None)

    @property
    def rests(self) -> bool:
        """The last round is done, and its version is announced as the final one."""
        return self.view.resting and self.view.current is not None and self.view.current.final

    def serves(self, participant: str, version: int) -> bool:
        """Whether its status says that it holds and serves this version."""
        known = self.view.participants.get(participant)
        status = known.status if known is not None else None
        is_served = status is not None and status.serves is not None and status.serves.version == version
        return status is not None and is_served and status.holds_version == version

    def scores(self, participant: str, version: int) -> list[Message]:
        """Inference events of a participant by this version."""
        mark = f'"model_version":{version},'.encode()
        root = f"acme/{participant}/smt/line1/_inference/{FEDERATION}/event"
        return [m for m in self.messages if m.topic == root and mark in m.payload]

    async def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        service = self.services.pop(name)
        service.process.send_signal(how)
        async with asyncio.timeout(10):
            return await service.process.wait()


@asynccontextmanager
async def federation(folder: Path, server: Server, **settings: Any) -> AsyncIterator[Federation]:
    """A federation whose processes all end with the test."""
    made = Federation(folder, server, **settings)
    connector = PahoConnector(BrokerConfig(url=server.url))
    async with connector.connect("test-watch", on_message=made.on_message) as session:
        await session.subscribe(
            "fl/v1/+/down/status", "fl/v1/+/down/plan", "fl/v1/+/down/round", "fl/v1/+/down/history"
        )
        await session.subscribe("fl/v1/+/down/model/current", "fl/v1/+/down/model/candidate", "fl/v1/+/up/#", "acme/#")
        made.session = session
        try:
            yield made
        finally:
            for service in made.services.values():
                with suppress(ProcessLookupError):
                    service.process.kill()
            await asyncio.gather(*(service.process.wait() for service in made.services.values()))
