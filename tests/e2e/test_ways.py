"""A federation whose services reach their broker over WebSocket: all of them, or the edges alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.federation import federation
from tests.servers import free_port, mosquitto

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

PLANTS = ("berlin", "lyon")


@pytest.mark.parametrize(("protocol", "aggregator_too"), [("3.1.1", True), ("5", True), ("5", False)])
def test_updates_and_models_larger_than_a_websocket_message(
    tmp_path: Path, wide_model: Path, protocol: str, aggregator_too: bool
) -> None:
    async def main() -> None:
        port = free_port()
        with mosquitto(websockets=True, extra=f"listener {port} 127.0.0.1") as server:
            plain = replace(server, port=port, scheme="mqtt")
            way = {"url": server.url, "protocol": protocol}
            async with federation(tmp_path, plain, tolerances={"rounds": 1}) as f:
                for plant in PLANTS:
                    await f.start_edge(plant, broker=way)
                for plant in PLANTS:
                    await f.listening(plant)
                    await f.publish_boards(plant, 150)
                aggregator = await f.start_aggregator(wide_model, **({"broker": way} if aggregator_too else {}))
                await f.until(lambda: f.rests, "the last round", timeout_s=100)
                assert ("chunks go from 262144 to 58976 bytes" in aggregator.log.read_text()) is aggregator_too
                assert f.view.current is not None
                current = f.view.current.version
                for plant in PLANTS:
                    await f.until(lambda plant=plant: f.serves(plant, current), f"{plant} serves {current}")
                    update = f.view.participants[plant].last_update
                    assert update is not None
                    assert update.payload_bytes > 60_000
                    assert update.result == "accepted"

    run(main(), timeout_s=140)
