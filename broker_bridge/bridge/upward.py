"""One participant's transfers on their way up: assembled, judged, held in order, answered. A pure core.

The receipt that a participant waits for is the aggregator's. A bridge answers by itself only what it lacks (`missing`)
and what it doesn't let out; it says nothing while it holds a transfer whose answer is still to come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from broker_bridge.bridge.custody import Held
from broker_bridge.bridge.inspection import Passed, Refusal, Why, judge_manifest, receipt_code
from broker_bridge.inbox import Answer as InboxAnswer
from broker_bridge.inbox import Inbox, Missing, Refused, Whole
from uns_topics.envelope import Envelope
from uns_topics.plan import Plan
from uns_topics.rounds import Receipt
from uns_topics.transfers import Chunk, TransferManifest
from uns_topics.update import max_update_bytes

REMEMBERED = 256
"""Answers per participant that are given again to who asks again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Say this to the participant, on the plant's broker."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Count and log a refusal; the receipt, where there is one, is a separate `Answer`."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Judge:
    """Judge these bytes and hold them if they may leave; answer with `on_held` or `on_refused`."""

    manifest: TransferManifest
    envelope: Envelope
    line: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rechunk:
    """A held transfer is announced in other chunks: check them against its bytes; answer with `on_rechunked`."""

    held: Held
    envelope: Envelope
    manifest: TransferManifest


@dataclass(frozen=True, slots=True)
class Settle:
    """A transfer has its final answer: forget its bytes, remember and say the answer."""

    receipt: Receipt


Effect = Answer | TurnedAway | Judge | Rechunk | Settle


@dataclass(frozen=True, slots=True)
class _Announced:
    envelope: Envelope
    line: str


