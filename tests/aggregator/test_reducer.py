"""Every transition of the life of a round, on a fake clock."""

from __future__ import annotations

import pytest

from aggregator.effects import (
    Aggregate,
    AnnounceRound,
    FillBootstrap,
    PrepareVersion,
    PublishCandidate,
    PublishCurrent,
    PublishStatus,
    RecordReceipt,
    RecordRound,
    RecordUpdate,
    RefreshRound,
    SendReceipt,
)
from aggregator.events import (
    BridgeSeen,
    LinkChanged,
    RoundAnnounced,
    Started,
    Tick,
    VersionMade,
    VersionPrepared,
    VersionPublished,
    WorkFailed,
)
from aggregator.reducer import next_deadline
from aggregator.state import Phase, VersionRef
from tests.support.reducer_world import World, make_rules, sha
from uns_topics.codes import Code
from uns_topics.presence import ParticipantState


def opened(*participants: str, **tolerances: object) -> World:
    """A world whose first round is collecting."""
    world = World(make_rules(**tolerances))
    world.boot_up(*participants)
    assert world.state.phase is Phase.COLLECTING
    return world


# Bootstrap ------------------------------------------------------------------------------------------------------------


def test_bootstrap_waits_for_quorum_and_everyone_online() -> None:
    world = World()
    world.status("a", "b", "c")
    world.statistics("a")
    assert world.state.phase is Phase.BOOTSTRAP
    assert next_deadline(world.state) is None
    world.statistics("b")
    assert not world.of(FillBootstrap)
    world.statistics("c")
    assert world.of(FillBootstrap) == [FillBootstrap(version=1, base=0, participants=("a", "b", "c"))]
    assert world.state.current.version == 1
    assert world.of(PublishCurrent)[-1].version == 1
    assert world.state.class_weights == (1.0, 9.0)


def test_bootstrap_goes_on_without_the_silent_after_its_time() -> None:
    world = World()
    world.status("a", "b", "c")
    world.statistics("a", "b")
    world.advance(29.0)
    world.status("a", "b", "c")
    assert not world.of(FillBootstrap)
    world.advance(1.0)
    assert world.of(FillBootstrap)[0].participants == ("a", "b")


def test_bootstrap_does_not_wait_for_who_went_silent() -> None:
    world = World(make_rules(bootstrap_s=500.0))
    world.status("a", "b", "c")
    world.advance(25.0)
    world.status("a", "b")
    world.statistics("a", "b")
    assert not world.of(FillBootstrap)
    world.advance(5.0)
    assert world.of(FillBootstrap)


def test_bootstrap_does_not_wait_for_who_is_on_hold() -> None:
    world = World()
    world.status("c", state=ParticipantState.HOLD)
    world.boot_up("a", "b")
    assert world.of(FillBootstrap)


def test_an_imported_model_takes_class_weights_only() -> None:
    world = World(imported=True)
    world.boot_up("a", "b")
    assert not world.of(FillBootstrap)
    assert world.state.current == VersionRef(version=0, sha256=sha("v0"))
    assert world.state.class_weights == (1.0, 9.0)
    assert world.state.round is not None
    assert world.state.round.base.version == 0


def test_statistics_after_the_bootstrap_change_nothing() -> None:
    world = opened("a", "b")
    before = world.state.class_weights
    world.statistics("c", counts=(1, 99))
    assert world.state.class_weights == before


def test_statistics_of_another_generation_or_width_are_not_counted() -> None:
    world = World()
    world.status("a", "b")
    world.statistics("a", "b", counts=(1, 2, 3))
    assert world.state.bootstrap is not None
    assert not world.state.bootstrap.label_counts


def test_a_failed_filling_is_tried_again_after_the_whole_time() -> None:
    world = World(work=False)
    world.boot_up("a", "b")
    world.do(WorkFailed(version=1, detail="disk full"))
    assert world.state.phase is Phase.BOOTSTRAP
    world.advance(29.9)
    assert len(world.of(FillBootstrap)) == 1
    world.advance(0.2)
    assert [f.version for f in world.of(FillBootstrap)] == [1, 2]


# Waiting and cohort ---------------------------------------------------------------------------------------------------


