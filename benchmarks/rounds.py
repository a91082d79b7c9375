"""Round overhead: trivial training, 100,000 parameters, real processes on a real Mosquitto.

    python -m benchmarks.rounds [--participants 4,10] [--rounds 10]

Beside it, the floor: the same bytes up and down between bare MQTT clients on the same broker, nothing stored or
checked; and a Flower deployment with as many SuperNodes. Bytes are counted on the participants' TCP connections, in
runs of their own for ours: what counts them would be in the way.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.flower_rounds import flower_run
from benchmarks.support import row
from benchmarks.traffic import Traffic, counted
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message
from tests.e2e.federation import Federation, federation
from tests.e2e.models import make_base_model
from tests.servers import Server, mosquitto
from tests.support.flower_environment import flower_python
from uns_topics.topics import FlTopic, Kind, TopicError

ROUNDS = 10
WARM_UP = 1
HIDDEN = "310,310"
CHUNK = 256 * 1024
PLAIN: dict[str, Any] = {"encodings": ["f32"], "downlink": None}
TERNARY: dict[str, Any] = {"encodings": ["ternary"], "downlink": "ternary"}


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


@dataclass(frozen=True)
class Overhead:
    """Medians over rounds, in seconds; bytes that one participant sent and received in a round, 0 where not counted."""

    whole: float
    collecting: float
    evaluating: float
    model_bytes: int
    up: float
    down: float


async def run(server: Server, participants: int, rounds: int, model: Path, folder: Path, **settings: Any) -> Overhead:
    """One federation through its rounds.

    Args: settings: of the aggregator; `traffic`: where the edges connect instead.
    """
    traffic: Traffic | None = settings.pop("traffic", None)
    edge = {} if traffic is None else {"broker": {"url": f"mqtt://127.0.0.1:{traffic.port}"}}
    clock = Clock()
    tolerances = {"rounds": rounds + WARM_UP, "quorum": participants, "bootstrap_s": 60.0}
    async with federation(folder, server, tolerances=tolerances) as made:
        made.listener = lambda message: clock.watch(made, message)
        names = [f"plant-{number}" for number in range(participants)]
        for name in names:
            await made.start_edge(name, **edge)
        for name in names:
            await made.listening(name)
            await made.publish_boards(name, 120)
        await made.start_aggregator(model, **settings)
        await made.until(lambda: made.rests, "the last round", timeout_s=300)
        numbers = range(1 + WARM_UP, rounds + WARM_UP + 1)
        assert made.view.current is not None
        up = down = 0
        if traffic is not None:
            traffic.sample()
            up, down = traffic.between(clock.ended[WARM_UP], clock.ended[numbers[-1]])
        return Overhead(
            statistics.median(clock.ended[n] - clock.opened[n] for n in numbers),
            statistics.median(clock.candidate[n] - clock.opened[n] for n in numbers),
            statistics.median(clock.ended[n] - clock.candidate[n] for n in numbers),
            made.view.current.full.bytes,
            up / participants / rounds,
            down / participants / rounds,
        )


async def measure(participants: int, rounds: int, model: Path, folder: Path) -> None:
    """Ours, the floor, ours with `ternary`, Flower; prints rows."""
    with mosquitto() as server:
        ours = await run(server, participants, rounds, model, folder / "plain", **PLAIN)
        floor = await bare_exchange(server, participants, ours.model_bytes)
    row(f"{participants} participants: seconds per round (median)", f"{ours.whole:.3f}")
    row("  training, upload, checks, store, fold, publish", f"{ours.collecting:.3f}")
    row("  fetch, verify, evaluate, promote", f"{ours.evaluating:.3f}")
    row("  bare MQTT exchange of the same bytes", f"{floor:.3f}")
    row("  ratio to the bare exchange", f"{ours.whole / floor:.1f}")
    with mosquitto() as server:
        small = await run(server, participants, rounds, model, folder / "ternary", **TERNARY)
    row("  with ternary both ways: seconds per round", f"{small.whole:.3f}")
    through = {}
    for name, settings in (("f32", PLAIN), ("ternary", TERNARY)):
        with mosquitto() as server:
            async with counted(server.port) as traffic:
                through[name] = await run(
                    server, participants, rounds, model, folder / f"counted-{name}", traffic=traffic, **settings
                )
        row(f"  KiB a round and participant, {name}: up / down", kib(through[name].up, through[name].down))
    for title, evaluate in (("Flower, FedAvg", True), ("Flower, nothing evaluated", False)):
        found = await flower_run(participants, rounds, ours.model_bytes // 4, warm_up=WARM_UP, evaluate=evaluate)
        if found is None:
            continue
        seconds = statistics.median(found.seconds)
        row(f"  {title}: seconds per round (median)", f"{seconds:.3f}")
        row("    times as long as ours", f"{seconds / ours.whole:.1f}")
        row("    KiB a round and participant: up / down", kib(found.up, found.down))
        times = [(found.up + found.down) / (one.up + one.down) for one in through.values()]
        row("    times the bytes of ours: f32 / ternary", " / ".join(f"{one:.1f}" for one in times))


def kib(up: float, down: float) -> str:
    """Both ways."""
    return f"{up / 1024:.0f} / {down / 1024:.0f}"


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


def main(given: Sequence[str] = ()) -> None:
    """4 and 10 participants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=lambda text: [int(n) for n in text.split(",")], default=[4, 10])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args(given)
    if flower_python() is None:
        print("Flower is left out: scripts/setup-flower sets it up", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_base_model(folder, HIDDEN)
        for participants in args.participants:
            asyncio.run(measure(participants, args.rounds, model, folder / str(participants)))


if __name__ == "__main__":
    main(sys.argv[1:])
