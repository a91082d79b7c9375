"""The life of a round, phase by phase: what each phase waits for and what follows when it has it. Pure.

    bootstrap -> waiting -> open -> collecting -> aggregating -> committed -> publishing -> evaluating -> waiting
                                        |                                                      | resting
                                        +-- below quorum: open again, attempt + 1

A round with a barrier waits for its whole cohort. An asynchronous one ends at K updates, late ones of earlier rounds
among them (`aggregator.buffer`).

`advance` is called after every event: it moves on as long as a phase has what it waits for. What a phase waits for is
an event or a time; `due_times` lists the times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from aggregator import buffer
from aggregator.cohort import draw, round_seed
from aggregator.effects import (
    Aggregate,
    AnnounceRound,
    FillBootstrap,
    Output,
    PublishCurrent,
    PublishHistory,
    PublishReference,
    PublishStatus,
    RecordRound,
    RecordVersionStatus,
    RefreshRound,
)
from aggregator.evaluation import Decision, decide
from aggregator.presence import capable, eligible, expected_to_report, offline_since, online, silence_due
from aggregator.state import Answer, Bootstrap, Candidate, Phase, Round, State, VersionRef
from uns_topics.rounds import ParticipantOutcome, RoundSummary
from uns_topics.standardisation import class_weights

Outputs = tuple[Output, ...]
GATHER_S = 2.0
"""Once quorum's participants have new samples, how long to wait for the others that are online: a round must not open
with the two that were milliseconds faster."""
MAX_OUTCOMES = 10_000
"""As many as a round's summary holds."""


def advance(state: State, now: float) -> tuple[State, Outputs]:
    """Move on as far as what is there allows."""
    outputs: Outputs = ()
    while (handler := _HANDLERS.get(state.phase)) is not None and (moved := handler(state, now)) is not None:
        state, more = moved
        outputs += more
    return state, outputs


def due_times(state: State) -> Iterator[float]:
    """Every time at which a wait may end by itself; some may lie in the past."""
    if state.link_since is None:
        return
    tolerances = state.rules.tolerances
    if state.phase is Phase.BOOTSTRAP and state.bootstrap is not None and not state.bootstrap.filling:
        if state.bootstrap.quorum_since is not None:
            yield state.bootstrap.quorum_since + tolerances.bootstrap_s
            yield from _silences(state, state.presence)
    elif state.phase is Phase.WAITING:
        if state.last_opened is not None:
            yield state.last_opened + tolerances.min_interval_s
        if state.quorum_since is not None:
            yield state.quorum_since + _gather_s(state)
            yield from _silences(state, state.presence)
    elif state.phase is Phase.COLLECTING and state.round is not None and state.round.deadline is not None:
        yield state.round.deadline
        for participant in state.round.cohort:
            if participant not in state.round.answers:
                yield from _absences(state, participant)
    elif state.phase is Phase.EVALUATING and state.candidate is not None and state.candidate.deadline is not None:
        yield state.candidate.deadline
        yield from _silences(state, (p for p in state.candidate.expected if p not in state.candidate.scores))


def close_failed(state: State, now: float) -> tuple[State, Outputs]:
    """End the round without a version; one that was recorded already is marked as failed."""
    outputs: Outputs = (RefreshRound(),)
    if state.candidate is not None:
        outputs += (RecordVersionStatus(version=state.candidate.version, status="failed"),)
    return _end_round(state, now, "failed", None, outputs)


# Bootstrap and waiting ------------------------------------------------------------------------------------------------


def _bootstrap(state: State, now: float) -> tuple[State, Outputs] | None:
    bootstrap = state.bootstrap
    if bootstrap is None or bootstrap.filling or state.link_since is None:
        return None
    if len(bootstrap.label_counts) < state.rules.tolerances.quorum:
        return None
    if bootstrap.quorum_since is None:
        return state.but(bootstrap=bootstrap.but(quorum_since=now)), ()
    everyone = not bootstrap.failed and set(expected_to_report(state, now)) <= set(bootstrap.label_counts)
    if not everyone and now < bootstrap.quorum_since + state.rules.tolerances.bootstrap_s:
        return None
    if bootstrap.imported:
        return finish_bootstrap(state, bootstrap), (PublishReference(),)
    version = state.next_version
    fill = FillBootstrap(
        version=version,
        base=state.current.version,
        participants=tuple(sorted(bootstrap.label_counts)),
        kept=bootstrap.kept,
    )
    filling = bootstrap.but(filling=True, version=version)
    return state.but(bootstrap=filling, next_version=version + 1), (fill,)


