"""What this process has seen happen, counted from the reducer's durable outputs. Pure.

The state says how things stand; only sums over time need counting, and they start at nothing with each process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from aggregator.effects import Output, RecordRound, RecordVersionStatus, SendReceipt
from uns_topics.codes import Code

MAX_PARTICIPANTS = 500
"""Participants counted one by one, in the order of their first update; those beyond it are counted together."""
OTHERS = ""
"""Stands for participants that the federation doesn't know, and for those beyond the bound."""
ROUND_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Upper ends of the buckets of a round's duration; one more is open."""


class Tally:
    """Running counts.

    Attributes:
        answers: updates answered, by participant, result and code (None where accepted).
        answered_bytes: bytes of those updates, by participant.
        rounds: rounds ended, by result. round_counts: by bucket of `ROUND_SECONDS`. round_seconds: their sum.
        last_round_seconds: duration of the last round that ended; None before one.
        versions: versions promoted, refused or failed.
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, Literal["accepted", "rejected"], Code | None]] = Counter()
        self.answered_bytes: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self.round_counts = [0] * (len(ROUND_SECONDS) + 1)
        self.round_seconds = 0.0
        self.last_round_seconds: float | None = None
        self.versions: Counter[str] = Counter()
        self._participants: set[str] = set()

    def take(self, outputs: Iterable[Output]) -> None:
        """Count what follows from one event."""
        for output in outputs:
            match output:
                case SendReceipt():
                    who = self._counted_as(output)
                    self.answers[who, output.result, output.code] += 1
                    self.answered_bytes[who] += output.payload_bytes
                case RecordRound(summary=summary):
                    self.rounds[summary.result] += 1
                    self.round_counts[bisect_left(ROUND_SECONDS, summary.seconds)] += 1
                    self.round_seconds += summary.seconds
                    self.last_round_seconds = summary.seconds
                case RecordVersionStatus(status="current"):
                    self.versions["promoted"] += 1
                case RecordVersionStatus(status="refused" | "failed" as status):
                    self.versions[status] += 1
                case _:
                    pass

    def _counted_as(self, receipt: SendReceipt) -> str:
        """Anybody may claim any name where the broker lets them: only names that were let in are counted by name."""
        who = receipt.participant
        if who in self._participants:
            return who
        if receipt.code is Code.UNKNOWN_PARTICIPANT or len(self._participants) >= MAX_PARTICIPANTS:
            return OTHERS
        self._participants.add(who)
        return who
