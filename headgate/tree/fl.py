"""Messages of the fl tree in one line for people. Pure."""

from __future__ import annotations

from collections import Counter

from headgate.tree.reading import Kind, Reading
from headgate.tree.text import size
from uns_topics.envelope import MAX_JSON_BYTES, PayloadError
from uns_topics.model import Value
from uns_topics.payloads import read
from uns_topics.plan import Plan
from uns_topics.presence import AggregatorStatus, BridgeStatus, ParticipantStatus, Route
from uns_topics.reference import Reference
from uns_topics.reports import DataQuality, Evaluation, LastUpdate, Statistics
from uns_topics.rounds import History, Receipt, RoundAnnouncement, VersionManifest
from uns_topics.topics import FlTopic, TopicError
from uns_topics.topics import Kind as FlKind
from uns_topics.transfers import TransferManifest


def fl_reading(topic: str, payload: bytes, total: int, *, is_whole: bool) -> Reading | None:
    """A message of a declared topic; None for any other topic below `fl/v1/`.

    Args: payload: its start where `is_whole` is false; total: bytes of the whole.
    """
    try:
        fl = FlTopic.parse(topic)
    except TopicError:
        return None
    if fl.kind.form == "binary":
        kind = Kind.UPDATE if fl.kind is FlKind.UPDATE_CHUNK else Kind.CHUNK
        part = f"{(fl.index or 0) + 1}, {size(total)}"
        return Reading(kind, part if kind is Kind.CHUNK else f"chunk {part}")
    if not is_whole:
        return Reading(Kind.HEADGATE, size(total), note="" if total <= MAX_JSON_BYTES else "oversized")
    try:
        _, body = read(fl, payload)
    except PayloadError:
        return Reading(Kind.HEADGATE, size(total), note="not what its topic declares")
    return Reading(Kind.HEADGATE, _sentence(body) or size(total))


def _sentence(body: Value) -> str:
    return _from_aggregator(body) or _from_participant(body)


def _from_aggregator(body: Value) -> str:
    match body:
        case AggregatorStatus():
            return f"{body.state}, epoch {body.epoch}"
        case Plan():
            return f"plan of generation {body.generation}, {body.strategy.name}, {body.contract.federation}"
        case RoundAnnouncement():
            attempt = f", attempt {body.attempt}" if body.attempt > 1 else ""
            return f"round {body.round_number} {body.state}{attempt}, base {body.base}, cohort of {len(body.cohort)}"
        case VersionManifest():
            return f"manifest of version {body.version}, {size(body.full.bytes)}"
        case Reference():
            return f"generation {body.generation}, quantiles of {len(body.features)} features"
        case Receipt():
            code = f", {body.code.value}" if body.code is not None else ""
            chunks = f", {len(body.chunks)} chunks" if body.chunks else ""
            return f"{body.result}{code}{chunks}, {body.id}"
        case History():
            last = f", last {body.rounds[-1].result}" if body.rounds else ""
            resting = ", resting" if body.resting else ""
            return f"{len(body.rounds)} rounds{last}, current {_version(body.current)}{resting}"
        case Route():
            return f"via {', '.join(body.bridges)}"
    return ""


def _from_participant(body: Value) -> str:
    match body:
        case ParticipantStatus():
            serves = f", serves {body.serves.version} {body.serves.variant.value}" if body.serves else ""
            reason = f", {body.reason.value}" if body.reason is not None else ""
            return f"{body.state.value}{reason}, {body.samples:,} samples{serves}"
        case BridgeStatus():
            return f"bridge {body.state}"
        case TransferManifest():
            of_round = f", round {body.round_number}" if body.round_number is not None else ""
            return f"manifest of {body.kind} {body.id}{of_round}, {size(body.bytes)}"
        case LastUpdate():
            code = f", {body.code.value}" if body.code is not None else ""
            return f"round {body.round_number} {body.result}{code}, {body.num_examples:,} examples"
        case Evaluation():
            return f"candidate {_version(body.candidate)}, current {_version(body.current)}, {body.select.n:,} rows"
        case DataQuality():
            worst = Counter(body.problems).most_common(1)
            problem = f", {worst[0][0].value} {worst[0][1]:,}" if worst else ""
            return f"{body.verdict}, {body.matured:,} of {body.samples:,} matured{problem}"
        case Statistics():
            return f"generation {body.generation}, {body.rows:,} rows"
    return ""


def _version(number: int | None) -> str:
    return "none" if number is None else str(number)