def finish_bootstrap(state: State, bootstrap: Bootstrap, current: VersionRef | None = None) -> State:
    """Class weights are fixed, and rounds may begin; `current` is the version with filled buffers."""
    counts = [sum(column) for column in zip(*(c for _, c in sorted(bootstrap.label_counts.items())), strict=True)]
    return state.but(
        phase=Phase.WAITING,
        bootstrap=None,
        class_weights=class_weights(counts) if state.rules.classes else (),
        current=current or state.current,
    )


def _gather_s(state: State) -> float:
    return min(GATHER_S, state.rules.tolerances.grace_s)


def _is_done(state: State) -> bool:
    tolerances = state.rules.tolerances
    return (tolerances.rounds is not None and state.rounds_done >= tolerances.rounds) or (
        tolerances.patience is not None and state.without_gain >= tolerances.patience
    )


def _waiting(state: State, now: float) -> tuple[State, Outputs] | None:
    if _is_done(state):
        final = PublishCurrent(version=state.current.version, final=True, reason="the plan's last round is done")
        return state.but(phase=Phase.RESTING, quorum_since=None), (final, PublishHistory(), PublishStatus())
    tolerances = state.rules.tolerances
    too_early = state.last_opened is not None and now < state.last_opened + tolerances.min_interval_s
    if state.link_since is None or too_early:
        return None
    done = buffer.with_current_base(state.buffer)
    ready = tuple(p for p in eligible(state, now) if p not in done)
    if len({*ready, *(late.participant for late in state.buffer)}) < tolerances.quorum:
        return (state.but(quorum_since=None), ()) if state.quorum_since is not None else None
    if len(ready) < len([p for p in capable(state, now) if p not in done]):
        if state.quorum_since is None:
            return state.but(quorum_since=now), ()
        if now < state.quorum_since + _gather_s(state):
            return None
    number = state.last_round + 1
    seed = round_seed(state.rules, number)
    cohort = draw(ready, tolerances.max_cohort, seed, 1)
    opened = Round(number=number, attempt=1, base=state.current, cohort=cohort, asked=cohort, seed=seed, opened_at=now)
    state, late = buffer.opened(state, opened)
    state = state.but(phase=Phase.OPEN, last_round=number, last_opened=now, quorum_since=None)
    return state, (*late, AnnounceRound(round_number=number, attempt=1))


def _resting(state: State, now: float) -> tuple[State, Outputs] | None:
    """Rest ends when the plan's limits were raised."""
    del now
    if _is_done(state):
        return None
    awake = PublishCurrent(version=state.current.version, reason="the plan goes on")
    return state.but(phase=Phase.WAITING), (awake, PublishHistory(), PublishStatus())


# Collecting -----------------------------------------------------------------------------------------------------------


def _collecting(state: State, now: float) -> tuple[State, Outputs] | None:
    current = state.round
    if current is None or current.deadline is None or state.link_since is None:
        return None
    tolerances = state.rules.tolerances
    over = now >= current.deadline
    is_waiting = not all(_is_settled(state, current, p, now) for p in current.cohort)
    if not over and is_waiting and not buffer.is_full(state.rules, current):
        return None
    heard = set(current.contributions)
    if len(heard) >= tolerances.quorum:
        return _aggregate(state, current)
    if current.attempt >= tolerances.attempts:
        return close_failed(state, now) if over else None
    # Without a barrier nobody is given up: the cohort stays, and who became ready since is asked as well.
    kept = current.accepted if state.rules.buffer is None else current.cohort
    done = {*kept, *current.answers, *buffer.with_current_base(current.late)}
    fresh = tuple(p for p in eligible(state, now) if p not in done)
    if not over and len({*heard, *fresh}) < tolerances.quorum:
        return None  # nobody to redraw: whoever is away may come back until the deadline
    drawn = draw(fresh, tolerances.max_cohort - len(kept), current.seed, current.attempt + 1)
    again = current.but(
        attempt=current.attempt + 1,
        cohort=tuple(sorted({*kept, *drawn})),
        asked=tuple(sorted({*current.asked, *drawn})),
        deadline=None,
    )
    announce = AnnounceRound(round_number=again.number, attempt=again.attempt)
    state, _ = buffer.opened(state, again)
    return state.but(phase=Phase.OPEN), (announce,)


def _is_settled(state: State, current: Round, participant: str, now: float) -> bool:
    if participant in current.answers:
        return True
    since = offline_since(state, participant, now)
    return since is not None and now >= since + state.rules.tolerances.grace_s


def _aggregate(state: State, current: Round) -> tuple[State, Outputs]:
    version = state.next_version
    work = Aggregate(
        round_number=current.number,
        version=version,
        base=current.base.version,
        participants=current.contributions,
    )
    state = state.but(phase=Phase.AGGREGATING, next_version=version + 1, candidate=Candidate(version=version))
    return state, (RefreshRound(), work)


