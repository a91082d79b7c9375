"""Rounds without a barrier (FedBuff), on a fake clock: K updates end one, and late updates count in a later one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.buffer import MAX_ASKING
from aggregator.effects import (
    NOWHERE,
    Aggregate,
    AnnounceRound,
    RecordLate,
    RecordReceipt,
    RecordRound,
    RecordUpdate,
    Recount,
    SendReceipt,
)
from aggregator.events import GenerationStarted, LinkChanged, RoundAnnounced, Started, WorkFailed
from aggregator.reducer import next_deadline
from aggregator.state import Phase, Round, State, VersionRef
from tests.aggregator.test_reducer_properties import ACTIONS, NAMES, act
from tests.support.reducer_world import World, make_rules, sha
from uns_topics.codes import Code
from uns_topics.presence import ParticipantState


def opened(*participants: str, buffer: int = 2, max_staleness: int = 2, **tolerances: object) -> World:
    """A world whose first round is collecting; min_new_samples 0, so that everybody is ready for the next one."""
    limits = {"min_new_samples": 0, "promotion_margin": 100.0, **tolerances}
    world = World(make_rules(buffer=buffer, max_staleness=max_staleness, **limits))
    world.boot_up(*participants)
    assert world.state.phase is Phase.COLLECTING
    return world


def the_round(world: World) -> Round:
    assert world.state.round is not None
    return world.state.round


def end(world: World, *participants: str, refuse: bool = False) -> None:
    """They score the candidate, until it is decided."""
    for participant in participants:
        if world.state.candidate is None:
            return
        world.evaluate(participant, 1000.0 if refuse else 0.5, 1.0)


def answer(world: World, event: object) -> tuple[str, Code | None]:
    (receipt,) = [o for o in world.do(event) if isinstance(o, SendReceipt)]  # type: ignore[arg-type]
    return receipt.result, receipt.code


ACCEPTED = ("accepted", None)


# Closing --------------------------------------------------------------------------------------------------------------


def test_a_round_ends_at_k_updates() -> None:
    world = opened("a", "b", "c", buffer=2)
    world.send("c")
    assert world.state.phase is Phase.COLLECTING
    world.send("a")
    assert world.of(Aggregate) == [Aggregate(round_number=1, version=2, base=1, participants=("a", "c"))]
    end(world, "a", "b", "c")
    assert [p.outcome for p in world.of(RecordRound)[0].summary.participants] == ["accepted", "absent", "accepted"]


def test_a_round_ends_below_k_once_all_have_answered() -> None:
    world = opened("a", "b", "c", buffer=10)
    world.send("a", "b")
    assert world.state.phase is Phase.COLLECTING
    world.send("c")
    assert world.of(Aggregate)[0].participants == ("a", "b", "c")


def test_a_round_ends_at_the_deadline_with_quorum() -> None:
    world = opened("a", "b", "c", buffer=10, deadline_s=20.0)
    world.send("a", "b")
    world.advance(20.0)
    assert world.of(Aggregate)[0].participants == ("a", "b")


def test_below_quorum_at_the_deadline_the_round_goes_on_with_all_that_it_has() -> None:
    world = opened("a", "b", buffer=2, deadline_s=20.0)
    slow = world.update("b")
    world.send("a")
    world.advance(19.0)
    world.status("a", "c")
    world.die("b")
    world.advance(1.0)
    assert world.of(AnnounceRound)[-1] == AnnounceRound(round_number=1, attempt=2)
    assert world.state.phase is Phase.COLLECTING
    assert the_round(world).cohort == ("a", "b", "c"), "who became ready since is asked, and nobody given up"
    assert the_round(world).accepted == ("a",)
    assert the_round(world).deadline == pytest.approx(world.now + 20.0)
    assert answer(world, slow) == ACCEPTED
    assert world.of(Aggregate)[0].participants == ("a", "b")


def test_a_round_that_never_reaches_quorum_ends_and_hands_on_what_it_has() -> None:
    world = opened("a", "b", buffer=2, deadline_s=20.0)
    world.send("a")
    for _ in range(3):
        world.advance(19.0)
        world.status("a", "b")
        world.advance(1.0)
    assert world.of(RecordRound)[0].summary.result == "failed"
    assert the_round(world).number == 2
    assert [(late.participant, late.asked_in) for late in the_round(world).late] == [("a", 1)]
    assert the_round(world).cohort == ("b",), "a has given what it can from this base"
    world.advance(19.0)
    world.status("a", "b")
    world.advance(1.0)
    assert (the_round(world).attempt, the_round(world).cohort) == (2, ("b",))
    world.send("b")
    assert world.of(Aggregate)[0].participants == ("a", "b")


def test_quorum_counts_participants_and_not_updates() -> None:
    world = opened("a", "b", "c", buffer=2, deadline_s=20.0)
    late = world.update("c")
    world.send("a", "b")
    end(world, "a", "b", "c")
    world.do(late)
    world.send("c")
    world.status("d")
    assert the_round(world).contributions == ("c", "c")
    assert world.state.phase is Phase.COLLECTING
    assert (the_round(world).attempt, the_round(world).cohort) == (1, ("a", "b", "c"))
    world.send("a")
    assert world.of(Aggregate)[-1].participants == ("a", "c", "c")


# Late updates ---------------------------------------------------------------------------------------------------------


def test_a_late_update_counts_in_the_open_round_by_its_staleness() -> None:
    world = opened("a", "b", "c")
    late = world.update("c")
    world.send("a", "b")
    end(world, "a", "b", "c")
    assert (the_round(world).number, the_round(world).base.version) == (2, 2)
    assert answer(world, late) == ACCEPTED
    (kept,) = [u for u in world.of(RecordUpdate) if u.participant == "c"]
    assert (kept.round_number, kept.counted_in, kept.staleness) == (1, 2, 1)
    world.send("a")
    assert world.of(Aggregate)[-1] == Aggregate(round_number=2, version=3, base=2, participants=("a", "c"))
    end(world, "a", "b", "c")
    outcomes = world.of(RecordRound)[-1].summary.participants
    assert [(p.participant, p.outcome) for p in outcomes] == [("a", "accepted"), ("b", "absent"), ("c", "accepted")]


@pytest.mark.parametrize("phase", [Phase.AGGREGATING, Phase.COMMITTED, Phase.PUBLISHING, Phase.EVALUATING])
def test_a_late_update_waits_for_the_next_round_whatever_goes_on(phase: Phase) -> None:
    world = opened("a", "b", "c")
    late = world.update("c")
    world.work = False
    effects = [*world.send("a", "b")]
    while world.state.phase is not phase:
        due = [event for event in map(world.answer, effects) if event is not None]  # type: ignore[arg-type]
        effects = [output for event in due for output in world.do(event)]
    assert answer(world, late) == ACCEPTED
    assert [(one.participant, one.asked_in, one.staleness) for one in world.state.buffer] == [("c", 1, 0)]
    world.work = True
    for effect in effects:
        event = world.answer(effect)  # type: ignore[arg-type]
        if event is not None:
            world.do(event)
    end(world, "a", "b", "c")
    assert world.state.buffer == ()
    assert [(one.participant, one.asked_in, one.staleness) for one in the_round(world).late] == [("c", 1, 1)]
    moved = Recount(participant="c", round_number=1, staleness=1)
    assert world.of(RecordLate) == [RecordLate(counted_in=2, updates=(moved,))]
    assert "c" in the_round(world).cohort, "it may train from the new version as well"


def test_a_late_update_comes_while_waiting_and_helps_to_open() -> None:
    world = opened("a", "b", "c", min_interval_s=500.0)
    late = world.update("c")
    world.send("a", "b")
    end(world, "a", "b", "c")
    assert world.state.phase is Phase.WAITING
    assert answer(world, late) == ACCEPTED
    world.advance(490.0)
    world.status("a")  # the others went silent
    world.advance(12.0)
    assert world.state.phase is Phase.COLLECTING
    assert the_round(world).cohort == ("a",)
    world.send("a")
    assert world.of(Aggregate)[-1].participants == ("a", "c")


def test_a_participant_counts_with_a_late_and_a_fresh_update() -> None:
    world = opened("a", "b", "c", buffer=3, deadline_s=20.0)
    late = world.update("c")
    world.send("a", "b")
    world.advance(20.0)
    end(world, "a", "b", "c")
    world.do(late)
    world.send("c", "b")
    assert world.of(Aggregate)[-1].participants == ("b", "c", "c")
    assert [r.summary.version for r in world.of(RecordRound)] == [2]


def test_what_is_older_than_the_limit_is_stale() -> None:
    world = opened("a", "b", "c", max_staleness=1)
    first = world.update("c")
    for _ in range(2):
        world.send("a", "b")
        end(world, "a", "b", "c")
    second = world.update("c", round_number=2, base=world.state.asking[1].base.sha256)
    assert the_round(world).number == 3
    assert answer(world, first) == ("rejected", Code.STALE)
    assert answer(world, second) == ACCEPTED


def test_a_refused_version_makes_nothing_staler() -> None:
    world = opened("a", "b", "c", max_staleness=1)
    first = world.update("c")
    for _ in range(3):
        world.send("a", "b")
        end(world, "a", "b", "c", refuse=True)
    assert the_round(world).number == 4
    assert answer(world, first) == ACCEPTED
    assert the_round(world).late[0].staleness == 0


def test_what_is_kept_of_rounds_is_bounded() -> None:
    world = opened("a", "b", "c")
    first = world.update("c")
    for _ in range(MAX_ASKING):
        world.send("a", "b")
        end(world, "a", "b", "c", refuse=True)
    assert len(world.state.asking) == MAX_ASKING
    assert answer(world, first) == ("rejected", Code.STALE)


def test_a_refused_candidate_takes_only_what_went_into_it() -> None:
    world = opened("a", "b", "c")
    late = world.update("c")
    world.send("a", "b")
    world.do(late)
    end(world, "a", "b", "c", refuse=True)
    assert the_round(world).number == 2
    assert the_round(world).contributions == ("c",)
    assert the_round(world).cohort == ("a", "b"), "c trained from this very version"


def test_a_failed_round_gives_back_its_updates_once() -> None:
    world = opened("a", "b", "c", "d", buffer=3)
    late = world.update("d")
    world.work = False
    world.send("a", "b", "c")
    world.do(late)
    world.do(WorkFailed(version=2, detail="disk full"))
    world.advance(2.0)
    assert world.of(RecordRound)[-1].summary.result == "failed"
    assert the_round(world).number == 2
    assert [late.participant for late in the_round(world).late] == ["a", "b", "c", "d"]
    world.do(RoundAnnounced(round_number=2, attempt=1))
    assert world.of(Aggregate)[-1].participants == ("a", "b", "c", "d")
    world.do(WorkFailed(version=3, detail="disk full"))
    assert [late.participant for late in world.state.buffer or the_round(world).late] == ["d"]


# What is refused ------------------------------------------------------------------------------------------------------


def test_repeats_get_their_first_receipt_wherever_their_round_stands() -> None:
    world = opened("a", "b", "c")
    fresh, late = world.update("a"), world.update("c")
    world.do(fresh)
    world.send("b")
    for step in (lambda: None, lambda: end(world, "a", "b", "c"), lambda: world.send("a")):
        step()
        for event in (fresh, late):
            assert answer(world, event) == ACCEPTED
    assert len([u for u in world.of(RecordUpdate) if u.round_number == 1]) == 3
    assert len([r for r in world.of(RecordReceipt) if r.participant == "c"]) == 1


def test_a_second_update_for_one_round_is_a_duplicate_even_later() -> None:
    world = opened("a", "b", "c")
    again = world.update("a", "another")
    world.send("a", "b")
    assert answer(world, again) == ("rejected", Code.DUPLICATE)
    end(world, "a", "b", "c")
    assert answer(world, again) == ("rejected", Code.DUPLICATE)


def test_a_late_update_passes_the_same_gate() -> None:
    world = opened("a", "b", "c", "d", "e")
    events = {name: world.update(name) for name in "cde"}
    world.send("a", "b")
    end(world, *"abcde")
    other = world.update("c", round_number=1)
    assert answer(world, other) == ("rejected", Code.WRONG_BASE)
    assert answer(world, world.update("a", round_number=9)) == ("rejected", Code.WRONG_ROUND)
    assert answer(world, events["c"].model_copy(update={"content": Code.NORM})) == ("rejected", Code.NORM)
    assert answer(world, events["c"]) == ACCEPTED
    copy = events["d"].model_copy(update={"body_sha256": events["c"].body_sha256})
    assert answer(world, copy) == ("rejected", Code.COPIED)
    world.status("e", state=ParticipantState.HOLD)
    assert answer(world, events["e"]) == ("rejected", Code.HOLD)
    assert answer(world, world.update("x", round_number=1)) == ("rejected", Code.UNKNOWN_PARTICIPANT)


def test_who_was_not_asked_in_that_round_is_refused() -> None:
    world = opened("a", "b")
    base = the_round(world).base.sha256
    world.send("a", "b")
    world.status("c")
    end(world, "a", "b", "c")
    world.status("a", "b", "c")
    assert answer(world, world.update("c", round_number=1, base=base)) == ("rejected", Code.UNKNOWN_PARTICIPANT)


def test_nothing_counts_any_more_once_the_plan_is_done() -> None:
    world = opened("a", "b", "c", rounds=1)
    late = world.update("c")
    world.send("a", "b")
    end(world, "a", "b", "c")
    assert world.state.phase is Phase.RESTING
    assert answer(world, late) == ("rejected", Code.LATE)


def test_a_new_generation_starts_with_an_empty_buffer() -> None:
    world = opened("a", "b", "c")
    late = world.update("c")
    world.send("a", "b")
    world.do(late)
    assert world.state.buffer
    rules = make_rules(buffer=2, max_staleness=2).model_copy(update={"generation": 2})
    outputs = world.do(GenerationStarted(rules=rules, base=VersionRef(version=9, sha256=sha("v9")), imported=False))
    assert (world.state.asking, world.state.buffer) == ((), ())
    # On record it counted in the next round, whose step it must not spoil.
    nowhere = RecordLate(counted_in=NOWHERE, updates=(Recount(participant="c", round_number=1, staleness=0),))
    assert [output for output in outputs if isinstance(output, RecordLate)] == [nowhere]


# A restart and the order of arrival -----------------------------------------------------------------------------------


def test_a_restart_loses_nothing_that_was_accepted() -> None:
    world = opened("a", "b", "c")
    late = world.update("c")
    world.send("a", "b")
    world.do(late)
    world.state = State.model_validate_json(world.state.model_dump_json())
    world.do(Started(rules=world.state.rules))
    world.do(LinkChanged(up=True))
    assert answer(world, late) == ACCEPTED
    assert len([u for u in world.of(RecordUpdate) if u.participant == "c"]) == 1
    world.status("a", "b", "c")
    end(world, "a", "b", "c")
    world.advance(60.0)
    assert [(one.participant, one.staleness) for one in the_round(world).late] == [("c", 1)]
    world.state = State.model_validate_json(world.state.model_dump_json())
    world.send("a")
    assert world.of(Aggregate)[-1].participants == ("a", "c")


@given(st.permutations(["late c", "late d", "a", "c"]))
@settings(max_examples=24, deadline=None)
def test_the_model_does_not_depend_on_the_order_of_arrival(order: list[str]) -> None:
    world = opened("a", "b", "c", "d", buffer=4, quorum=2, deadline_s=5.0)
    events = {f"late {name}": world.update(name) for name in "cd"}
    world.send("a", "b")
    world.advance(5.0)
    end(world, *"abcd")
    events |= {name: world.update(name) for name in "ac"}
    for name in order:
        world.do(events[name])
    assert world.of(Aggregate)[-1].participants == ("a", "c", "c", "d")
    assert world.state.candidate is not None
    parts = [str(events[name].sha256) for name in ("a", "late c", "c", "late d")]
    assert world.state.candidate.sha256 == sha("|".join([the_round(world).base.sha256, *parts]))


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=60), st.integers(2, 4))
def test_each_accepted_update_counts_in_one_round(actions: list[tuple[str, str, int]], buffer: int) -> None:
    world = World(make_rules(buffer=buffer, max_staleness=2, deadline_s=40.0, evaluation_s=20.0, min_new_samples=0))
    world.boot_up(*NAMES)
    kept = []
    for action in actions:
        if action[0] == "old" and kept:
            world.do(kept.pop(0))
            continue
        if world.state.round is not None and action[1]:
            kept.append(world.update(action[1], text=str(len(kept))))
        act(world, *action)
        due = next_deadline(world.state)
        assert due is None or due > world.state.at
        assert State.model_validate_json(world.state.model_dump_json()) == world.state
    keys = [(u.participant, u.round_number) for u in world.of(RecordUpdate)]
    assert len(set(keys)) == len(keys)
    counts: dict[tuple[str, int], int] = {(u.participant, u.round_number): u.counted_in for u in world.of(RecordUpdate)}
    for moved in world.of(RecordLate):
        counts |= {(one.participant, one.round_number): moved.counted_in for one in moved.updates}
    for work in world.of(Aggregate):
        assert len(set(work.participants)) >= 2
    ended = [r.summary for r in world.of(RecordRound)]
    assert [s.round_number for s in ended] == list(range(1, len(ended) + 1))
    done = {s.round_number for s in ended if s.result != "failed"}
    waiting = {(one.participant, one.asked_in) for one in world.state.buffer}
    if world.state.phase is not Phase.WAITING and world.state.round is not None:
        current = world.state.round
        waiting |= {(one.participant, one.asked_in) for one in current.late}
        waiting |= {(p, current.number) for p in current.accepted}
    assert waiting == {key for key, counted in counts.items() if counted not in done}, "nothing accepted is lost"