def test_a_round_opens_when_quorum_is_there() -> None:
    world = opened("a", "b", "c")
    assert world.state.round is not None
    assert world.state.round.cohort == ("a", "b", "c")
    assert world.state.round.base.version == 1
    assert world.of(AnnounceRound) == [AnnounceRound(round_number=1, attempt=1)]


@pytest.mark.parametrize(
    "change",
    [
        {"can_train": False},
        {"contract_hash": "d" * 64},
        {"generation": 2},
        {"encodings": ("f16",)},
        {"state": ParticipantState.HOLD},
        {"state": ParticipantState.PAUSED},
        {"new_samples": 0},
        {"speaks": (2, 3)},
    ],
)
def test_who_can_not_train_is_not_asked(change: dict[str, object]) -> None:
    world = World()
    world.status("a", "b")
    world.status("c", **change)
    world.statistics("a", "b", "c")
    world.advance(2.0)
    assert world.state.round is not None
    assert world.state.round.cohort == ("a", "b")


def test_only_allowed_participants_are_seen() -> None:
    world = World(make_rules().model_copy(update={"allowed": ("a", "b")}))
    world.boot_up("a", "b", "c")
    assert world.state.round is not None
    assert world.state.round.cohort == ("a", "b")
    assert "c" not in world.state.presence


def test_a_round_waits_a_moment_for_others_that_are_online() -> None:
    world = World()
    world.status("a", "b", "c", new_samples=0)
    world.statistics("a", "b", "c")
    world.status("a", "b")
    assert world.state.phase is Phase.WAITING
    world.advance(1.9)
    assert world.state.phase is Phase.WAITING
    world.status("c")
    assert world.state.round is not None
    assert world.state.round.cohort == ("a", "b", "c")


def test_a_round_does_not_wait_long_for_them() -> None:
    world = World()
    world.status("a", "b", "c", new_samples=0)
    world.statistics("a", "b", "c")
    world.status("a", "b")
    world.advance(2.0)
    assert world.state.round is not None
    assert world.state.round.cohort == ("a", "b")


def test_the_cohort_has_a_limit_and_is_drawn_the_same_way_again() -> None:
    names = tuple(f"p{i}" for i in range(20))
    cohorts = []
    for order in (names, tuple(reversed(names))):
        world = opened(*order, max_cohort=5)
        assert world.state.round is not None
        cohorts.append(world.state.round.cohort)
    assert len(cohorts[0]) == 5
    assert cohorts[0] == cohorts[1] == tuple(sorted(cohorts[0]))


def test_rounds_keep_their_interval() -> None:
    world = opened("a", "b", min_interval_s=100.0)
    start = world.now
    world.send("a", "b")
    world.evaluate("a", 1.0, 2.0)
    world.evaluate("b", 1.0, 2.0)
    assert world.state.phase is Phase.WAITING
    for _ in range(9):
        world.advance(11.0)
        world.status("a", "b")
    world.advance(0.9)
    assert world.state.phase is Phase.WAITING
    world.advance(0.2)
    assert world.state.last_opened == pytest.approx(start + 100.0)


# Collecting -----------------------------------------------------------------------------------------------------------


def test_collecting_ends_when_all_have_answered() -> None:
    world = opened("a", "b")
    world.work = False
    world.send("a")
    assert world.state.phase is Phase.COLLECTING
    world.send("b")
    assert world.state.phase is Phase.AGGREGATING
    assert world.of(Aggregate) == [Aggregate(round_number=1, version=2, base=1, participants=("a", "b"))]
    assert isinstance(world.outputs[-2], RefreshRound)


def test_collecting_ends_at_the_deadline_with_quorum() -> None:
    world = opened("a", "b", "c", deadline_s=20.0)
    world.work = False
    world.send("a", "b")
    world.advance(19.9)
    assert world.state.phase is Phase.COLLECTING
    world.advance(0.1)
    assert world.state.phase is Phase.AGGREGATING


def test_a_participant_that_dies_is_waited_for_its_grace_only() -> None:
    world = opened("a", "b", "c")
    world.work = False
    world.send("a", "b")
    world.die("c")
    world.advance(9.9)
    assert world.state.phase is Phase.COLLECTING
    world.advance(0.1)
    assert world.state.phase is Phase.AGGREGATING