# Evaluating and the end -----------------------------------------------------------------------------------------------


def _evaluating(state: State, now: float) -> tuple[State, Outputs] | None:
    candidate = state.candidate
    if candidate is None or candidate.sha256 is None or candidate.deadline is None or state.link_since is None:
        return None
    there = set(online(state, now))
    missing = [p for p in candidate.expected if p in there and p not in candidate.scores]
    if missing and now < candidate.deadline:
        return None
    decision = decide(candidate.scores, state.rules.tolerances)
    made = VersionRef(version=candidate.version, sha256=candidate.sha256)
    outputs: Outputs
    if decision.promote:
        outputs = (
            RecordVersionStatus(version=state.current.version, status="superseded"),
            RecordVersionStatus(version=made.version, status="current"),
            _published(made.version, None, decision),
        )
        state = buffer.promoted(state.but(current=made, former=None))
        return _end_round(state, now, "promoted", decision, outputs)
    outputs = (
        RecordVersionStatus(version=made.version, status="refused"),
        _published(state.current.version, made.version, decision),
    )
    return _end_round(state, now, "refused", decision, outputs)


def _published(version: int, refused: int | None, decision: Decision) -> PublishCurrent:
    return PublishCurrent(
        version=version,
        refused=refused,
        candidate_loss=decision.candidate_loss,
        current_loss=decision.current_loss,
        reason=decision.reason,
    )


def _end_round(
    state: State, now: float, result: str, decision: Decision | None, outputs: Outputs
) -> tuple[State, Outputs]:
    ended, candidate = state.round, state.candidate
    assert ended is not None
    made = candidate.version if candidate is not None and candidate.sha256 is not None else None
    summary = RoundSummary(
        round_number=ended.number,
        result=result,  # type: ignore[arg-type] # the callers' literals
        version=made,
        attempt=ended.attempt,
        seconds=max(0.0, now - ended.opened_at),
        participants=_outcomes(ended),
        candidate_loss=decision.candidate_loss if decision else None,
        current_loss=decision.current_loss if decision else None,
    )
    outputs += (RecordRound(summary=summary), PublishHistory())
    without_gain = state.without_gain
    if decision is not None and decision.candidate_loss is not None and decision.current_loss is not None:
        gained = decision.promote and decision.candidate_loss < decision.current_loss
        without_gain = 0 if gained else without_gain + 1
    if result == "failed":
        state = buffer.given_back(state, ended, work_failed=candidate is not None)
    state = state.but(
        phase=Phase.WAITING,
        round=ended.but(deadline=None),
        candidate=None,
        rounds_done=state.rounds_done + 1,
        without_gain=without_gain,
    )
    return state, outputs


def _outcomes(ended: Round) -> tuple[ParticipantOutcome, ...]:
    """What became of each cohort member; a late update counts as one more outcome of its participant."""
    late = sorted(ended.late, key=lambda late: (late.participant, late.asked_in))
    heard = {one.participant for one in late}
    found = []
    for participant in ended.asked:
        answer = ended.answers.get(participant)
        if answer is not None:
            found.append(_outcome(participant, answer))
        elif participant not in heard:
            found.append(ParticipantOutcome(participant=participant, outcome="absent"))
    found.extend(_outcome(one.participant, one.answer) for one in late)
    return tuple(found[:MAX_OUTCOMES])


def _outcome(participant: str, answer: Answer) -> ParticipantOutcome:
    return ParticipantOutcome(
        participant=participant,
        outcome=answer.outcome,
        code=answer.code,
        num_examples=answer.num_examples,
        payload_bytes=answer.payload_bytes,
    )


# Times ----------------------------------------------------------------------------------------------------------------


def _silences(state: State, participants: Mapping[str, object] | Iterator[str]) -> Iterator[float]:
    for participant in participants:
        due = silence_due(state, participant)
        if due is not None:
            yield due


def _absences(state: State, participant: str) -> Iterator[float]:
    """When a cohort member that is not heard any more has been away for its grace."""
    grace_s = state.rules.tolerances.grace_s
    since = offline_since(state, participant, state.at)
    if since is not None:
        yield since + grace_s
    elif (due := silence_due(state, participant)) is not None:
        yield due + grace_s


_HANDLERS: dict[Phase, Callable[[State, float], tuple[State, Outputs] | None]] = {
    Phase.BOOTSTRAP: _bootstrap,
    Phase.WAITING: _waiting,
    Phase.COLLECTING: _collecting,
    Phase.EVALUATING: _evaluating,
    Phase.RESTING: _resting,
}
"""Phases that are not listed end by one event alone (`RoundAnnounced`, `VersionMade`, ...), not by time or presence."""
