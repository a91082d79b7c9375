"""`step(state, event, now) -> (state, outputs)`: the aggregator's only way to change its mind. Pure.

An event that doesn't fit the phase (late, repeated, of another round or version) changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from aggregator import buffer
from aggregator.effects import (
    NOWHERE,
    Output,
    PrepareVersion,
    PublishCandidate,
    PublishCurrent,
    PublishHistory,
    PublishReference,
    RecordLate,
    RecordManifest,
    RecordReceipt,
    RecordStatistics,
    RecordUpdate,
    RecordVersion,
    RecordVersionStatus,
    RefreshRound,
    SendReceipt,
)
from aggregator.events import (
    BridgeSeen,
    EpochRaised,
    EvaluationReceived,
    Event,
    GenerationStarted,
    LinkChanged,
    RoundAnnounced,
    Started,
    StatisticsReceived,
    StatusSeen,
    Tick,
    UpdateReceived,
    VersionMade,
    VersionPrepared,
    VersionPublished,
    WorkFailed,
)
from aggregator.gate import verdict
from aggregator.phases import Outputs, advance, close_failed, due_times, finish_bootstrap
from aggregator.presence import expected_to_report, is_allowed, on_bridge, on_status
from aggregator.state import Answer, Bootstrap, Phase, State
from uns_topics.codes import Code
from uns_topics.template import Lineage

Result = Literal["accepted", "rejected"]

MAX_PARTICIPANTS = 10_000
"""Presences that are kept; a further participant is not seen."""


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Output, ...]]:
    """One event at one time (seconds, never going back)."""
    now = max(now, state.at)
    state, outputs = _HANDLERS[type(event)](state.but(at=now), event, now)
    state, more = advance(state, now)
    return state, outputs + more


def first_state(event: GenerationStarted, now: float) -> tuple[State, tuple[Output, ...]]:
    """The state of an empty store after its first generation started."""
    empty = State(
        rules=event.rules, phase=Phase.BOOTSTRAP, epoch=1, at=now, current=event.base, next_version=event.base.version
    )
    return step(empty, event, now)


def next_deadline(state: State) -> float | None:
    """When a `Tick` is due, on the clock of `now`; None while only a message can change anything."""
    return min((due for due in due_times(state) if due > state.at), default=None)


def _generation_started(state: State, event: GenerationStarted, now: float) -> tuple[State, Outputs]:
    del now
    outputs: Outputs = (
        RecordVersion(
            version=event.base.version,
            sha256=event.base.sha256,
            generation=event.rules.generation,
            lineage=first_lineage(event),
            status="current",
        ),
        RecordManifest(version=event.base.version),
    )
    if state.buffer:  # steps from another template, or for another rule
        outputs += (RecordLate(counted_in=NOWHERE, updates=buffer.recounted(state.buffer)),)
    if state.current != event.base:
        outputs += (RecordVersionStatus(version=state.current.version, status="superseded"),)
    inherited = event.inherited
    bootstrap = Bootstrap(imported=event.imported)
    if inherited is not None:
        bootstrap = Bootstrap(imported=inherited.complete, kept=inherited.features)
    state = state.but(
        rules=event.rules,
        phase=Phase.BOOTSTRAP,
        former=None if state.current == event.base else state.former or state.current,
        current=event.base,
        next_version=event.base.version + 1,
        class_weights=(),
        bootstrap=bootstrap,
        round=None,
        candidate=None,
        asking=(),
        buffer=(),
        rounds_done=0,
        without_gain=0,
        quorum_since=None,
    )
    shown = PublishCurrent(version=event.base.version, reason="a new generation")
    return state, (*outputs, shown, PublishReference(), PublishHistory())


def first_lineage(event: GenerationStarted) -> Lineage:
    """Where a generation's first version comes from."""
    if event.inherited is not None:
        return Lineage(origin="warm-start", parent=event.inherited.version.version)
    return Lineage(origin="imported" if event.imported else "new")


def _started(state: State, event: Started, now: float) -> tuple[State, Outputs]:
    del now
    return state.but(rules=event.rules, link_since=None, presence={}, bridges={}), ()


def _epoch_raised(state: State, event: EpochRaised, now: float) -> tuple[State, Outputs]:
    del now
    return state.but(epoch=max(state.epoch, event.epoch)), ()


def _link_changed(state: State, event: LinkChanged, now: float) -> tuple[State, Outputs]:
    if not event.up:
        return state.but(link_since=None), ()
    # What nobody could hear is held against nobody: silence counts from now, and open deadlines leave the grace.
    heard = {p: known.but(seen=now) for p, known in state.presence.items()}
    bridges = {name: known.but(seen=now) for name, known in state.bridges.items()}
    state = state.but(link_since=now, presence=heard, bridges=bridges)
    spared = now + state.rules.tolerances.grace_s
    if state.round is not None and state.round.deadline is not None:
        state = state.but(round=state.round.but(deadline=max(state.round.deadline, spared)))
    if state.candidate is not None and state.candidate.deadline is not None:
        state = state.but(candidate=state.candidate.but(deadline=max(state.candidate.deadline, spared)))
    return state, ()


