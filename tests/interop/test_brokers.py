"""The whole loop on every broker, what each does with plain MQTT, and whether docs/brokers.md says so."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.federation import Federation, federation
from tests.interop import page
from tests.interop.brokers import RUNS, Broker, label
from tests.interop.probes import probe

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(180)]
PLANTS = ("berlin", "lyon")
LATE = "porto"


async def rounds_end(f: Federation, count: int) -> int:
    """Until this many rounds are done with both plants' updates; returns the version that serves."""
    await f.until(lambda: f.rests and f.summary(count) is not None, f"round {count}, the last", timeout_s=80)
    for number in range(1, count + 1):
        ended = f.summary(number)
        assert ended is not None
        assert {(p.participant, p.outcome) for p in ended.participants} == {(p, "accepted") for p in PLANTS}
    assert f.view.current is not None
    return f.view.current.version


async def serves(f: Federation, participant: str, version: int) -> None:
    """Until it holds the version and inference by it stands in the plant's tree."""
    await f.until(lambda: f.serves(participant, version), f"{participant} serves version {version}")
    await f.listening(participant)
    await f.publish_boards(participant, 1)
    await f.until(lambda: f.scores(participant, version), f"an inference by version {version} at {participant}")


async def the_loop(f: Federation, model: Path) -> None:
    """Bootstrap and two rounds; a plant that comes when all is over; an aggregator that starts again for one more."""
    for plant in PLANTS:
        await f.start_edge(plant)
    for plant in PLANTS:
        await f.listening(plant)
        await f.publish_boards(plant, 120)
    await f.start_aggregator(model)
    version = await rounds_end(f, 2)
    await f.start_edge(LATE)  # what it needs was said before it came
    for plant in (*PLANTS, LATE):
        await serves(f, plant, version)
    await f.stop("aggregator", signal.SIGKILL)
    f.tolerances["rounds"] = 3
    await f.start_aggregator(model)  # what it knows of participants, it hears from them again
    await serves(f, PLANTS[0], await rounds_end(f, 3))


@pytest.mark.parametrize("on", RUNS, ids=label)
def test_the_loop_and_what_the_page_says(
    tmp_path: Path, base_model: Path, on: tuple[Broker, str], request: pytest.FixtureRequest
) -> None:
    broker, protocol = on

    async def main() -> dict[str, str]:
        with broker.start() as server:
            async with federation(tmp_path, server, protocol=protocol) as f:
                await the_loop(f, base_model)
            return await probe(server.url, protocol)

    answers = {"the loop": "yes", **run(main(), timeout_s=170)}
    line = page.row(broker.name, broker.version(), protocol, answers)
    if request.config.getoption("--write-page"):
        page.write(line)
    assert page.check(line) is None, f"measured {line}; docs/brokers.md says otherwise: ARGS=--write-page writes it"
