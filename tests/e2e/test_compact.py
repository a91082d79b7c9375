"""Compact updates up and steps down, with real processes, one plant behind a bridge."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.bridged import berlin_behind_a_bridge
from tests.e2e.federation import federation
from tests.servers import Server

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]


@pytest.mark.parametrize("name", ["ternary", "topk-int8"])
def test_plants_learn_with_compact_updates_and_steps(
    tmp_path: Path, wide_model: Path, broker: Server, name: str
) -> None:
    """berlin is behind a bridge: it fetches one whole model, and steps from then on."""

    async def main() -> None:
        tolerances = {"rounds": 3, "promotion_margin": 100.0, "site_limit": 100.0}
        async with berlin_behind_a_bridge(tmp_path, broker, tolerances=tolerances) as (f, at_berlin):
            await f.start_aggregator(wide_model, encodings=[name], downlink=name)
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            current, history = f.view.current, f.view.history
            assert current is not None
            assert history is not None
            assert [r.result for r in history.rounds] == ["promoted"] * 3
            assert current.delta is not None
            assert 20 * current.delta.bytes < current.full.bytes
            for summary in history.rounds:
                for one in summary.participants:
                    assert one.outcome == "accepted"
                    assert 15 * one.payload_bytes < current.full.bytes
            for participant in ("berlin", "lyon"):
                await f.until(
                    lambda p=participant: f.serves(p, current.version),  # type: ignore[misc]
                    f"{participant} serves {current.version}",
                )
            retained = at_berlin.retained()
            assert any(f"/down/delta/{current.version}/" in topic for topic in retained)
            assert not any(f"/down/model/{current.version}/" in topic for topic in retained)
            command = ["model", "replay", str(current.version), "--config", str(tmp_path / "aggregator.yaml"), "--json"]
            ran = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "headgate", *command], capture_output=True, text=True, timeout=60
            )
            assert ran.returncode == 0, ran.stderr
            said = json.loads(ran.stdout)
            assert (said["agrees"], said["recorded"]) == (True, current.sha256)

    run(main(), timeout_s=140)


def test_an_edge_killed_before_its_receipt_counts_once(tmp_path: Path, wide_model: Path, broker: Server) -> None:
    """The aggregator is stopped when the update comes; the edge is killed, and both come back."""

    async def main() -> None:
        async with federation(tmp_path, broker, tolerances={"rounds": 1, "deadline_s": 60.0}) as f:
            for participant in ("berlin", "lyon"):
                await f.start_edge(participant)
                await f.listening(participant)
                await f.publish_boards(participant, 150)
            aggregator = await f.start_aggregator(wide_model, encodings=["ternary"])
            await f.until(lambda: f.view.round is not None and f.view.round.state == "open", "the round")
            aggregator.process.send_signal(signal.SIGSTOP)
            await f.until(
                lambda: (
                    {m.topic.split("/")[4] for m in f.messages if m.topic.endswith("/manifest")} == {"berlin", "lyon"}
                ),
                "both updates",
            )
            sent = {m.topic for m in f.messages if "/up/berlin/update/" in m.topic}
            await f.stop("berlin", signal.SIGKILL)
            await f.start_edge("berlin")
            await f.until(
                lambda: sum(m.topic in sent and m.topic.endswith("/manifest") for m in f.messages) >= 2, "its question"
            )
            aggregator.process.send_signal(signal.SIGCONT)
            await f.until(lambda: f.rests, "the last round", timeout_s=90)
            summary = f.summary(1)
            assert summary is not None
            assert {(p.participant, p.outcome) for p in summary.participants} == {
                ("berlin", "accepted"),
                ("lyon", "accepted"),
            }
            transfers = {m.topic.split("/")[6] for m in f.messages if "/up/berlin/update/" in m.topic}
            assert len(transfers) == 1, "the same update, and no second one"

    run(main(), timeout_s=140)