def test_a_participant_that_comes_back_within_its_grace_is_waited_for() -> None:
    world = opened("a", "b", "c")
    world.work = False
    world.send("a", "b")
    world.die("c")
    world.advance(5.0)
    world.status("c", birth=2)
    world.advance(20.0)
    assert world.state.phase is Phase.COLLECTING
    world.send("c")
    assert world.of(Aggregate)[0].participants == ("a", "b", "c")


def test_a_heartbeat_that_stops_is_absence() -> None:
    world = opened("a", "b", "c", deadline_s=1000.0)
    world.work = False
    world.send("a", "b")
    world.advance(39.9)  # three periods and the grace
    assert world.state.phase is Phase.COLLECTING
    world.advance(0.1)
    assert world.state.phase is Phase.AGGREGATING


def test_a_bridge_that_dies_takes_its_participant_along() -> None:
    world = World()
    world.status("a", "b", "c", via=("dmz",))
    world.statistics("a", "b", "c")
    for p in ("a", "b", "c"):
        world.do(BridgeSeen(participant=p, bridge="dmz", boot="0" * 8, birth=1, online=True))
    world.work = False
    world.send("a", "b")
    world.do(BridgeSeen(participant="c", bridge="dmz", boot="0" * 8, birth=1, online=False))
    world.advance(10.0)
    assert world.state.phase is Phase.AGGREGATING


def test_a_will_of_an_older_connection_is_not_believed() -> None:
    world = opened("a", "b")
    world.status("a", birth=2)
    world.die("a", birth=1)
    assert world.state.presence["a"].offline_since is None
    world.die("a", birth=2, boot="f" * 8)
    assert world.state.presence["a"].offline_since is None
    world.die("a", birth=2)
    assert world.state.presence["a"].offline_since == world.now


def test_below_quorum_absent_members_are_redrawn_and_accepted_updates_stay() -> None:
    world = opened("a", "b", deadline_s=500.0)
    world.status("c")  # joins while the round is open
    world.send("a")
    world.die("b")
    world.advance(10.0)
    current = world.state.round
    assert current is not None
    assert (current.number, current.attempt, current.cohort) == (1, 2, ("a", "c"))
    assert current.accepted == ("a",)
    assert world.of(AnnounceRound)[-1] == AnnounceRound(round_number=1, attempt=2)


def test_an_update_of_an_earlier_attempt_counts() -> None:
    world = opened("a", "b", deadline_s=500.0)
    late = world.update("b")
    world.status("c")
    world.send("a")
    world.die("b")
    world.advance(10.0)
    world.work = False
    world.do(late)
    assert world.of(SendReceipt)[-1].result == "accepted"
    world.send("c")
    assert world.of(Aggregate)[0].participants == ("a", "b", "c")


def test_with_nobody_to_redraw_the_deadline_is_waited_for() -> None:
    world = opened("a", "b", deadline_s=100.0)
    world.send("a")
    world.die("b")
    world.advance(60.0)
    assert world.state.round is not None
    assert world.state.round.attempt == 1
    world.status("a", "b", birth=2)
    world.work = False
    world.send("b")
    assert world.state.phase is Phase.AGGREGATING


def test_after_three_attempts_the_round_fails_and_its_number_is_gone() -> None:
    world = opened("a", "b", deadline_s=20.0)
    world.send("a")
    for attempt in (1, 2, 3):
        assert world.state.round is not None
        assert world.state.round.attempt == attempt
        world.advance(20.0)
        world.status("a", "b")
    summary = world.of(RecordRound)[0].summary
    assert (summary.round_number, summary.result, summary.version) == (1, "failed", None)
    assert {p.participant: p.outcome for p in summary.participants} == {"a": "accepted", "b": "absent"}
    assert world.state.round is not None
    assert world.state.round.number == 2
    assert world.state.current.version == 1


def test_a_rejection_counts_as_an_answer_and_not_as_an_update() -> None:
    world = opened("a", "b", "c")
    world.work = False
    world.send("a", "b")
    outputs = world.do(world.update("c", content=Code.NORM))
    assert world.of(Aggregate)[0].participants == ("a", "b")
    assert not [o for o in outputs if isinstance(o, RecordUpdate)]
    assert world.of(SendReceipt)[-1].code is Code.NORM


