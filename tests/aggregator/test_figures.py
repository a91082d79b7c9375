"""What an aggregator shows to Prometheus, and what it counts for it."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.effects import RecordRound, RecordVersionStatus, SendReceipt
from aggregator.figures import AggregatorFigures, aggregator_sheet
from aggregator.tally import MAX_PARTICIPANTS, OTHERS, ROUND_SECONDS, Tally
from tests.support.prometheus import Scrape
from tests.support.reducer_world import World, make_rules, sha
from uns_topics.codes import Code
from uns_topics.rounds import RoundSummary


def figures_of(world: World, tally: Tally | None = None, **changes: Any) -> AggregatorFigures:
    if tally is None:
        tally = Tally()
        tally.take(world.outputs)
    fields = {"ignored": {"topic": 2}, "chunk_bytes": 12_000, "open_transfers": 1, "stray_chunks": 3}
    return AggregatorFigures(state=world.state, now=world.now, is_up=True, tally=tally, **{**fields, **changes})


def scrape_of(world: World, tally: Tally | None = None, **changes: Any) -> Scrape:
    return Scrape.of(aggregator_sheet(figures_of(world, tally, **changes)))


def round_ended(seconds: float, result: Any = "promoted") -> RecordRound:
    summary = RoundSummary(round_number=1, result=result, version=None, attempt=1, seconds=seconds, participants=())
    return RecordRound(summary=summary)


def answered(participant: str, code: Code | None = None) -> SendReceipt:
    result: Any = "accepted" if code is None else "rejected"
    return SendReceipt(
        participant=participant, transfer=sha(participant)[:16], result=result, code=code, payload_bytes=7
    )


def played() -> World:
    """One round is over and the next one collects."""
    world = World(make_rules(rounds=2))
    world.boot_up("a", "b")
    world.advance(20.0)
    world.status("a", "b", holds_version=1)
    world.send("a")
    world.do(world.update("a", "again", generation=9))
    world.send("b")
    for who in ("a", "b"):
        world.evaluate(who, 0.5, 0.6)
    return world


def test_names_and_labels_keep_the_conventions() -> None:
    for world in (World(), played()):
        assert scrape_of(world).problems() == []


def test_before_anything_happened() -> None:
    scrape = scrape_of(World())
    assert scrape.actual("headgate_aggregator_phase", "phase") == "bootstrap"
    assert scrape.value("headgate_aggregator_known_participants") == 0
    assert scrape.value("headgate_aggregator_rounds_total", result="promoted") == 0
    assert scrape.value("headgate_aggregator_round_duration_seconds_count") == 0
    assert scrape.all("headgate_aggregator_last_round_duration_seconds") == []
    assert scrape.all("headgate_aggregator_updates_total") == []


def test_a_federation_at_work() -> None:
    world = played()
    scrape = scrape_of(world)
    assert scrape.value("headgate_aggregator_epoch", federation="tiny") == world.state.epoch
    assert scrape.value("headgate_aggregator_current_version") == world.state.current.version == 2
    assert scrape.value("headgate_aggregator_last_round") == world.state.last_round == 2
    assert scrape.value("headgate_aggregator_round_open") == 1
    assert scrape.value("headgate_aggregator_round_cohort_participants") == 2
    assert scrape.value("headgate_aggregator_round_accepted_updates") == 0
    assert scrape.actual("headgate_aggregator_phase", "phase") == world.state.phase
    assert scrape.value("headgate_aggregator_rounds_total", result="promoted") == 1
    # the bootstrap's version and the round's
    assert scrape.value("headgate_aggregator_versions_total", result="promoted") == 2
    assert scrape.value("headgate_aggregator_last_round_duration_seconds") == 20
    assert scrape.value("headgate_aggregator_round_duration_seconds_bucket", le="15.0") == 0
    assert scrape.value("headgate_aggregator_round_duration_seconds_bucket", le="60.0") == 1
    for who in ("a", "b"):
        updates = scrape.value("headgate_aggregator_updates_total", participant=who, result="accepted", code="none")
        assert updates == 1
        assert scrape.value("headgate_aggregator_participant_online", participant=who) == 1
        assert scrape.value("headgate_aggregator_participant_held_version", participant=who) == 1
    rejected = scrape.value("headgate_aggregator_updates_total", participant="a", result="rejected")
    assert rejected == 1
    assert scrape.value("headgate_aggregator_updates_total", code="generation") == 1
    assert scrape.value("headgate_aggregator_answered_update_bytes_total", participant="a") == 200
    assert scrape.value("headgate_aggregator_received_update_bytes_total") == 12_000
    assert scrape.value("headgate_aggregator_open_transfers") == 1
    assert scrape.value("headgate_aggregator_stray_chunks_total") == 3
    assert scrape.value("headgate_aggregator_ignored_messages_total", code="topic") == 2


def test_who_went_silent_is_known_and_not_online() -> None:
    world = played()
    world.die("b")
    scrape = scrape_of(world)
    assert scrape.value("headgate_aggregator_known_participants") == 2
    assert scrape.value("headgate_aggregator_online_participants") == 1
    assert scrape.value("headgate_aggregator_participant_online", participant="b") == 0


def test_a_crowd_of_names_stays_bounded() -> None:
    world = World()
    world.status(*(f"p{i}" for i in range(MAX_PARTICIPANTS + 20)))
    scrape = scrape_of(world)
    assert scrape.value("headgate_aggregator_known_participants") == MAX_PARTICIPANTS + 20
    shown = {labels["participant"] for labels, _ in scrape.all("headgate_aggregator_participant_online")}
    assert shown == {f"p{i}" for i in range(MAX_PARTICIPANTS)}


def test_names_that_were_not_let_in_are_counted_together() -> None:
    tally = Tally()
    tally.take([answered(f"stranger-{i}", Code.UNKNOWN_PARTICIPANT) for i in range(1000)])
    tally.take([answered(f"p{i}") for i in range(MAX_PARTICIPANTS + 20)])
    tally.take([answered("p0", Code.UNKNOWN_PARTICIPANT)])
    assert tally.answers[OTHERS, "rejected", Code.UNKNOWN_PARTICIPANT] == 1000
    assert tally.answers[OTHERS, "accepted", None] == 20
    assert tally.answers["p0", "accepted", None] == 1
    assert tally.answers["p0", "rejected", Code.UNKNOWN_PARTICIPANT] == 1
    assert len(tally.answered_bytes) == MAX_PARTICIPANTS + 1
    scrape = scrape_of(World(), tally)
    assert scrape.problems() == []
    strangers = scrape.value("headgate_aggregator_updates_total", participant="_other", result="rejected")
    assert strangers == 1000


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (1.0, 0), (1.1, 1), (86_400.0, 8), (1e6, 9)])
def test_a_duration_falls_into_its_bucket(seconds: float, bucket: int) -> None:
    tally = Tally()
    tally.take([round_ended(seconds, "failed")])
    assert tally.round_counts == [int(i == bucket) for i in range(len(ROUND_SECONDS) + 1)]
    assert (tally.round_seconds, tally.last_round_seconds, tally.rounds) == (seconds, seconds, {"failed": 1})


def test_what_became_of_versions() -> None:
    tally = Tally()
    statuses: tuple[Any, ...] = ("made", "candidate", "superseded", "current", "refused", "refused", "failed")
    tally.take(RecordVersionStatus(version=i, status=status) for i, status in enumerate(statuses))
    assert tally.versions == {"promoted": 1, "refused": 2, "failed": 1}
