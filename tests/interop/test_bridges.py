"""A plant on RabbitMQ and one on aedes, behind bridges, in a federation on NATS: three brokers of three makers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.bridged import plant, start_bridge
from tests.e2e.federation import Federation, federation
from tests.interop.brokers import aedes, nats, rabbitmq
from tests.servers import Server

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(180)]


def known_quality(f: Federation, participant: str) -> bool:
    """Whether its data quality has come to the enterprise's broker."""
    known = f.view.participants.get(participant)
    return known is not None and known.quality is not None


def test_bridges_between_brokers_of_different_makers(tmp_path: Path, base_model: Path) -> None:
    async def main(enterprise: Server, plants: dict[str, Server]) -> None:
        async with AsyncExitStack() as stack:
            f = await stack.enter_async_context(federation(tmp_path, enterprise, tolerances={"rounds": 1}))
            for name, server in plants.items():
                await stack.enter_async_context(plant(f, name, server))
                await f.start_edge(name, broker={"url": server.url})
                await f.listening(name)
                await f.publish_boards(name, 150)
            topic = "fl/v1/solder-defect/up/berlin/data-quality"
            await f.until(lambda: any(m.topic == topic for m in f.messages), "berlin's data quality, said in the plant")
            for name, server in plants.items():  # later than what the edges say once
                await start_bridge(f, f"{name}-gate", server.url, enterprise.url, (name,))
            await f.start_aggregator(base_model)
            await f.until(
                lambda: all(known_quality(f, name) for name in plants), "what was said before the bridges came"
            )
            await f.until(lambda: f.rests, "the round", timeout_s=90)
            ended = f.summary(1)
            assert ended is not None
            assert {(p.participant, p.outcome) for p in ended.participants} == {(p, "accepted") for p in plants}
            assert f.view.current is not None
            version = f.view.current.version
            for name in plants:
                await f.until(lambda name=name: f.serves(name, version), f"{name} serves version {version}")
                await f.publish_boards(name, 1)
                await f.until(lambda name=name: f.scores(name, version), f"an inference at {name}")

    with nats() as enterprise, rabbitmq() as berlin, aedes() as lyon:
        run(main(enterprise, {"berlin": berlin, "lyon": lyon}), timeout_s=160)