class Upward:
    """What one participant sends.

    Args: queue, receipts: what the disk still has, oldest first.
    """

    def __init__(self, participant: str, queue: Iterable[Held], receipts: Iterable[Receipt]) -> None:
        self._participant = participant
        self._inbox = Inbox(0)
        self._announced: dict[str, _Announced] = {}
        self._in_hand: set[str] = set()
        self._queue: OrderedDict[str, Held] = OrderedDict((held.manifest.id, held) for held in queue)
        self._receipts: OrderedDict[str, Receipt] = OrderedDict((r.id, r) for r in receipts)
        self._plan: Plan | None = None
        self.limit: int | None = None
        """Larger chunks don't pass the uplink; the participant hears of it by its route."""

    @property
    def queue(self) -> tuple[Held, ...]:
        """Transfers that wait for their answer, oldest first."""
        return tuple(self._queue.values())

    @property
    def max_bytes(self) -> int:
        """The most that an update can have, and so a chunk of one; 0 before there is a plan."""
        return self._inbox.max_bytes

    def on_plan(self, plan: Plan) -> None:
        """The federation's plan, new or again: it says how large an update can be."""
        self._plan = plan
        self._inbox.max_bytes = max_update_bytes(plan.template.table, plan.encodings, control=plan.control)

    # From the plant -------------------------------------------------------------------------------------------------

    def on_manifest(self, passed: Passed, now: float) -> list[Effect]:
        """A manifest came that the policy lets pass."""
        manifest, topic = passed.body, passed.topic
        assert isinstance(manifest, TransferManifest)
        if self._plan is None:
            return [TurnedAway(Refusal(Why.NO_PLAN, "an update can't be judged before the plan is known; it waits"))]
        if (refusal := judge_manifest(topic, manifest, self._plan)) is not None:
            return self._turn_away(topic.transfer or manifest.id, refusal)
        if (known := self._receipts.get(manifest.id)) is not None:
            return [Answer(known)]
        if (held := self._queue.get(manifest.id)) is not None:
            same = held.manifest.chunk_bytes == manifest.chunk_bytes
            return [] if same else [Rechunk(held, passed.envelope, manifest)]
        if manifest.id in self._in_hand or (self.limit is not None and manifest.chunk_bytes > self.limit):
            return []
        self._announced[manifest.id] = _Announced(passed.envelope, passed.line)
        return self._answers(self._inbox.on_manifest(self._participant, manifest, now))

    def on_chunk(self, chunk: Chunk, now: float) -> list[Effect]:
        """A chunk came; the last one makes the transfer whole."""
        return self._answers(self._inbox.on_chunk(self._participant, chunk, now))

    def refuse(self, transfer: str | None, refusal: Refusal) -> list[Effect]:
        """A message of this transfer doesn't pass, whatever comes of the others."""
        if transfer is None or transfer in self._queue or transfer in self._receipts or transfer in self._in_hand:
            return [TurnedAway(refusal)]
        return self._turn_away(transfer, refusal)

    def expire(self, now: float) -> int:
        """Drop open transfers that idle; returns how many."""
        count = self._inbox.expire(now)
        # An announcement without an open transfer behind it has nothing more to say.
        while len(self._announced) > REMEMBERED:
            self._announced.pop(next(iter(self._announced)))
        return count

    # From whoever judges and stores -----------------------------------------------------------------------------------

    def on_held(self, held: Held) -> None:
        """A transfer is durable: it will be sent when its turn comes."""
        self._in_hand.discard(held.manifest.id)
        self._queue[held.manifest.id] = held

    def on_refused(self, transfer: str, refusal: Refusal) -> list[Effect]:
        """Judged, and not let out."""
        self._in_hand.discard(transfer)
        return self._turn_away(transfer, refusal)

    def on_not_held(self, transfer: str) -> None:
        """It couldn't be stored: it is forgotten here, and its sender asks again."""
        self._in_hand.discard(transfer)

    def on_rechunked(self, envelope: Envelope, manifest: TransferManifest) -> Held | None:
        """A held transfer goes by this manifest from now on; None where it was answered meanwhile."""
        return self._renew(manifest.id, envelope=envelope, manifest=manifest)

    def on_begun(self, transfer: str) -> None:
        """Some of a held transfer may have left."""
        self._renew(transfer, begun=True)

    def on_dropped(self, transfer: str, why: Why, detail: str) -> list[Effect]:
        """A held transfer is not sent after all."""
        return self._turn_away(transfer, Refusal(why, detail))

    def on_gone(self, transfer: str) -> None:
        """The store has no bytes of it any more: it was answered."""
        self._queue.pop(transfer, None)

    def on_answered(self, receipt: Receipt) -> list[Effect]:
        """The final answer from above came; nothing where nobody waits for it."""
        if receipt.id not in self._queue:
            return []
        return self._settle(receipt)

    # ------------------------------------------------------------------------------------------------------------------

    def _answers(self, answers: list[InboxAnswer]) -> list[Effect]:
        effects: list[Effect] = []
        for answer in answers:
            match answer:
                case Missing(_, transfer, chunks):
                    effects.append(Answer(Receipt(id=transfer, result="missing", chunks=chunks)))
                case Refused(_, transfer, code, detail, _):
                    self._inbox.forget(self._participant, transfer)
                    why = Why.OVERSIZED if code == "oversized" else Why.INTEGRITY
                    effects += self._turn_away(transfer, Refusal(why, detail))
                case Whole(_, manifest, content):
                    known = self._announced.pop(manifest.id, None)
                    if known is not None:
                        self._in_hand.add(manifest.id)
                        effects.append(Judge(manifest, known.envelope, known.line, content))
        return effects

    def _renew(self, transfer: str, **changes: Any) -> Held | None:
        held = self._queue.get(transfer)
        if held is None:
            return None
        renewed = self._queue[transfer] = replace(held, **changes)
        return renewed

    def _turn_away(self, transfer: str, refusal: Refusal) -> list[Effect]:
        receipt = Receipt(id=transfer, result="rejected", code=receipt_code(refusal.why))
        return [TurnedAway(refusal), *self._settle(receipt)]

    def _settle(self, receipt: Receipt) -> list[Effect]:
        self._queue.pop(receipt.id, None)
        self._announced.pop(receipt.id, None)
        self._inbox.forget(self._participant, receipt.id)
        self._receipts[receipt.id] = receipt
        if len(self._receipts) > REMEMBERED:
            self._receipts.popitem(last=False)
        return [Settle(receipt)]
