"""The whole loop with the real processes on real Mosquitto."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from broker_bridge.embedded import free_port
from tests.aio import run
from tests.e2e.federation import HANGING_TRAINER, NUMPY_TRAINER, federation
from tests.servers import Server, mosquitto
from tests.support.prometheus import Scrape, fetch, scrape
from uns_topics.presence import ParticipantState

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(150)]

PLANTS = ("berlin", "lyon")


@pytest.mark.parametrize(
    ("protocol", "trainer"), [("3.1.1", NUMPY_TRAINER), ("5", None)], ids=["3.1.1-numpy", "5-torch"]
)
def test_two_plants_learn_one_model_and_serve_it(
    tmp_path: Path, base_model: Path, broker: Server, protocol: str, trainer: tuple[str, ...] | None
) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker, protocol=protocol, trainer=trainer) as f:
            listen = {name: f"127.0.0.1:{free_port(0)}" for name in ("berlin", "aggregator")}
            await f.start_edge("berlin", health={"listen": listen["berlin"]})
            await f.start_edge("lyon")
            for plant in PLANTS:
                await f.listening(plant)
                await f.publish_boards(plant, 150)
            await f.start_aggregator(base_model, health={"listen": listen["aggregator"]})
            await f.until(lambda: f.rests, "the last round")
            history = f.view.history
            assert history is not None
            assert [summary.round_number for summary in history.rounds] == [1, 2]
            assert {summary.result for summary in history.rounds} <= {"promoted", "refused"}
            for summary in history.rounds:
                assert {(p.participant, p.outcome) for p in summary.participants} == {(p, "accepted") for p in PLANTS}
            assert f.view.current is not None
            current = f.view.current.version
            assert current >= 1
            for plant in PLANTS:
                await f.until(lambda plant=plant: f.serves(plant, current), f"{plant} serves version {current}")
                await f.publish_boards(plant, 1)
                await f.until(
                    lambda plant=plant: f.scores(plant, current), f"an inference by version {current} at {plant}"
                )
            await f.until(lambda: _samples(f, "berlin") == 151, "berlin counts its last board")
            _check_edge(await scrape(listen["berlin"]), current)
            _check_aggregator(await scrape(listen["aggregator"]), current)
            for name in listen:
                assert await fetch(listen[name], "/healthz") == (200, "ok\n")
                assert await fetch(listen[name], "/readyz") == (200, "ready\n")
            # A clean stop says so before it disconnects.
            assert await f.stop("berlin") == 0
            await f.until(lambda: _state(f, "berlin") is ParticipantState.OFFLINE, "berlin's death certificate")
            assert await f.stop("aggregator") == 0

    run(main(), timeout_s=140)


def _samples(f, participant: str) -> int | None:  # type: ignore[no-untyped-def]
    known = f.view.participants.get(participant)
    return known.status.samples if known is not None and known.status is not None else None


def _check_edge(edge: Scrape, current: int) -> None:
    assert edge.problems() == []
    expected = {"held_version": current, "served_version": current, "trainer_available": 1, "samples": 151}
    assert {name: edge.value(f"headgate_edge_{name}", participant="berlin") for name in expected} == expected
    assert {labels["session"]: v for labels, v in edge.all("headgate_edge_connected")} == {"fl": 1, "plant": 1}
    assert edge.value("headgate_edge_plant_messages_total") in (2 * 151 - 1, 2 * 151)  # the last verdict may be late
    assert edge.value("headgate_edge_plant_kept_bytes_total") > 2 * 150 * len('{"timestamp_ms":1700000000000}')
    assert edge.value("headgate_edge_inferences_total") >= 1
    assert edge.value("headgate_edge_last_update_result", result="accepted", code="none") == 1
    assert edge.value("headgate_edge_last_update_round") == 2
    # An update is part of what was sent, a version part of what was received.
    assert edge.value("headgate_edge_fl_sent_bytes_total") > edge.value("headgate_edge_last_update_size_bytes") > 100
    assert edge.value("headgate_edge_fl_received_bytes_total") > 100
    assert edge.value("process_resident_memory_bytes") > 20e6


def _check_aggregator(aggregator: Scrape, current: int) -> None:
    assert aggregator.problems() == []
    expected = {"connected": 1, "current_version": current, "last_round": 2, "online_participants": 2, "epoch": 1}
    assert {name: aggregator.value(f"headgate_aggregator_{name}") for name in expected} == expected
    assert aggregator.actual("headgate_aggregator_phase", "phase") == "resting"
    assert sum(value for _, value in aggregator.all("headgate_aggregator_rounds_total")) == 2
    assert aggregator.value("headgate_aggregator_round_duration_seconds_count") == 2
    answered = aggregator.all("headgate_aggregator_updates_total")
    assert {(labels["participant"], labels["result"], value) for labels, value in answered} == {
        ("berlin", "accepted", 2),
        ("lyon", "accepted", 2),
    }
    sizes = sum(value for _, value in aggregator.all("headgate_aggregator_answered_update_bytes_total"))
    assert aggregator.value("headgate_aggregator_received_update_bytes_total") > sizes > 400
    assert aggregator.value("headgate_aggregator_open_transfers") == 0


def _state(f, participant: str) -> ParticipantState | None:  # type: ignore[no-untyped-def]
    known = f.view.participants.get(participant)
    return known.status.state if known is not None and known.status is not None else None


def test_a_late_joiner_is_served_at_once(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        async with federation(tmp_path, broker) as f:
            for plant in PLANTS:
                await f.start_edge(plant)
                await f.listening(plant)
                await f.publish_boards(plant, 120)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.rests, "the last round")
            assert f.view.current is not None
            current = f.view.current.version
            await f.start_edge("porto")
            await f.until(lambda: f.serves("porto", current), "porto serves the current version")
            await f.listening("porto")
            await f.publish_boards("porto", 1)
            await f.until(lambda: f.scores("porto", current), "an inference at porto")

    run(main(), timeout_s=140)


def test_a_participant_killed_in_a_round_is_noticed_and_the_round_goes_on(
    tmp_path: Path, base_model: Path, broker: Server
) -> None:
    async def main() -> None:
        # Rounds go on until one counts on porto: the first may open before porto has fetched the model.
        async with federation(tmp_path, broker, tolerances={"rounds": None, "grace_s": 0.5}) as f:
            for plant in PLANTS:
                await f.start_edge(plant)
            # This trainer never answers: its participant is in the cohort and will not deliver.
            await f.start_edge("porto", trainer={"command": list(HANGING_TRAINER)})
            for plant in (*PLANTS, "porto"):
                await f.listening(plant)
                await f.publish_boards(plant, 120)
            await f.start_aggregator(base_model)
            await f.until(lambda: _state(f, "porto") is ParticipantState.TRAINING, "porto trains")
            assert f.view.round is not None
            number = f.view.round.round_number
            await f.stop("porto", signal.SIGKILL)
            await f.until(lambda: _state(f, "porto") is ParticipantState.OFFLINE, "porto's will")
            await f.until(lambda: f.summary(number), f"the end of round {number}")
            summary = f.summary(number)
            assert summary is not None
            assert summary.result in ("promoted", "refused")
            outcomes = {p.participant: p.outcome for p in summary.participants}
            assert outcomes == {"berlin": "accepted", "lyon": "accepted", "porto": "absent"}

    run(main(), timeout_s=140)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_broker_with_a_small_packet_limit(tmp_path: Path, protocol: str, wide_model: Path) -> None:
    """256 KiB chunks meet a limit of 64 KiB: both directions lower them until they pass."""

    async def main(server: Server) -> None:
        async with federation(tmp_path, server, protocol=protocol, tolerances={"rounds": 1}) as f:
            for plant in PLANTS:
                await f.start_edge(plant)
                await f.listening(plant)
                await f.publish_boards(plant, 120)
            await f.start_aggregator(wide_model)
            await f.until(lambda: f.rests, "the last round", timeout_s=120)
            assert f.view.history is not None
            (summary,) = f.view.history.rounds
            assert {p.outcome for p in summary.participants} == {"accepted"}
            assert f.view.plan is not None
            assert f.view.plan.chunk_bytes < 64 * 1024

    with mosquitto(max_packet_size=64 * 1024) as server:
        run(main(server), timeout_s=140)
