"""From a sensor message to the inference topic, beside a bare echo through the same broker in the same run.

Also: messages per second that one edge sustains, and the memory of an edge that only infers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.support import row
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.e2e.federation import FEDERATION, Federation, federation
from tests.e2e.models import make_base_model
from tests.servers import Server, mosquitto

PACED = 500
FLOOD = 20_000
WINDOW = 500
PLANT = "berlin"
ROOT = f"acme/{PLANT}/smt/line1"
EVENT = f"{ROOT}/_inference/{FEDERATION}/event"


class Board:
    """Publishes boards one by one and waits for what comes back on `answer`."""

    def __init__(self, session: Session, topic: str) -> None:
        self._session = session
        self._topic = topic
        self._back: dict[str, asyncio.Future[float]] = {}
        self.count = 0

    def on_answer(self, payload: bytes) -> None:
        """The answer to a board."""
        waiting = self._back.pop(json.loads(payload)["board" if b'"board"' in payload else "key"], None)
        if waiting is not None and not waiting.done():
            waiting.set_result(time.perf_counter())

    async def send(self) -> float:
        """Publish a board; seconds until its answer."""
        self.count += 1
        key = f"T{self.count}"
        body = {"timestamp_ms": 1_700_000_000_000 + self.count, "board": key, "volume": 101.5, "height": 110.0}
        back = self._back[key] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        await self._session.publish(self._topic, json.dumps(body).encode())
        return await back - started


async def paced(board: Board) -> list[float]:
    """One board after the other, sorted seconds."""
    for _ in range(50):
        await board.send()
    return sorted([await board.send() for _ in range(PACED)])


async def measure(server: Server, model: Path, folder: Path) -> None:
    """All figures of one run."""
    async with federation(folder, server) as made:
        edge = await made.start_edge(PLANT, trainer={"enabled": False})
        await made.listening(PLANT)
        await made.start_aggregator(model)
        await made.until(lambda: made.serves(PLANT, 0), "version 0 serves")
        assert made.session is not None
        board = Board(made.session, f"{ROOT}/spi")
        made.listener = lambda message: board.on_answer(message.payload) if message.topic == EVENT else None
        seconds = await paced(board)
        echo_seconds = await _echo(server)
        for name, values in (("sensor message to inference topic", seconds), ("bare echo", echo_seconds)):
            p99 = values[int(0.99 * len(values))]
            row(f"{name}, p50 / p99 (ms)", f"{statistics.median(values) * 1e3:.2f} / {p99 * 1e3:.2f}")
        row("  ratio of the medians", f"{statistics.median(seconds) / statistics.median(echo_seconds):.1f}")
        rate, cpu = await _flood(made, edge.process.pid)
        row("messages per second one edge sustains (inference on each)", f"{rate:,.0f}")
        row("  CPU microseconds of the edge per message", f"{cpu * 1e6:,.0f}")
        row(
            "memory of an inference-only edge (MB resident)",
            f"{psutil.Process(edge.process.pid).memory_info().rss / 1e6:.0f}",
        )


async def _echo(server: Server) -> list[float]:
    """The same messages through a client that publishes what it reads, and nothing else."""
    connector = PahoConnector(BrokerConfig(url=server.url))
    async with asyncio.TaskGroup() as tasks:

        def on_message(message: Message) -> None:
            tasks.create_task(echoing.publish("bench/back", message.payload))

        async with (
            connector.connect("bench-echo", on_message=on_message) as echoing,
            connector.connect("bench-asker", on_message=lambda m: board.on_answer(m.payload)) as asking,
        ):
            board = Board(asking, "bench/there")
            await echoing.subscribe("bench/there")
            await asking.subscribe("bench/back")
            return await paced(board)


async def _flood(made: Federation, pid: int) -> tuple[float, float]:
    """Messages per second until all were inferred, and the edge's CPU seconds per message."""
    assert made.session is not None
    seen, done = 0, asyncio.Event()

    def on_event(message: Message) -> None:
        nonlocal seen
        if message.topic == EVENT:
            seen += 1
            if seen >= FLOOD:
                done.set()

    made.listener = on_event
    process = psutil.Process(pid)
    cpu = sum(process.cpu_times()[:2])
    started = time.perf_counter()
    for first in range(0, FLOOD, WINDOW):
        bodies = [
            {"timestamp_ms": 1_700_100_000_000 + i, "board": f"F{i}", "volume": 101.5, "height": 110.0}
            for i in range(first, first + WINDOW)
        ]
        await asyncio.gather(*(made.session.publish(f"{ROOT}/spi", json.dumps(b).encode()) for b in bodies))
    await done.wait()
    return FLOOD / (time.perf_counter() - started), (sum(process.cpu_times()[:2]) - cpu) / FLOOD


def main() -> None:
    """On a Mosquitto of its own."""
    with tempfile.TemporaryDirectory() as name, mosquitto() as server:
        folder = Path(name)
        asyncio.run(measure(server, make_base_model(folder, "64,32"), folder))


if __name__ == "__main__":
    main()
