"""What a bridge costs: an update and a model through a real bridge between two Mosquittos, beside a bare relay.

The relay is a client that republishes whatever it hears: nothing assembled, judged, stored or recorded.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.support import row
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.e2e.ends import Ends, case_of, ends, offer_model, upload
from tests.servers import mosquitto
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import KIB, chunk_of, encode_chunk

SIZES = (100_000, 1_000_000, 10_000_000)
CHUNK = 256 * KIB
STATUSES = 300


async def through_the_bridge(elements: int) -> tuple[float, float, float, float]:
    """Seconds of an update up and of a model down, CPU seconds for both, and resident MB at the end."""
    case = case_of(elements, CHUNK)
    with tempfile.TemporaryDirectory() as name, mosquitto() as server:
        async with ends(Path(name), server, case) as both:
            assert both.process is not None
            cpu = sum(both.process.cpu_times()[:2])
            started = time.monotonic()
            await upload(both)
            await both.until("accepted", 120)
            up = time.monotonic() - started
            started = time.monotonic()
            await offer_model(both)
            await both.until("whole_below", 120)
            down = time.monotonic() - started
            used = sum(both.process.cpu_times()[:2]) - cpu
            return up, down, used, both.process.memory_info().rss / 1e6


async def bare_relay(elements: int) -> float:
    """Seconds of the same chunks through a client that only republishes."""
    case = case_of(elements, CHUNK)
    manifest = case.manifest
    chunks = [encode_chunk(chunk_of(case.update, manifest, index)) for index in range(len(manifest.chunks))]
    done = asyncio.Event()
    arrived = 0

    def count(_message: Message) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == len(chunks):
            done.set()

    with mosquitto() as plant, mosquitto() as enterprise:
        at_plant, above = (PahoConnector(BrokerConfig(url=server.url)) for server in (plant, enterprise))
        async with (
            asyncio.TaskGroup() as tasks,
            above.connect("hub", on_message=count) as hub,
            above.connect("relay-up", on_message=lambda _: None) as out,
            at_plant.connect("relay", on_message=lambda m: _again(tasks, out, m)) as relay,
            at_plant.connect("edge", on_message=lambda _: None) as edge,
        ):
            await hub.subscribe("relay/#")
            await relay.subscribe("relay/#")
            started = time.monotonic()
            for index, chunk in enumerate(chunks):
                tasks.create_task(edge.publish(f"relay/{index}", chunk))
            await done.wait()
            return time.monotonic() - started


def _again(tasks: asyncio.TaskGroup, out: Session, message: Message) -> None:
    tasks.create_task(out.publish(message.topic, message.payload))


async def statuses() -> tuple[float, float, float]:
    """Milliseconds from plant to enterprise for a status (p50, p99), and CPU milliseconds of the bridge for each."""
    with tempfile.TemporaryDirectory() as name, mosquitto() as server:
        async with ends(Path(name), server, case_of(1000)) as both:
            assert both.process is not None
            await both.above.subscribe(str(FlTopic("solder-defect", Kind.STATUS, "berlin")))
            cpu = sum(both.process.cpu_times()[:2])
            times = [await _one_status(both, number) for number in range(STATUSES)]
            used = sum(both.process.cpu_times()[:2]) - cpu
    ordered = sorted(times)
    return statistics.median(ordered) * 1e3, ordered[int(0.99 * len(ordered))] * 1e3, used / STATUSES * 1e3


async def _one_status(both: Ends, number: int) -> float:
    body = ParticipantStatus(birth=1, state=ParticipantState.ONLINE, samples=number + 1)
    mark = f'"samples":{number + 1},'.encode()
    seen = both.last_status
    started = time.monotonic()
    await both.below.publish(str(FlTopic("solder-defect", Kind.STATUS, "berlin")), both.edge.seal(body), retain=True)
    while mark not in seen.payload:
        seen = await both.next_status()
    return time.monotonic() - started


def main() -> None:
    """Three sizes of update and model; then statuses."""
    for elements in SIZES:
        up, down, cpu, rss = asyncio.run(through_the_bridge(elements))
        floor = asyncio.run(bare_relay(elements))
        row(f"{elements:,} parameters (float32): update up, answered (s)", f"{up:.3f}")
        row("  model down, from announced to whole at the plant (s)", f"{down:.3f}")
        row("  bare relay of the same chunks (s)", f"{floor:.3f}")
        row("  ratio of the update to the bare relay", f"{up / floor:.1f}")
        row("  CPU seconds of the bridge for both", f"{cpu:.2f}")
        row("  resident memory of the bridge (MB)", f"{rss:.0f}")
    p50, p99, cpu_ms = asyncio.run(statuses())
    row("a status through the bridge, p50 / p99 (ms)", f"{p50:.2f} / {p99:.2f}")
    row("  CPU milliseconds of the bridge for each", f"{cpu_ms:.2f}")


if __name__ == "__main__":
    main()
