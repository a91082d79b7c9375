"""Round overhead: trivial training, 100,000 parameters, real processes on a real Mosquitto.

Beside it, the floor: the same bytes up and down between bare MQTT clients on the same broker, nothing stored or
checked.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.support import row
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from tests.e2e.federation import Federation, federation
from tests.e2e.models import make_base_model
from tests.servers import Server, mosquitto
from uns_topics.topics import FlTopic, Kind, TopicError

ROUNDS = 10
WARM_UP = 1
HIDDEN = "310,310"
CHUNK = 256 * 1024


@dataclass
class Clock:
    """When each round's steps were seen on the broker."""

    opened: dict[int, float] = field(default_factory=dict)
    candidate: dict[int, float] = field(default_factory=dict)
    delivered: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    current: int = 0

    def watch(self, made: Federation, message: Message) -> None:
        """Note the time of a step."""
        try:
            kind = FlTopic.parse(message.topic).kind
        except TopicError:
            return
        now = time.monotonic()
        if kind is Kind.ROUND and made.view.round is not None:
            self.current = made.view.round.round_number
            self.opened.setdefault(self.current, now)
        elif kind is Kind.LAST_UPDATE:
            self.delivered[self.current] = now
        elif kind is Kind.MODEL_CANDIDATE and message.payload:
            self.candidate.setdefault(self.current, now)
        elif kind is Kind.HISTORY and made.view.history is not None:
            for summary in made.view.history.rounds:
                self.ended.setdefault(summary.round_number, now)


async def measure(server: Server, participants: int, model: Path, folder: Path) -> None:
    """One federation through its rounds; prints a row."""
    clock = Clock()
    tolerances = {"rounds": ROUNDS + WARM_UP, "quorum": participants, "bootstrap_s": 60.0}
    async with federation(folder, server, tolerances=tolerances) as made:
        made.listener = lambda message: clock.watch(made, message)
        names = [f"plant-{number}" for number in range(participants)]
        for name in names:
            await made.start_edge(name)
        for name in names:
            await made.listening(name)
            await made.publish_boards(name, 120)
        await made.start_aggregator(model)
        await made.until(lambda: made.rests, "the last round", timeout_s=300)
        rounds = range(1 + WARM_UP, ROUNDS + WARM_UP + 1)
        whole = [clock.ended[n] - clock.opened[n] for n in rounds]
        collecting = [clock.candidate[n] - clock.opened[n] for n in rounds]
        evaluating = [clock.ended[n] - clock.candidate[n] for n in rounds]
        known = made.view.participants[names[0]].status
        assert known is not None
        size = made.view.current.full.bytes if made.view.current is not None else 0
    floor = await bare_exchange(server, participants, size)
    row(f"{participants} participants: seconds per round (median)", f"{statistics.median(whole):.3f}")
    row("  training, upload, checks, store, fold, publish", f"{statistics.median(collecting):.3f}")
    row("  fetch, verify, evaluate, promote", f"{statistics.median(evaluating):.3f}")
    row("  bare MQTT exchange of the same bytes", f"{floor:.3f}")
    row("  ratio to the bare exchange", f"{statistics.median(whole) / floor:.1f}")
    per_round = (known.bytes_up / (ROUNDS + WARM_UP) / 1024, known.bytes_down / (ROUNDS + WARM_UP) / 1024)
    row("  KiB a round and participant, up / down", f"{per_round[0]:.0f} / {per_round[1]:.0f}")


async def bare_exchange(server: Server, participants: int, size: int) -> float:
    """Median seconds in which N clients send `size` bytes to one, and it sends `size` bytes to all."""
    arrived = asyncio.Event()
    received = 0

    def on_up(message: Message) -> None:
        nonlocal received
        received += len(message.payload)
        if received >= participants * size:
            arrived.set()

    got = [0] * participants
    all_down = asyncio.Event()

    def on_down(index: int, message: Message) -> None:
        got[index] += len(message.payload)
        if all(count >= size for count in got):
            all_down.set()

    connector = PahoConnector(BrokerConfig(url=server.url))
    chunks = [bytes(min(CHUNK, size - start)) for start in range(0, size, CHUNK)]
    async with asyncio.TaskGroup() as tasks, _opened(connector, "floor-hub", on_up) as hub:
        await hub.subscribe("floor/up/#")
        clients = [_opened(connector, f"floor-{i}", lambda m, i=i: on_down(i, m)) for i in range(participants)]
        sessions = [await client.__aenter__() for client in clients]
        for session in sessions:
            await session.subscribe("floor/down/#")
        times = []
        for _ in range(5):
            received, got[:] = 0, [0] * participants
            arrived.clear()
            all_down.clear()
            started = time.monotonic()
            for i, session in enumerate(sessions):
                for chunk in chunks:
                    tasks.create_task(session.publish(f"floor/up/{i}", chunk))
            await arrived.wait()
            for chunk in chunks:
                tasks.create_task(hub.publish("floor/down/model", chunk))
            await all_down.wait()
            times.append(time.monotonic() - started)
        for client in clients:
            await client.__aexit__(None, None, None)
    return statistics.median(times)


def _opened(connector: PahoConnector, name: str, on_message):  # type: ignore[no-untyped-def]
    return connector.connect(name, on_message=on_message)


def main() -> None:
    """4 and 10 participants."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_base_model(folder, HIDDEN)
        for participants in (4, 10):
            with mosquitto() as server:
                asyncio.run(measure(server, participants, model, folder / str(participants)))


if __name__ == "__main__":
    main()
