"""What people read in the log: one line per thing that happened. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from aggregator.effects import (
    Aggregate,
    AnnounceRound,
    FillBootstrap,
    Output,
    PublishCandidate,
    PublishCurrent,
    RecordRound,
    SendReceipt,
)
from aggregator.state import State

Line = tuple[int, str]


def lines(outputs: tuple[Output, ...], state: State) -> Iterator[Line]:
    """Level and text for each output worth a line; `state` is the one after them."""
    for output in outputs:
        line = _line(output, state)
        if line is not None:
            yield line


def _line(output: Output, state: State) -> Line | None:
    match output:
        case AnnounceRound() if state.round is not None:
            asked = ", ".join(state.round.cohort)
            attempt = f", attempt {output.attempt}" if output.attempt > 1 else ""
            return logging.INFO, (
                f"round {output.round_number}{attempt} opened on version {state.round.base.version} "
                f"with {len(state.round.cohort)} participants: {asked}"
            )
        case SendReceipt(result="accepted"):
            where = f"round {output.round_number}: update of {output.participant}"
            return logging.INFO, f"{where} accepted{' late' if output.late else ''}, {output.payload_bytes} bytes"
        case SendReceipt():
            where = f"round {output.round_number}: update of {output.participant}"
            detail = f" ({output.detail})" if output.detail else ""
            return logging.WARNING, f"{where} rejected: {output.code}{detail}, {output.payload_bytes} bytes"
        case FillBootstrap():
            who = ", ".join(output.participants)
            return logging.INFO, f"standardising version {output.version} by the statistics of {who}"
        case Aggregate():
            count = len(output.participants)
            return logging.INFO, f"round {output.round_number}: combining {count} updates into version {output.version}"
        case PublishCandidate():
            return logging.INFO, f"version {output.version} is a candidate"
        case PublishCurrent(refused=None):
            return logging.INFO, f"version {output.version} is current{_losses(output)}"
        case PublishCurrent():
            return logging.WARNING, (
                f"version {output.refused} refused, {output.version} stays current{_losses(output)}"
            )
        case RecordRound() if output.summary.result == "failed":
            accepted = sum(p.outcome == "accepted" for p in output.summary.participants)
            return logging.WARNING, f"round {output.summary.round_number} failed with {accepted} updates accepted"
        case _:
            return None


def _losses(output: PublishCurrent) -> str:
    return f": {output.reason}" if output.reason else ""
