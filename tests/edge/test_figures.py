"""What an edge shows to Prometheus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_bridge.metrics import Sheet
from edge.figures import EdgeFigures, PlantFigures, SparkplugFigures, edge_sheet
from tests.support.prometheus import Scrape
from uns_topics.codes import Code, DataProblem, Reason
from uns_topics.presence import ParticipantState, ParticipantStatus, Serves, Variant
from uns_topics.reports import LastUpdate

FRESH = EdgeFigures(
    federation="tiny",
    participant="berlin",
    is_up=False,
    status=ParticipantStatus(birth=1, state=ParticipantState.ONLINE, reason=Reason.NO_PLAN),
    matured=0,
    trainer_reason=Reason.NO_TRAINER,
    swap_held=False,
    on_probation=False,
    rejected={},
    failed={},
    last_update=None,
    plant=PlantFigures(),
)
BUSY = EdgeFigures(
    federation="tiny",
    participant="berlin",
    is_up=True,
    status=ParticipantStatus(
        birth=3,
        state=ParticipantState.TRAINING,
        samples=900,
        new_samples=40,
        instances=2,
        holds_version=7,
        serves=Serves(version=6, variant=Variant.LAST_GOOD),
        bytes_up=1000,
        bytes_down=2000,
        bytes_kept=3_000_000,
    ),
    matured=800,
    trainer_reason=None,
    swap_held=False,
    on_probation=False,
    rejected={"PayloadError": 3, "acme/berlin/smt": 1},
    failed={"Evaluate": 2},
    last_update=LastUpdate(
        id="0" * 16,
        round_number=5,
        base="0" * 64,
        result="rejected",
        code=Code.NOT_FINITE,
        num_examples=300,
        num_steps=20,
        payload_bytes=5000,
        train_seconds=1.5,
    ),
    plant=PlantFigures(True, 12_345, 890, 17, {"late": 4, "not-finite": 2}, SparkplugFigures(True, False)),
)


@pytest.mark.parametrize("edge", [FRESH, BUSY], ids=["fresh", "busy"])
def test_names_and_labels_keep_the_conventions(edge: EdgeFigures) -> None:
    scrape = Scrape.of(edge_sheet(edge))
    assert scrape.problems() == []
    ours = [s for s in scrape.samples if s.name.startswith("headgate_edge_")]
    assert ours
    assert all((s.labels["federation"], s.labels["participant"]) == ("tiny", "berlin") for s in ours)


def test_a_name_that_breaks_them_is_found() -> None:
    sheet = Sheet("edge", {})
    sheet.gauge("training_ms", "Time", 1)
    sheet.gauge("samples", "Samples", 1, topic="acme")
    sheet.gauge("bytes_kept", "Bytes", 1)
    sheet.gauge("messages_total", "Messages", 1)
    sheet.counter("messages_seen", "Messages", 1)
    sheet.gauge("nameless", "", 1)
    problems = Scrape.of(sheet).problems()
    for sign in ("training_ms is not in a base", "label topic", "the unit stands last", "_total belongs", "no help"):
        assert any(sign in problem for problem in problems), (sign, problems)


def test_a_fresh_edge() -> None:
    scrape = Scrape.of(edge_sheet(FRESH))
    assert [scrape.value("headgate_edge_connected", session=s) for s in ("fl", "plant")] == [0, 0]
    assert len(scrape.all("headgate_edge_connected")) == 2  # no Sparkplug: nothing is said of it
    assert scrape.all("headgate_edge_sparkplug_born") == []
    assert scrape.actual("headgate_edge_reason", "reason") == "no-plan"
    assert scrape.actual("headgate_edge_state", "state") == "online"
    assert scrape.actual("headgate_edge_served_variant", "variant") == "none"
    assert scrape.value("headgate_edge_trainer_available") == 0
    problems = scrape.all("headgate_edge_data_problems_total")
    assert {labels["code"]: value for labels, value in problems} == dict.fromkeys(map(str, DataProblem), 0)
    for unknown in ("held_version", "served_version", "last_update_round", "last_update_result"):
        assert scrape.all(f"headgate_edge_{unknown}") == []


def test_a_busy_edge() -> None:
    scrape = Scrape.of(edge_sheet(BUSY))
    expected = {
        "instances": 2,
        "samples": 900,
        "matured_samples": 800,
        "new_samples": 40,
        "waiting_effects": 17,
        "plant_messages_total": 12_345,
        "plant_kept_bytes_total": 3_000_000,
        "inferences_total": 890,
        "fl_sent_bytes_total": 1000,
        "fl_received_bytes_total": 2000,
        "held_version": 7,
        "served_version": 6,
        "trainer_available": 1,
        "last_update_round": 5,
        "last_update_examples": 300,
        "last_update_size_bytes": 5000,
        "last_update_training_seconds": 1.5,
    }
    assert {name: scrape.value(f"headgate_edge_{name}") for name in expected} == expected
    assert [scrape.value("headgate_edge_connected", session=s) for s in ("fl", "plant", "spb")] == [1, 1, 1]
    assert scrape.value("headgate_edge_sparkplug_born") == 0
    assert scrape.actual("headgate_edge_reason", "reason") == "none"
    assert scrape.actual("headgate_edge_state", "state") == "training"
    assert scrape.actual("headgate_edge_served_variant", "variant") == "last-good"
    assert scrape.value("headgate_edge_last_update_result", result="rejected", code="not-finite") == 1
    assert scrape.value("headgate_edge_data_problems_total", code="late") == 4
    assert scrape.value("headgate_edge_fl_rejected_messages_total", reason="PayloadError") == 3
    assert scrape.value("headgate_edge_fl_rejected_messages_total", reason="_other") == 1
    assert scrape.value("headgate_edge_failed_effects_total", effect="Evaluate") == 2


def test_no_topic_and_no_key_is_ever_shown() -> None:
    odd = replace(BUSY, plant=PlantFigures(True, 1, 1, 1, {"acme/berlin/smt/line1/spi": 3, "B4711 is odd": 1}))
    text = "\n".join(str(s) for s in Scrape.of(edge_sheet(odd)).samples)
    for secret in ("acme", "line1", "B4711"):
        assert secret not in text
