"""The demo without a terminal: one line for each thing reached. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from headgate.demo.display import outcome
from headgate.demo.watch import View
from uns_topics.codes import Reason
from uns_topics.rounds import RoundSummary

PASSING = {None, Reason.NO_PLAN, Reason.NO_MODEL, Reason.FETCHING_MODEL}
"""What every participant says on its way to a model."""


class Progress:
    """Says each thing once; ask it whenever something may have happened."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._said: set[str] = set()

    def news(self) -> Iterator[str]:
        """Lines for what was reached since the last call, each with the seconds since the start."""
        for key, text, seconds in self._reached():
            if key not in self._said:
                self._said.add(key)
                yield f"{seconds:6.1f} s  {text}"

    def _reached(self) -> Iterator[tuple[str, str, float]]:
        view, now = self._view, self._view.seconds
        if "first plant value" in view.milestones:
            yield "plant", "first plant value on the broker", view.milestones["first plant value"]
        if view.plan is not None:
            yield "plan", "the base model is made and the aggregator has published its plan", now
        for name, known in sorted(view.participants.items()):
            if known.statistics is not None:
                yield f"statistics {name}", f"{name} has sent its statistics ({known.statistics.rows:,} rows)", now
            status = known.status
            if status is not None and status.reason not in PASSING:
                yield f"{name} {status.reason}", f"{name} is {status.state.value}: {status.reason}", now
        if view.current is not None and view.current.version > 0:
            yield "statistics done", f"version {view.current.version} is there to start from", now
        if "first inference value" in view.milestones:
            yield "inference", "first inference value in a plant's tree", view.milestones["first inference value"]
        for number, summary in sorted(view.rounds.items()):
            yield f"round {number}", _ended(summary), view.milestones[f"round {number}"]
        if view.resting:
            yield "rest", "all rounds are done; the plants score the last version on their report splits", now


def _ended(summary: RoundSummary) -> str:
    """How a round ended, and who was in it."""
    given = [p.participant for p in summary.participants if p.outcome == "accepted"]
    others = [
        f"{p.participant} {p.outcome}{f' ({p.code.value})' if p.code is not None else ''}"
        for p in summary.participants
        if p.outcome != "accepted"
    ]
    return f"{outcome(summary)} ({', '.join([*given, *others])})"