def _tick(state: State, event: Tick, now: float) -> tuple[State, Outputs]:
    del event, now
    return state, ()


def _status_seen(state: State, event: StatusSeen, now: float) -> tuple[State, Outputs]:
    known = state.presence.get(event.participant)
    if not is_allowed(state.rules, event.participant) or (known is None and len(state.presence) >= MAX_PARTICIPANTS):
        return state, ()
    seen = on_status(known, event.boot, event.status, now)
    if seen is None:
        return state, ()
    state = state.but(presence={**state.presence, event.participant: seen})
    is_birth = known is None or (known.boot, known.status.birth) != (seen.boot, seen.status.birth)
    return state, (RefreshRound(),) if is_birth and state.open_round is not None else ()


def _bridge_seen(state: State, event: BridgeSeen, now: float) -> tuple[State, Outputs]:
    name = f"{event.participant}/{event.bridge}"
    known = state.bridges.get(name)
    if event.participant not in state.presence or (known is None and len(state.bridges) >= MAX_PARTICIPANTS):
        return state, ()
    seen = on_bridge(known, event.boot, event.birth, event.online, now)
    return (state, ()) if seen is None else (state.but(bridges={**state.bridges, name: seen}), ())


def _statistics_received(state: State, event: StatisticsReceived, now: float) -> tuple[State, Outputs]:
    del now
    bootstrap = state.bootstrap
    fits = event.generation == state.rules.generation and len(event.label_counts) == state.rules.classes
    if bootstrap is None or bootstrap.filling or not fits or not is_allowed(state.rules, event.participant):
        return state, ()
    if event.participant not in bootstrap.label_counts and len(bootstrap.label_counts) >= MAX_PARTICIPANTS:
        return state, ()
    counts = {**bootstrap.label_counts, event.participant: event.label_counts}
    record = RecordStatistics(participant=event.participant, generation=event.generation)
    return state.but(bootstrap=bootstrap.but(label_counts=counts)), (record,)


def _update_received(state: State, event: UpdateReceived, now: float) -> tuple[State, Outputs]:
    del now
    current = state.open_round if state.open_round and event.round_number == state.open_round.number else None
    known = current.answers.get(event.participant) if current is not None else None
    if known is not None and known.transfer == event.transfer:
        return state, (_receipt(event, known.outcome, known.code),)  # a repeat gets the first receipt
    asking = buffer.asking_of(state, event.round_number)
    if asking is not None and asking.accepted.get(event.participant) == event.transfer:
        return state, (_receipt(event, "accepted", None),)
    code = verdict(event, state)
    if code is None and not event.content_checked:
        return state, ()  # a manifest that nothing speaks against: its content decides
    is_accepted = known is not None and known.outcome == "accepted"
    number = event.round_number or 0
    result: Result = "rejected" if code else "accepted"
    answer = Answer(
        outcome=result,
        code=code,
        transfer=event.transfer,
        sha256=event.sha256,
        body_sha256=event.body_sha256,
        num_examples=event.num_examples,
        payload_bytes=event.payload_bytes,
    )
    if current is not None and event.participant in current.asked and not is_accepted:
        state = state.but(round=current.but(answers={**current.answers, event.participant: answer}))
    record = RecordReceipt(
        participant=event.participant, transfer=event.transfer, round_number=number, result=result, code=code
    )
    if code is not None:
        return state, (record, _receipt(event, result, code))
    if asking is not None:
        state = buffer.accepted(state, asking, event.participant, answer)
    kept = RecordUpdate(
        participant=event.participant,
        round_number=number,
        sha256=event.sha256,
        num_examples=event.num_examples,
        counted_in=state.open_round.number if state.open_round is not None else state.last_round + 1,
        staleness=asking.staleness if asking is not None else 0,
    )
    return state, (kept, record, _receipt(event, result, code, late=current is None))


def _receipt(event: UpdateReceived, result: Result, code: Code | None, *, late: bool = False) -> SendReceipt:
    return SendReceipt(
        participant=event.participant,
        transfer=event.transfer,
        result=result,
        code=code,
        round_number=event.round_number or 0,
        payload_bytes=event.payload_bytes,
        detail=event.detail if code else "",
        late=late,
    )


