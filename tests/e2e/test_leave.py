"""`headgate edge leave` on real Mosquitto: whoever subscribes afterwards finds nothing of the edge."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from tests.aio import Inbox, run
from tests.e2e.federation import FEDERATION, federation
from tests.servers import Server

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]


async def retained(server: Server, mark: str) -> set[str]:
    """Topics with this in them that a newcomer finds; a marker of its own tells when it has seen all."""
    seen = Inbox()
    async with PahoConnector(BrokerConfig(url=server.url)).connect("newcomer", on_message=seen) as session:
        await session.subscribe("#")
        await session.publish("marker", b"1")
        await seen.topic("marker")
    return {m.topic for m in seen.messages if m.retain and mark in m.topic}


async def leave(folder: Path, participant: str) -> tuple[int | None, str]:
    arguments = ("-m", "headgate", "edge", "leave", "--config", str(folder / participant / "edge.yaml"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, (out + err).decode()


def test_an_edge_that_leaves_takes_its_topics_along(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker) as f:
            for plant in ("berlin", "lyon"):
                await f.start_edge(plant)
                await f.listening(plant)
                await f.publish_boards(plant, 150)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round")
            assert f.view.current is not None
            version = f.view.current.version
            for plant in ("berlin", "lyon"):
                await f.publish_boards(plant, 1)
                await f.until(lambda plant=plant: f.scores(plant, version), f"an inference at {plant}")
            code, said = await leave(tmp_path, "berlin")
            assert code == 5
            assert "is in use: its edge runs, or a backfill does; stop that first" in said
            assert await f.stop("berlin") == 0
            assert (tmp_path / "berlin/data").stat().st_mode & 0o077 == 0  # samples are for nobody else on this machine
            mine = {t for t in await retained(broker, "berlin") if "/_inference/" in t or "/up/" in t}
            assert len(mine) >= 9
            code, said = await leave(tmp_path, "berlin")
            assert code == 0, said
            assert said.startswith("cleared 5 topics at the plant and 5 of solder-defect;")
            assert not {t for t in await retained(broker, "berlin") if "/_inference/" in t or "/up/" in t}
            others = await retained(broker, "lyon")
            assert f"fl/v1/{FEDERATION}/up/lyon/status" in others
            assert any("/_inference/" in topic for topic in others)

    run(main(), timeout_s=140)
