"""What a bridge shows to Prometheus. Pure: its state in, figures out; no topic and no content is among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker_bridge.bridge.inspection import Why
from broker_bridge.bridge.policy import Export
from broker_bridge.metrics import Sheet


@dataclass(frozen=True, slots=True)
class CrossingFigures:
    """One participant's crossing at one moment.

    Attributes:
        is_up: its session with the next broker.
        queue, queue_bytes: transfers that wait for their answer; oldest_s: how long the oldest has waited.
        refused: what didn't leave, by reason.
        messages, sent_bytes: what left, by kind; payloads alone.
    """

    federation: str
    participant: str
    is_up: bool
    queue: int
    queue_bytes: int
    oldest_s: float
    refused: Mapping[Why, int]
    messages: Mapping[Export, int]
    sent_bytes: Mapping[Export, int]
    chunk_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class BridgeFigures:
    """A bridge at one moment.

    Attributes:
        is_recording: whether the record of what left can be written.
        budget_bytes, budget_messages: what is left of today's budget; None: no limit.
        unreadable: messages from above that were not what their topic declares, by federation and error.
        with_plan: whether each federation's plan is known.
    """

    bridge: str
    is_plant_up: bool
    is_paused: bool
    is_recording: bool
    budget_bytes: int | None
    budget_messages: int | None
    crossings: tuple[CrossingFigures, ...]
    unreadable: Mapping[tuple[str, str], int] = field(default_factory=dict)
    with_plan: Mapping[str, bool] = field(default_factory=dict)


def bridge_sheet(bridge: BridgeFigures) -> Sheet:
    """The figures of one bridge."""
    sheet = Sheet("bridge", {"bridge": bridge.bridge})
    sheet.gauge("plant_connected", "1 while there is a session with the plant's broker", bridge.is_plant_up)
    sheet.gauge("paused", "1 while the plant has paused the bridge", bridge.is_paused)
    sheet.gauge("recording", "1 while what leaves can be recorded; else nothing leaves", bridge.is_recording)
    sheet.gauge("budget_remaining_bytes", "What may still leave today", bridge.budget_bytes)
    sheet.gauge("budget_remaining_messages", "What may still leave today", bridge.budget_messages)
    for federation, known in bridge.with_plan.items():
        sheet.gauge("plan_known", "1 once the federation's plan has come", known, federation=federation)
    for (federation, reason), count in bridge.unreadable.items():
        documentation = "Messages from above that were not what their topic declares"
        sheet.counter("unreadable_messages_total", documentation, count, federation=federation, reason=reason)
    for crossing in bridge.crossings:
        _add_crossing(sheet, crossing)
    return sheet


def _add_crossing(sheet: Sheet, crossing: CrossingFigures) -> None:
    who = {"federation": crossing.federation, "participant": crossing.participant}
    sheet.gauge("uplink_connected", "1 while there is a session with the next broker", crossing.is_up, **who)
    sheet.gauge("queued_transfers", "Transfers that wait for their answer", crossing.queue, **who)
    sheet.gauge("queued_bytes", "Their size", crossing.queue_bytes, **who)
    sheet.gauge("queued_oldest_seconds", "How long the oldest has waited", crossing.oldest_s, **who)
    sheet.gauge("chunk_limit_bytes", "The largest chunk that passes the uplink", crossing.chunk_limit_bytes, **who)
    for why in Why:
        count = crossing.refused.get(why, 0)
        sheet.counter("refused_messages_total", "What didn't leave", count, code=why, **who)
    for kind, count in crossing.messages.items():
        sheet.counter("sent_messages_total", "What left", count, kind=kind, **who)
    for kind, count in crossing.sent_bytes.items():
        sheet.counter("sent_payload_bytes_total", "Payload bytes that left", count, kind=kind, **who)