def test_a_repeat_gets_the_first_receipt_and_another_update_is_a_duplicate() -> None:
    world = opened("a", "b")
    world.send("a", "a")
    assert len(world.of(RecordReceipt)) == 1
    assert [r.result for r in world.of(SendReceipt)] == ["accepted", "accepted"]
    world.do(world.update("a", text="another"))
    assert world.of(SendReceipt)[-1].code is Code.DUPLICATE
    assert world.state.round is not None
    assert world.state.round.accepted == ("a",)


def test_a_manifest_alone_is_never_accepted() -> None:
    world = opened("a", "b")
    assert world.do(world.update("a", content_checked=False)) == ()
    assert world.state.round is not None
    assert not world.state.round.answers


def test_a_birth_while_a_round_is_open_refreshes_its_seconds() -> None:
    world = opened("a", "b")
    assert RefreshRound() in world.status("c")
    assert RefreshRound() not in world.status("c")
    assert RefreshRound() in world.status("c", birth=2)


# Our own connection ---------------------------------------------------------------------------------------------------


def test_while_our_connection_is_down_nobody_is_absent_and_no_deadline_passes() -> None:
    world = opened("a", "b", "c", deadline_s=50.0)
    world.send("a", "b")
    world.do(LinkChanged(up=False))
    assert next_deadline(world.state) is None
    world.advance(300.0)
    world.do(Tick())
    assert world.state.phase is Phase.COLLECTING
    world.do(LinkChanged(up=True))
    assert next_deadline(world.state) == world.now + 10.0
    world.work = False
    world.send("c")
    assert world.of(Aggregate)[0].participants == ("a", "b", "c")


def test_after_a_restart_members_have_their_grace_to_be_heard() -> None:
    world = opened("a", "b", "c", deadline_s=500.0)
    world.send("a", "b")
    world.do(Started(rules=world.state.rules))
    assert not world.state.presence
    world.advance(100.0)
    world.do(LinkChanged(up=True))
    world.status("a", "b")
    world.work = False
    world.advance(9.9)
    assert world.state.phase is Phase.COLLECTING
    world.advance(0.1)
    assert world.of(Aggregate)[0].participants == ("a", "b")


# From the fold to the next round --------------------------------------------------------------------------------------


def test_a_round_passes_through_every_phase() -> None:
    world = opened("a", "b")
    world.work = False
    world.send("a", "b")
    seen = [world.state.phase]
    made = VersionRef(version=2, sha256=sha("new"))
    for event in (VersionMade(made=made), VersionPrepared(version=2), VersionPublished(version=2)):
        world.do(event)
        seen.append(world.state.phase)
    assert seen == [Phase.AGGREGATING, Phase.COMMITTED, Phase.PUBLISHING, Phase.EVALUATING]
    assert world.of(PrepareVersion)[-1] == PrepareVersion(version=2)
    assert world.of(PublishCandidate) == [PublishCandidate(version=2)]
    world.evaluate("a", 1.0, 2.0)
    world.evaluate("b", 1.0, 2.0)
    assert world.state.current == made
    assert world.state.phase is Phase.OPEN
    assert world.state.round is not None
    assert (world.state.round.number, world.state.round.base) == (2, made)


@pytest.mark.parametrize(
    "event",
    [
        RoundAnnounced(round_number=1, attempt=1),
        RoundAnnounced(round_number=9, attempt=1),
        VersionMade(made=VersionRef(version=7, sha256="0" * 64)),
        VersionPrepared(version=7),
        VersionPublished(version=7),
        WorkFailed(version=7, detail=""),
        Tick(),
    ],
)
def test_events_that_do_not_fit_change_nothing(event: object) -> None:
    world = opened("a", "b")
    for prepare in (lambda: None, lambda: world.send("a", "b")):
        prepare()
        before = world.state
        outputs = world.do(event)  # type: ignore[arg-type]
        assert outputs == ()
        assert world.state.but(at=0.0) == before.but(at=0.0)


def test_a_fold_that_fails_fails_the_round_and_leaves_the_model() -> None:
    world = opened("a", "b")
    world.work = False
    world.send("a", "b")
    world.do(WorkFailed(version=2, detail="not finite"))
    assert world.of(RecordRound)[0].summary.result == "failed"
    assert world.state.current.version == 1
    assert world.state.round is not None
    assert world.state.round.number == 2
    world.work = True
    world.do(RoundAnnounced(round_number=2, attempt=1))
    world.status("a", "b")
    world.work = False
    world.send("a", "b")
    assert world.of(Aggregate)[-1].version == 3  # numbers are never reused


