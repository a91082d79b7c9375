"""Messages of a plant through one edge, from topic to inference published, by dialect, beside a bare echo.

Every message makes a sample and every sample an inference. The echo is plain paho in a process of its own: it publishes
what it reads, QoS 1 both ways, as the edge does, and knows nothing of what is in it. `python -m benchmarks
ingest --messages N` feeds that many more through one edge and tells its memory on the way.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.support import row
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from edge.binding import bind
from edge.effects import SampleReady
from edge.ingest import Ingest
from edge.signal_map import SignalMap
from tests.e2e.federation import CONTRACT, FEDERATION, Federation, federation
from tests.e2e.models import make_base_model
from tests.servers import Server, mosquitto
from uns_topics.contract import Contract
from uns_topics.sparkplug import DataType, MessageType, Metric, Payload, SparkplugTopic, encode_payload

FLOOD = 10_000
WARM = 1_000
WINDOW = 500
MAX_SAMPLES = 10_000
"""What the store holds: it is full before the memory is looked at, so what grows then grows for ever."""
SLICE = 2_000
"""Messages that are answered before more are sent, where memory is looked at."""
KEPT = 10_000
"""Messages that the watching side keeps."""
START_MS = 1_700_000_000_000
TAGS, RATE, SECONDS = 500, 10, 20
VOLUME = {"feature": "volume", "unit": "%"}
HEIGHT = {"feature": "height", "field": "height", "unit": "um"}
FIELDS = [{"feature": "volume", "field": "volume", "unit": "%"}, HEIGHT]


def contract_of(period_s: float) -> dict[str, Any]:
    """Each row is a sample. Args: period_s: of a row."""
    return CONTRACT | {"sample": {"kind": "window", "period_s": period_s, "length": 1}}


@dataclass(frozen=True)
class Dialect:
    """Attributes: leaf: of its topic; payload: of message i, one a second."""

    name: str
    leaf: str
    source: dict[str, Any]
    payload: Callable[[int], bytes]


def _at(index: int) -> int:
    return START_MS + 1000 * index


def _sparkplug(index: int) -> bytes:
    metrics = (Metric(alias=1, value=95.0 + index % 10), Metric(alias=2, value=110.0 + index % 5))
    return encode_payload(Payload(_at(index), metrics, (index + 1) % 256))


DIALECTS = (
    Dialect(
        "umh",
        "_historian/volume",
        {"form": "umh", "features": [VOLUME]},
        lambda i: b'{"timestamp_ms": %d, "value": %.1f}' % (_at(i), 95 + i % 10),
    ),
    Dialect(
        "umh, classic with two tags",
        "_historian",
        {"form": "umh", "features": FIELDS},
        lambda i: b'{"timestamp_ms": %d, "volume": %.1f, "height": %.1f}' % (_at(i), 95 + i % 10, 110 + i % 5),
    ),
    Dialect(
        "vqt",
        "volume",
        {"form": "vqt", "features": [VOLUME]},
        lambda i: b'{"value": %.1f, "quality": 192, "timestamp": %d}' % (95 + i % 10, _at(i)),
    ),
    Dialect(
        "flat, two tags of eight",
        "spi",
        {"form": "flat", "features": FIELDS},
        lambda i: (
            b'{"timestamp": %d, "line": "L1", "recipe": "A-7", "volume": %.1f, "height": %.1f, "offset_x": 1.5, '
            b'"offset_y": -0.5, "area": 98.25}' % (_at(i), 95 + i % 10, 110 + i % 5)
        ),
    ),
    Dialect("sparkplug, two metrics by alias", "", {"form": "sparkplug", "features": FIELDS}, _sparkplug),
)


SCALAR = Dialect("scalar", "volume", {"form": "scalar", "features": [VOLUME]}, lambda i: b"%.1f" % (95 + i % 10))
RUNS = ((1.0, DIALECTS), (1e-6, (SCALAR,)))
"""Period of the window rule: scalars are timed by their arrival, and each has to be a row of its own."""


class Flood:
    """Publishes through one session and counts what comes back."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wanted = 0
        self._seen = 0
        self._all = asyncio.Event()

    def came_back(self) -> None:
        """One of the answers that are waited for."""
        self._seen += 1
        if self._seen >= self._wanted:
            self._all.set()

    async def run(
        self, pid: int, topic: str, payload: Callable[[int], bytes], messages: range, *, answers: int | None = None
    ) -> tuple[float, float]:
        """Returns: messages per second until all were answered, CPU seconds of the process per message."""
        self._seen, self._wanted = 0, len(messages) if answers is None else answers
        self._all.clear()
        process = psutil.Process(pid)
        cpu = sum(process.cpu_times()[:2])
        started = time.perf_counter()
        for first in range(messages.start, messages.stop, WINDOW):
            window = range(first, min(first + WINDOW, messages.stop))
            await asyncio.gather(*(self._session.publish(topic, payload(i)) for i in window))
        async with asyncio.timeout(60 + len(messages) / 200):
            await self._all.wait()
        seconds = time.perf_counter() - started
        return len(messages) / seconds, (sum(process.cpu_times()[:2]) - cpu) / len(messages)


