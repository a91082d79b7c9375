"""What an aggregator shows to Prometheus. Pure: state and counts in, figures out; no topic or text is among them.

Label `participant` is bounded: presence is kept of those alone that the federation lets in, and beyond
`MAX_PARTICIPANTS` the further ones, in the order in which they were first heard, are only part of the totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from aggregator.presence import capable, online
from aggregator.state import Phase, State
from aggregator.tally import MAX_PARTICIPANTS, ROUND_SECONDS, Tally
from broker_bridge.metrics import OTHER, Sheet

NONE = "none"


@dataclass(frozen=True, slots=True)
class AggregatorFigures:
    """An aggregator at one moment.

    Attributes:
        now: the aggregator's clock, seconds. is_up: the session with the broker.
        ignored: messages that could not be used, by code. chunk_bytes: of updates, received since the start.
        open_transfers: updates of which chunks are missing. stray_chunks: those that belonged to none.
    """

    state: State
    now: float
    is_up: bool
    tally: Tally
    ignored: Mapping[str, int]
    chunk_bytes: int
    open_transfers: int
    stray_chunks: int


def aggregator_sheet(aggregator: AggregatorFigures) -> Sheet:
    """The figures of one aggregator."""
    state = aggregator.state
    sheet = Sheet("aggregator", {"federation": state.rules.federation})
    sheet.gauge("connected", "1 while there is a session with the broker", aggregator.is_up)
    sheet.gauge("epoch", "Raised by each take-over", state.epoch)
    sheet.gauge("generation", "Generation of the plan", state.rules.generation)
    sheet.gauge("current_version", "The global model that edges run", state.current.version)
    sheet.one_of("phase", "Where the federation stands", "phase", Phase, state.phase)
    _add_participants(sheet, state, aggregator.now)
    _add_rounds(sheet, state, aggregator.tally)
    _add_updates(sheet, aggregator)
    return sheet


def _add_participants(sheet: Sheet, state: State, now: float) -> None:
    there, able = online(state, now), capable(state, now)
    sheet.gauge("known_participants", "Participants heard of since the start", len(state.presence))
    sheet.gauge("online_participants", "Participants that are there now", len(there))
    sheet.gauge("capable_participants", "Participants online that could train", len(able))
    online_now, capable_now = set(there), set(able)
    for who, known in islice(state.presence.items(), MAX_PARTICIPANTS):
        status = known.status
        is_online = who in online_now
        sheet.gauge("participant_online", "1 while the participant is there", is_online, participant=who)
        is_capable = who in capable_now
        sheet.gauge("participant_capable", "1 while it could train", is_capable, participant=who)
        fresh = status.new_samples
        sheet.gauge("participant_new_samples", "Matured since its last accepted update", fresh, participant=who)
        held = status.holds_version
        sheet.gauge("participant_held_version", "The newest global model that it holds", held, participant=who)


def _add_rounds(sheet: Sheet, state: State, tally: Tally) -> None:
    current = state.round
    sheet.gauge("last_round", "Number of the last round opened", state.last_round)
    sheet.gauge("round_open", "1 while a round takes updates", state.open_round is not None)
    sheet.gauge("round_cohort_participants", "Participants asked in the round", len(current.cohort) if current else 0)
    accepted = len(current.contributions) if current else 0
    sheet.gauge("round_accepted_updates", "Updates accepted in the round", accepted)
    for result in ("promoted", "refused", "failed"):
        sheet.counter("rounds_total", "Rounds ended", tally.rounds[result], result=result)
        sheet.counter("versions_total", "Versions by what became of them", tally.versions[result], result=result)
    sheet.gauge("last_round_duration_seconds", "Duration of the last round that ended", tally.last_round_seconds)
    sheet.histogram(
        "round_duration_seconds", "Duration of rounds", ROUND_SECONDS, tally.round_counts, tally.round_seconds
    )


def _add_updates(sheet: Sheet, aggregator: AggregatorFigures) -> None:
    tally = aggregator.tally
    for (who, result, code), count in tally.answers.items():
        labels = {"participant": who or OTHER, "result": result, "code": code or NONE}
        sheet.counter("updates_total", "Updates answered", count, **labels)
    for who, size in tally.answered_bytes.items():
        sheet.counter("answered_update_bytes_total", "Size of the updates answered", size, participant=who or OTHER)
    sheet.counter("received_update_bytes_total", "Bytes of updates' chunks, repeated ones too", aggregator.chunk_bytes)
    sheet.gauge("open_transfers", "Updates of which chunks are missing", aggregator.open_transfers)
    sheet.counter("stray_chunks_total", "Chunks that belonged to no open transfer", aggregator.stray_chunks)
    for why, count in aggregator.ignored.items():
        sheet.counter("ignored_messages_total", "Messages that could not be used", count, code=why)
