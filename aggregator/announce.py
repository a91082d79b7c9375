"""What is said on `down/`, made from the state. Pure."""

from __future__ import annotations

from aggregator.state import Phase, State
from uns_topics.presence import AggregatorStatus
from uns_topics.rounds import ClientConfig, History, RoundAnnouncement, RoundSummary

SHOWN_ROUNDS = 50


def round_announcement(state: State, now: float) -> RoundAnnouncement | None:
    """`down/round`: the open round, or the last one as closed; None before a generation's first round."""
    shown = state.round
    if shown is None:
        return None
    left = 0.0
    if state.phase is Phase.OPEN:
        left = state.rules.tolerances.deadline_s
    elif state.phase is Phase.COLLECTING and shown.deadline is not None:
        left = max(0.0, shown.deadline - now)
    return RoundAnnouncement(
        round_number=shown.number,
        attempt=shown.attempt,
        epoch=state.epoch,
        state="open" if state.open_round is not None else "closed",
        base=shown.base.version,
        base_sha256=shown.base.sha256,
        generation=state.rules.generation,
        cohort=shown.cohort,
        client=ClientConfig(
            training=state.rules.training, encoding=state.rules.encodings[0], class_weights=state.class_weights
        ),
        seed=shown.seed,
        seconds_left=left,
    )


def status(state: State, birth: int) -> AggregatorStatus:
    """`down/status` while we run."""
    return AggregatorStatus(
        birth=birth, state="resting" if state.phase is Phase.RESTING else "online", epoch=state.epoch
    )


def death(state: State, birth: int) -> AggregatorStatus:
    """`down/status` as a will, and at a clean stop."""
    return AggregatorStatus(birth=birth, state="offline", epoch=state.epoch)


def history(state: State, rounds: tuple[RoundSummary, ...]) -> History:
    """`down/history`."""
    return History(rounds=rounds[-SHOWN_ROUNDS:], current=state.current.version, resting=state.phase is Phase.RESTING)
