"""Rounds without a barrier (FedBuff, Nguyen et al. 2022, arXiv:2106.06639, Algorithm 1): whose update may still come,
and in which round it counts. Pure.

The buffer is the round. What comes after its round closed counts in the open one, or lies in `State.buffer` until the
next one opens with it. An update's key is its participant and the round that it was asked in. Where rounds have a
barrier, `State.asking` and `State.buffer` stay empty.
"""

from __future__ import annotations

from collections.abc import Iterator

from aggregator.effects import RecordLate, Recount
from aggregator.state import Answer, Asking, Late, Round, Rules, State

MAX_ASKING = 64
"""Rounds whose updates may still come: refused versions leave the base as it is, so its age alone bounds nothing."""
MAX_STALENESS = MAX_ASKING - 1
"""Larger than this `tolerances.max_staleness` would promise more than is kept."""


def asking_of(state: State, round_number: int | None) -> Asking | None:
    """The round that an update answers to, if its updates may still come."""
    return next((asking for asking in state.asking if asking.number == round_number), None)


def is_full(rules: Rules, current: Round) -> bool:
    """Whether K updates are there, of at least `quorum` participants."""
    counted = current.contributions
    return rules.buffer is not None and len(counted) >= rules.buffer and len(set(counted)) >= rules.tolerances.quorum


def with_current_base(buffer: tuple[Late, ...]) -> frozenset[str]:
    """Participants of updates from the current version: they have no other to give before the next one."""
    return frozenset(late.participant for late in buffer if late.staleness == 0)


def counting(state: State) -> Iterator[tuple[str, Answer]]:
    """Participant and answer of each update that an update accepted now would count beside."""
    current = state.open_round
    if current is not None:
        yield from ((p, answer) for p, answer in current.answers.items() if answer.outcome == "accepted")
    for late in current.late if current is not None else state.buffer:
        yield late.participant, late.answer


def opened(state: State, current: Round) -> tuple[State, tuple[RecordLate, ...]]:
    """A round opens, with what came since the last one closed; or it is announced once more, to more participants."""
    if state.rules.buffer is None:
        return state.but(round=current), ()
    known = asking_of(state, current.number)
    if known is not None:
        again = known.but(attempt=current.attempt, asked=current.asked)
        return state.but(round=current, asking=tuple(again if a is known else a for a in state.asking)), ()
    asking = Asking(number=current.number, attempt=current.attempt, base=current.base, asked=current.asked)
    moved = recounted(state.buffer)
    state = state.but(round=current.but(late=state.buffer), buffer=(), asking=(asking, *state.asking)[:MAX_ASKING])
    return state, (RecordLate(counted_in=current.number, updates=moved),) if moved else ()


def recounted(buffer: tuple[Late, ...]) -> tuple[Recount, ...]:
    """These updates, to be recorded with another round."""
    return tuple(
        Recount(participant=late.participant, round_number=late.asked_in, staleness=late.staleness) for late in buffer
    )


def accepted(state: State, asking: Asking, participant: str, answer: Answer) -> State:
    """An update counts. One of the open round is among its answers already."""
    noted = asking.but(accepted={**asking.accepted, participant: answer.transfer})
    state = state.but(asking=tuple(noted if a is asking else a for a in state.asking))
    current = state.open_round
    if current is not None and current.number == asking.number:
        return state
    late = Late(participant=participant, asked_in=asking.number, staleness=asking.staleness, answer=answer)
    if current is not None:
        return state.but(round=current.but(late=(*current.late, late)))
    return state.but(buffer=(*state.buffer, late))


def promoted(state: State) -> State:
    """Another version is current: whatever was made from earlier ones is staler by one."""
    aged = (asking.but(staleness=asking.staleness + 1) for asking in state.asking)
    limit = state.rules.tolerances.max_staleness
    return state.but(
        asking=tuple(asking for asking in aged if asking.staleness <= limit),
        buffer=tuple(late.but(staleness=late.staleness + 1) for late in state.buffer),
    )


def given_back(state: State, ended: Round, *, work_failed: bool) -> State:
    """A round ended without a version: what was accepted for it counts in the next one.

    Args: work_failed: aggregating raised, which one of these updates may have brought about: each gets one more try.
    """
    if state.rules.buffer is None:
        return state
    own = (Late(participant=p, asked_in=ended.number, staleness=0, answer=ended.answers[p]) for p in ended.accepted)
    kept = (*ended.late, *own)
    if work_failed:
        kept = tuple(late.but(failed=True) for late in kept if not late.failed)
    return state.but(buffer=(*kept, *state.buffer))