@contextmanager
def echo(server: Server) -> Iterator[subprocess.Popen[str]]:
    """The bare echo, subscribed."""
    command = [sys.executable, "-m", "benchmarks.paho_echo", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


async def measure_echo(server: Server, payload: Callable[[int], bytes]) -> tuple[float, float]:
    """The echo's messages per second and CPU seconds per message."""

    def on_message(_message: Message) -> None:
        flood.came_back()

    connector = PahoConnector(BrokerConfig(url=server.url))
    with echo(server) as process:
        async with connector.connect("bench-asker", on_message=on_message) as session:
            await session.subscribe("bench/back")
            flood = Flood(session)
            await flood.run(process.pid, "bench/there", payload, range(WARM))
            return await flood.run(process.pid, "bench/there", payload, range(WARM, WARM + FLOOD))


async def start(made: Federation, dialect: Dialect, participant: str, contract: dict[str, Any]) -> tuple[int, str]:
    """An edge that reads this dialect and serves a model. Returns: its process, the topic it reads."""
    assert made.session is not None
    path = f"acme/{participant}/smt/line1"
    node = SparkplugTopic("acme", MessageType.NDATA, participant)
    is_sparkplug = dialect.source["form"] == "sparkplug"
    topic = str(node) if is_sparkplug else f"{path}/{dialect.leaf}"
    pattern = topic.replace(MessageType.NDATA.value, "+") if is_sparkplug else topic
    content = {"instance": path, "sources": [{"topic": pattern, **dialect.source}]}
    mapped = made.write(f"{participant}/own-map.yaml", content)
    own = made.write(f"{participant}/contract.yaml", contract)
    edge = await made.start_edge(
        participant, signal_map=str(mapped), contract=str(own), trainer={"enabled": False}, max_samples=MAX_SAMPLES
    )
    await made.listening(participant)
    await made.until(lambda: made.serves(participant, 0), f"version 0 serves {participant}")
    if is_sparkplug:
        birth = SparkplugTopic("acme", MessageType.NBIRTH, participant)
        names = ("volume", "height")
        metrics = tuple(Metric(name, alias, datatype=DataType.FLOAT) for alias, name in enumerate(names, start=1))
        bdseq = Metric("bdSeq", datatype=DataType.UINT64, value=0)
        raw = encode_payload(Payload(START_MS - 1000, (bdseq, *metrics), 0))
        await made.session.publish(str(birth), raw)
    return edge.process.pid, topic


async def measure(
    server: Server, folder: Path, contract: dict[str, Any], dialects: tuple[Dialect, ...], messages: int
) -> None:
    """These dialects, one edge each; the first edge for the memory."""
    model = make_base_model(folder, "64,32", contract)
    async with federation(folder, server) as made:
        await made.start_aggregator(model)
        assert made.session is not None
        flood = Flood(made.session)
        for number, dialect in enumerate(dialects):
            participant = f"plant-{number}"
            event = f"acme/{participant}/smt/line1/_inference/{FEDERATION}/event"

            def on_message(message: Message, event: str = event) -> None:
                if message.topic == event:
                    flood.came_back()
                if len(made.messages) > KEPT:
                    made.messages.clear()

            made.listener = on_message
            pid, topic = await start(made, dialect, participant, contract)
            lag = 1 if dialect.source["form"] == "sparkplug" else 0  # a row closes when the next one comes
            await flood.run(pid, topic, dialect.payload, range(WARM), answers=WARM - lag)
            rate, cpu = await flood.run(pid, topic, dialect.payload, range(WARM, WARM + FLOOD))
            echo_rate, echo_cpu = await measure_echo(server, dialect.payload)
            row(f"{dialect.name}: messages per second, echo", f"{rate:,.0f}, {echo_rate:,.0f}")
            row("  CPU us per message, echo", f"{cpu * 1e6:,.0f}, {echo_cpu * 1e6:,.0f}")
            row("  ratio of the CPU", f"{cpu / echo_cpu:.1f}")
            if number == 0 and messages:
                await memory(flood, pid, topic, dialect, messages)
            await made.stop(participant)
            made.messages.clear()


async def memory(flood: Flood, pid: int, topic: str, dialect: Dialect, messages: int) -> None:
    """What the edge holds as messages go by, a slice at a time: else it would be what waits in its queue."""
    first, done = WARM + FLOOD, 0
    for share in (0.01, 0.1, 0.5, 1.0):
        while done < messages * share:
            await flood.run(pid, topic, dialect.payload, range(first + done, first + done + SLICE))
            done += SLICE
        row(f"  memory of the edge after {done:,} more messages (MB)", f"{_resident_mb(pid):.0f}")


def _resident_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def many_tags() -> None:
    """Samples out of 500 tags with a topic each at 10 Hz: windows of a second, a row each tenth, without a broker."""
    names = [f"t{i}" for i in range(TAGS)]
    contract = Contract.model_validate(
        {
            "federation": "tags",
            "features": [{"name": name, "unit": "", "minimum": 0, "maximum": 100} for name in names],
            "label": {"kind": "none"},
            "sample": {"kind": "window", "period_s": 1 / RATE, "length": RATE},
            "metric": "rmse",
        }
    )
    sources = [
        {"topic": f"acme/{{line}}/{name}", "form": "umh", "features": [{"feature": name, "unit": ""}]} for name in names
    ]
    ingest = Ingest(bind(SignalMap.model_validate({"instance": "acme/{line}", "sources": sources}), contract), contract)
    topics = [f"acme/l1/{name}" for name in names]
    samples, spent, now_s = 0, 0.0, START_MS / 1000 + 3600
    for tick in range(SECONDS * RATE):
        stamp = START_MS + tick * 1000 // RATE
        batch = [(topic, b'{"timestamp_ms": %d, "value": %.2f}' % (stamp, i / 10)) for i, topic in enumerate(topics)]
        started = time.process_time()
        for topic, payload in batch:
            for effect in ingest.feed(topic, payload, arrival_s=now_s):
                samples += isinstance(effect, SampleReady)
        spent += time.process_time() - started
    row(f"{TAGS} tags at {RATE} Hz: samples built per CPU second", f"{samples / spent:,.0f}")
    row("  messages per CPU second; they come with", f"{SECONDS * RATE * TAGS / spent:,.0f}, {TAGS * RATE:,}")


def main(messages: int = 0) -> None:
    """On a Mosquitto of its own. Args: messages: more of them through one edge, for its memory."""
    many_tags()
    for period_s, dialects in RUNS:
        with tempfile.TemporaryDirectory() as name, mosquitto() as server:
            told = messages if dialects is DIALECTS else 0
            asyncio.run(measure(server, Path(name), contract_of(period_s), dialects, told))


if __name__ == "__main__":
    main()