def test_a_worse_candidate_is_refused_and_never_a_base() -> None:
    world = opened("a", "b")
    world.send("a", "b")
    world.evaluate("a", 2.0, 1.0)
    world.evaluate("b", 2.0, 1.0)
    assert world.state.current.version == 1
    summary = world.of(RecordRound)[0].summary
    assert (summary.result, summary.version, summary.candidate_loss, summary.current_loss) == ("refused", 2, 2.0, 1.0)
    assert world.of(PublishCurrent)[-1].refused == 2
    assert world.state.round is not None
    assert world.state.round.base.version == 1
    world.send("a", "b")
    assert world.state.candidate is not None
    assert world.state.candidate.version == 3


def test_evaluation_ends_at_its_time_with_what_came() -> None:
    world = opened("a", "b", evaluation_s=15.0)
    world.send("a", "b")
    world.evaluate("a", 1.0, 2.0)
    world.advance(14.9)
    assert world.state.phase is Phase.EVALUATING
    world.advance(0.1)
    assert world.state.current.version == 2


def test_evaluation_does_not_wait_for_the_dead() -> None:
    world = opened("a", "b")
    world.send("a", "b")
    world.evaluate("a", 1.0, 2.0)
    world.die("b")
    assert world.state.current.version == 2


@pytest.mark.parametrize(("choice", "version"), [("promote", 2), ("refuse", 1)])
def test_no_evaluation_at_all(choice: str, version: int) -> None:
    world = opened("a", "b", on_no_evaluation=choice, evaluation_s=5.0)
    world.send("a", "b")
    world.advance(5.0)
    assert world.state.current.version == version


def test_evaluations_of_something_else_are_ignored() -> None:
    world = opened("a", "b")
    world.send("a", "b")
    world.evaluate("a", 9.0, 1.0, candidate=1)
    world.evaluate("a", 9.0, 1.0, generation=2)
    world.evaluate("stranger", 9.0, 1.0)
    assert world.state.candidate is not None
    assert not world.state.candidate.scores
    world.evaluate("a", 9.0, 1.0, current=0)
    assert world.state.candidate.scores["a"].current is None


def test_the_first_evaluation_of_a_participant_stands() -> None:
    world = opened("a", "b")
    world.send("a", "b")
    world.evaluate("a", 1.0, 2.0)
    world.evaluate("a", 9.0, 2.0)
    world.evaluate("b", 1.0, 2.0)
    assert world.state.current.version == 2


# Rest -----------------------------------------------------------------------------------------------------------------


def play(world: World, candidate: float, current: float) -> None:
    world.status("a", "b")
    world.send("a", "b")
    world.evaluate("a", candidate, current)
    world.evaluate("b", candidate, current)


def test_after_the_last_round_it_rests_with_a_final_version() -> None:
    world = opened("a", "b", rounds=2)
    play(world, 1.0, 2.0)
    play(world, 0.5, 1.0)
    assert world.state.phase is Phase.RESTING
    assert world.of(PublishCurrent)[-1].final
    assert world.of(PublishCurrent)[-1].version == 3
    assert PublishStatus() in world.outputs
    world.status("a", "b")
    assert world.state.phase is Phase.RESTING


def test_without_gain_it_rests() -> None:
    world = opened("a", "b", patience=2)
    play(world, 1.0, 2.0)
    play(world, 1.0, 1.0)
    play(world, 0.9, 1.0)
    play(world, 1.0, 1.0)
    assert world.state.phase is not Phase.RESTING
    play(world, 5.0, 1.0)
    assert world.state.phase is Phase.RESTING


def test_a_raised_limit_ends_the_rest() -> None:
    world = opened("a", "b", rounds=1)
    play(world, 1.0, 2.0)
    assert world.state.phase is Phase.RESTING
    world.do(Started(rules=make_rules(rounds=2)))
    assert world.state.phase is Phase.WAITING
    world.do(LinkChanged(up=True))
    world.status("a", "b")
    assert world.state.round is not None
    assert world.state.round.number == 2
