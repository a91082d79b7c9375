"""Plants behind bridges: each with a broker of its own, one behind two hops, the whole loop with real processes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.bridged import plant, start_bridge
from tests.e2e.federation import federation
from tests.servers import Server, mosquitto
from uns_topics.presence import ParticipantState

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]


def test_two_plants_behind_bridges_learn_one_model(tmp_path: Path, base_model: Path, broker: Server) -> None:
    """berlin is one hop away, lyon two: plant, DMZ, enterprise."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            f = await stack.enter_async_context(federation(tmp_path, broker))
            berlin, lyon, dmz = (stack.enter_context(mosquitto()) for _ in range(3))
            await stack.enter_async_context(plant(f, "berlin", berlin))
            at_lyon = await stack.enter_async_context(plant(f, "lyon", lyon))
            await start_bridge(f, "berlin-gate", berlin.url, broker.url, ("berlin",))
            await start_bridge(f, "lyon-gate", lyon.url, dmz.url, ("lyon",))
            await start_bridge(f, "dmz-gate", dmz.url, broker.url, ("lyon",), behind=("lyon-gate",))
            await f.start_edge("berlin", broker={"url": berlin.url})
            await f.start_edge("lyon", broker={"url": lyon.url})
            for name in ("berlin", "lyon"):
                await f.listening(name)
                await f.publish_boards(name, 150)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            history = f.view.history
            assert history is not None
            for summary in history.rounds:
                assert {(p.participant, p.outcome) for p in summary.participants} == {
                    ("berlin", "accepted"),
                    ("lyon", "accepted"),
                }
            assert f.view.current is not None
            version = f.view.current.version
            for name in ("berlin", "lyon"):
                await f.until(lambda name=name: f.serves(name, version), f"{name} serves the last version")  # type: ignore[misc]
                await f.publish_boards(name, 1)
                await f.until(lambda name=name: f.scores(name, version), f"an inference at {name}")  # type: ignore[misc]
            status = f.view.participants["lyon"].status
            assert status is not None
            assert status.via == ("lyon-gate", "dmz-gate")
            assert status.state is ParticipantState.ONLINE
            assert f"fl/v1/solder-defect/down/delta/{version}/0" in at_lyon.retained()
            above = {m.topic for m in f.messages if m.topic.startswith("fl/")}
            assert not any("acme" in topic for topic in above)

    run(main(), timeout_s=140)
