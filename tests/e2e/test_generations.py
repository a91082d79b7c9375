"""A change of meaning in the life of a federation: the old model serves until the new one may, plant by plant."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.embedded import free_port
from edge.outputs import alive_topic
from tests.aio import run
from tests.e2e.federation import CONTRACT, FEDERATION, Federation, federation, signal_map
from tests.e2e.models import make_base_model
from tests.servers import Server
from tests.support.prometheus import fetch
from uns_topics.codes import Reason
from uns_topics.presence import ParticipantState, ParticipantStatus

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(420)]

TILT = {"name": "tilt", "unit": "deg", "minimum": 0, "maximum": 10}
WIDER = {**CONTRACT, "title": "with the board's tilt", "features": [TILT, *CONTRACT["features"]]}
PLANTS = ("berlin", "lyon", "nantes")
TRAINING = {"steps": 150, "batch_size": 32, "learning_rate": 0.02}
ANY = {"approve": "any", "contract": None}


def with_tilt(participant: str) -> dict[str, Any]:
    tags = signal_map(participant)
    tags["sources"][0]["features"].append({"feature": "tilt", "field": "tilt", "unit": "deg"})
    return tags


def status(f: Federation, participant: str) -> ParticipantStatus | None:
    known = f.view.participants.get(participant)
    return known.status if known is not None else None


def version_of(f: Federation, participant: str) -> int | None:
    said = status(f, participant)
    return said.serves.version if said is not None and said.serves is not None else None


def follows(f: Federation, participant: str, generation: int) -> bool:
    said = status(f, participant)
    return said is not None and said.generation == generation


async def one_more(f: Federation, plant: str, version: int) -> None:
    """One more board, and an inference on that very board by this version."""
    await f.publish_boards(plant, 1, tilt=3.0)
    board = f'"B{f.boards[plant] - 1}"'.encode()
    await f.until(
        lambda: any(board in m.payload for m in f.scores(plant, version)),
        f"board {board.decode()} of {plant} judged by version {version}",
    )


async def again(f: Federation, plant: str, **settings: Any) -> None:
    """Start an edge that had ended, by default with a map that feeds everything, and wait until it reads its plant."""
    topic = alive_topic(f"acme/{plant}/smt/line1", FEDERATION, plant)
    seen = len(f.messages)
    await f.start_edge(plant, **{"tags": with_tilt(plant), **settings})
    await f.until(
        lambda: any(m.topic == topic and m.payload == b"true" for m in f.messages[seen:]), f"{plant} reads again"
    )


def test_the_old_generation_serves_until_a_plant_can_run_the_new_one(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    (tmp_path / "wider").mkdir()
    wider = make_base_model(tmp_path / "wider", "16,8", WIDER)

    async def main() -> None:
        listen = f"127.0.0.1:{free_port(0)}"
        health = {"health": {"listen": listen}}
        async with federation(tmp_path, broker, trainer=None) as f:
            await f.start_aggregator(base_model, training=TRAINING)
            for plant in PLANTS:
                tags = with_tilt(plant) if plant != "nantes" else None
                await f.start_edge(plant, tags=tags, **ANY, **(health if plant == "nantes" else {}))
                await f.listening(plant)
                await f.publish_boards(plant, 150, tilt=2.0)
            await f.until(lambda: f.rests, "the last round of generation 1", 120)
            assert f.view.current is not None
            old = f.view.current.version
            for plant in PLANTS:
                await f.until(lambda plant=plant: version_of(f, plant) == old, f"{plant} serves version {old}")

            assert await f.stop("aggregator") == 0
            aggregator = await f.start_aggregator(wider, training=TRAINING)
            for plant in PLANTS:
                await f.until(lambda plant=plant: follows(f, plant, 2), f"{plant} knows generation 2")
            await f.stop("aggregator", signal.SIGKILL)
            aggregator = await f.start_aggregator(wider, training=TRAINING)
            said = aggregator.log.read_text()
            assert "generation 3" not in said
            assert "generation 2 begins: feature tilt added (deg, 0.0 to 10.0)" in said
            assert f"generation 2 starts warm, from version {old} of generation 1" in said

            # Nobody has a sample of the new contract yet: the old model judges boards, at all three.
            await f.until(lambda: _is_behind(f, "nantes"), "nantes stays behind, and says what it lacks")
            code, page = await fetch(listen, "/readyz")
            assert (code, page.splitlines()[0]) == (200, "ready")
            assert "tilt" in page
            assert f"version {old} runs on" in page
            assert "tilt" in f.services["nantes"].log.read_text()
            for plant in PLANTS:
                await one_more(f, plant, old)
            await f.stop("berlin", signal.SIGKILL)
            await again(f, "berlin", **ANY)
            await one_more(f, "berlin", old)

            for plant in ("berlin", "lyon"):
                await f.publish_boards(plant, 200, tilt=2.0)
            await f.until(lambda: f.rests and _generation(f) == 2, "the last round of generation 2", 120)
            assert f.view.current is not None
            new = f.view.current.version
            for plant in ("berlin", "lyon"):
                await f.until(lambda plant=plant: version_of(f, plant) == new, f"{plant} serves version {new}")
                await one_more(f, plant, new)
            await one_more(f, "nantes", old)

            assert await f.stop("nantes") == 0
            await again(f, "nantes", **ANY)
            await f.until(lambda: _is_ahead(f, "nantes"), "nantes covers the contract now")
            await one_more(f, "nantes", old)
            await f.publish_boards("nantes", 200, tilt=2.0)
            await f.until(lambda: version_of(f, "nantes") == new, f"nantes serves version {new}", 60)
            await one_more(f, "nantes", new)

    run(main(), timeout_s=400)


def _generation(f: Federation) -> int | None:
    return f.view.current.generation if f.view.current is not None else None


def _is_behind(f: Federation, participant: str) -> bool:
    said = status(f, participant)
    if said is None or said.reason is not Reason.CONTRACT_NOT_COVERED:
        return False
    return said.state is ParticipantState.HOLD and said.missing == ("tilt",)


def _is_ahead(f: Federation, participant: str) -> bool:
    said = status(f, participant)
    return said is not None and said.missing == () and said.state is ParticipantState.ONLINE and said.generation == 2


def test_a_generation_that_the_site_has_not_approved_waits_while_the_old_one_serves(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    (tmp_path / "wider").mkdir()
    wider = make_base_model(tmp_path / "wider", "16,8", WIDER)

    async def main() -> None:
        async with federation(tmp_path, broker, tolerances={"rounds": 1}) as f:
            for plant in ("berlin", "lyon"):
                await f.start_edge(plant)
                await f.listening(plant)
                await f.publish_boards(plant, 150)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round of generation 1")
            assert f.view.current is not None
            old = f.view.current.version
            assert await f.stop("aggregator") == 0
            await f.start_aggregator(wider)
            for plant in ("berlin", "lyon"):
                await f.until(lambda plant=plant: _is_unapproved(f, plant), f"{plant} waits for its site's word")
                await one_more(f, plant, old)
            await f.stop("berlin", signal.SIGKILL)
            await again(f, "berlin", tags=None)
            await f.until(lambda: _is_unapproved(f, "berlin"), "berlin waits on")
            await one_more(f, "berlin", old)

            assert (
                await f.stop("berlin") == 0
            )  # its site approves: the contract's file is replaced, and the map feeds it
            f.write("approved.yaml", WIDER)
            await again(f, "berlin", contract="../approved.yaml")
            await f.until(lambda: follows(f, "berlin", 2) and _is_ahead(f, "berlin"), "berlin follows generation 2")
            await one_more(f, "berlin", old)
            assert "samples of another contract were set aside" in f.services["berlin"].log.read_text()
            await one_more(f, "lyon", old)

    run(main(), timeout_s=200)


def _is_unapproved(f: Federation, participant: str) -> bool:
    said = status(f, participant)
    if said is None or said.reason is not Reason.CONTRACT_NOT_APPROVED:
        return False
    return said.state is ParticipantState.HOLD and said.generation == 2


def test_other_words_and_thresholds_open_no_generation(tmp_path: Path, base_model: Path, broker: Server) -> None:
    (tmp_path / "stricter").mkdir()
    words = {**CONTRACT, "title": "said better", "quality": {"min_samples": 500}}
    stricter = make_base_model(tmp_path / "stricter", "16,8", words)

    async def main() -> None:
        async with federation(tmp_path, broker, tolerances={"rounds": 1}) as f:
            await f.start_aggregator(base_model)
            for plant in ("berlin", "lyon"):
                await f.start_edge(plant, **ANY)
                await f.listening(plant)
                await f.publish_boards(plant, 150)
            await f.until(lambda: f.rests, "the last round")
            assert f.view.current is not None
            current = f.view.current.version
            assert await f.stop("aggregator") == 0
            await f.start_aggregator(stricter)
            await f.until(lambda: _lacks_samples(f, "berlin"), "the new threshold holds at berlin")
            assert "generation 1 goes on" in f.services["aggregator"].log.read_text()
            await one_more(f, "berlin", current)
            assert "set aside" not in f.services["berlin"].log.read_text()
            kept = sqlite3.connect(f"file:{tmp_path}/berlin/data/samples.sqlite?mode=ro", uri=True)
            with contextlib.closing(kept):
                (content,) = kept.execute("SELECT content FROM kv WHERE name = 'contract'").fetchone()
            assert b"said better" in content

    run(main(), timeout_s=150)


def _lacks_samples(f: Federation, participant: str) -> bool:
    said = status(f, participant)
    return said is not None and said.generation == 1 and said.reason is Reason.TOO_FEW_SAMPLES