def _evaluation_received(state: State, event: EvaluationReceived, now: float) -> tuple[State, Outputs]:
    del now
    candidate = state.candidate
    if (
        candidate is None
        or candidate.sha256 is None
        or event.candidate != candidate.version
        or event.generation != state.rules.generation
        or not is_allowed(state.rules, event.participant)
        or event.participant not in state.presence
        or event.participant in candidate.scores
    ):
        return state, ()
    scores = event.scores
    if event.current != state.current.version:  # compared with something else: an answer, but no comparison
        scores = scores.model_copy(update={"current": None, "difference": None})
    return state.but(candidate=candidate.but(scores={**candidate.scores, event.participant: scores})), ()


def _round_announced(state: State, event: RoundAnnounced, now: float) -> tuple[State, Outputs]:
    current = state.round
    if state.phase is not Phase.OPEN or current is None:
        return state, ()
    if (event.round_number, event.attempt) != (current.number, current.attempt):
        return state, ()
    announced = current.but(deadline=now + state.rules.tolerances.deadline_s)
    return state.but(phase=Phase.COLLECTING, round=announced), ()


def _version_made(state: State, event: VersionMade, now: float) -> tuple[State, Outputs]:
    del now
    bootstrap, candidate, current = state.bootstrap, state.candidate, state.round
    generation = state.rules.generation
    if bootstrap is not None and bootstrap.filling and event.made.version == bootstrap.version:
        lineage = Lineage(origin="statistics", parent=state.current.version, contributors=len(bootstrap.label_counts))
    elif state.phase is Phase.AGGREGATING and candidate is not None and current is not None:
        if event.made.version != candidate.version:
            return state, ()
        lineage = Lineage(
            origin="round",
            parent=current.base.version,
            round_number=current.number,
            contributors=len(current.contributions),
        )
        state = state.but(phase=Phase.COMMITTED, candidate=candidate.but(sha256=event.made.sha256))
    else:
        return state, ()
    record = RecordVersion(
        version=event.made.version, sha256=event.made.sha256, generation=generation, lineage=lineage, status="made"
    )
    if bootstrap is not None:
        state = state.but(bootstrap=bootstrap.but(made=event.made))
    return state, (record, PrepareVersion(version=event.made.version))


def _version_prepared(state: State, event: VersionPrepared, now: float) -> tuple[State, Outputs]:
    del now
    record = RecordManifest(version=event.version)
    bootstrap, candidate = state.bootstrap, state.candidate
    if bootstrap is not None and bootstrap.made is not None and bootstrap.made.version == event.version:
        promoted: Outputs = (
            record,
            RecordVersionStatus(version=state.current.version, status="superseded"),
            RecordVersionStatus(version=event.version, status="current"),
            PublishCurrent(version=event.version, reason="standardised by the participants' statistics"),
            PublishReference(),
            PublishHistory(),
        )
        return finish_bootstrap(state, bootstrap, bootstrap.made), promoted
    if state.phase is Phase.COMMITTED and candidate is not None and candidate.version == event.version:
        status = RecordVersionStatus(version=event.version, status="candidate")
        return state.but(phase=Phase.PUBLISHING), (record, status, PublishCandidate(version=event.version))
    return state, ()


def _version_published(state: State, event: VersionPublished, now: float) -> tuple[State, Outputs]:
    candidate = state.candidate
    if state.phase is not Phase.PUBLISHING or candidate is None or candidate.version != event.version:
        return state, ()
    shown = candidate.but(deadline=now + state.rules.tolerances.evaluation_s, expected=expected_to_report(state, now))
    return state.but(phase=Phase.EVALUATING, candidate=shown), ()


def _work_failed(state: State, event: WorkFailed, now: float) -> tuple[State, Outputs]:
    bootstrap, candidate = state.bootstrap, state.candidate
    if bootstrap is not None and bootstrap.filling and event.version == bootstrap.version:
        waiting = bootstrap.but(filling=False, failed=True, made=None, version=None, quorum_since=now)
        return state.but(bootstrap=waiting), ()
    is_working = state.phase in (Phase.AGGREGATING, Phase.COMMITTED)
    if is_working and candidate is not None and candidate.version == event.version:
        return close_failed(state, now)
    return state, ()


_HANDLERS: dict[type[Any], Callable[[State, Any, float], tuple[State, Outputs]]] = {
    GenerationStarted: _generation_started,
    Started: _started,
    EpochRaised: _epoch_raised,
    LinkChanged: _link_changed,
    Tick: _tick,
    StatusSeen: _status_seen,
    BridgeSeen: _bridge_seen,
    StatisticsReceived: _statistics_received,
    UpdateReceived: _update_received,
    EvaluationReceived: _evaluation_received,
    RoundAnnounced: _round_announced,
    VersionMade: _version_made,
    VersionPrepared: _version_prepared,
    VersionPublished: _version_published,
    WorkFailed: _work_failed,
}
