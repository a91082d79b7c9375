"""What was wrong on each topic, with the last bad payload beside the last good one: for the plant's own people. Pure.

It holds raw payloads, so it stays on the edge's own disk: reports that leave the plant carry codes and counts alone.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.effects import Problem

MAX_TOPICS = 200
"""Topics with problems; beyond it the one whose last problem is oldest is forgotten."""
MAX_GOOD = 10_000
"""Topics whose last good payload is remembered in case that they go bad."""
KEPT_BYTES = 512
"""Of a payload."""
MAX_TOPIC = 1024
"""Characters of a topic; longer ones are cut."""
MAX_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Sighting:
    """A payload when it was seen. Attributes: head: its first bytes; size: of all in bytes."""

    time_s: float
    head: bytes
    size: int

    @property
    def text(self) -> str | None:
        """What it says, if it can be shown as it is; else None."""
        head = self.head if self.size == len(self.head) else _whole_characters(self.head)
        try:
            text = head.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None


@dataclass(slots=True)
class TopicProblems:
    """One topic. Attributes: code, detail: of the last problem; counts: by code, since `since_s`."""

    since_s: float
    bad: Sighting
    good: Sighting | None = None
    code: str = ""
    detail: str = ""
    counts: Counter[str] = field(default_factory=Counter)


class ProblemLog:
    """Problems by topic. Attributes: topics: the one with the oldest last problem first; forgotten: how many went."""

    def __init__(self) -> None:
        self.topics: OrderedDict[str, TopicProblems] = OrderedDict()
        self.forgotten = 0
        self._good: dict[str, tuple[float, bytes, int]] = {}

    def took(self, topic: str, payload: bytes, now_s: float) -> None:
        """A message without a problem."""
        good = self._good
        if topic in good or (len(good) < MAX_GOOD and len(topic) <= MAX_TOPIC):
            size = len(payload)
            good[topic] = (now_s, payload if size <= KEPT_BYTES else payload[:KEPT_BYTES], size)

    def refused(self, topic: str, payload: bytes, problems: Sequence[Problem], now_s: float) -> None:
        """A message with problems."""
        name = topic[:MAX_TOPIC]
        bad = Sighting(now_s, payload[:KEPT_BYTES], len(payload))
        known = self.topics.get(name)
        if known is None:
            known = self.topics[name] = TopicProblems(now_s, bad)
            if len(self.topics) > MAX_TOPICS:
                self.topics.popitem(last=False)
                self.forgotten += 1
        self.topics.move_to_end(name)
        known.bad = bad
        good = self._good.get(name)
        known.good = Sighting(*good) if good is not None else known.good
        known.code, known.detail = problems[-1].code, problems[-1].detail[:MAX_DETAIL]
        known.counts.update(problem.code for problem in problems)

    def dump(self) -> bytes:
        """As JSON, for a file that only the plant reads."""
        for topic, (time_s, head, size) in self._good.items():
            known = self.topics.get(topic)
            if known is not None:
                known.good = Sighting(time_s, head, size)
        topics = [
            {
                "topic": topic,
                "since_s": known.since_s,
                "counts": dict(known.counts),
                "code": known.code,
                "detail": known.detail,
                "bad": _dump(known.bad),
                "good": _dump(known.good) if known.good is not None else None,
            }
            for topic, known in self.topics.items()
        ]
        return json.dumps({"problems": 1, "forgotten": self.forgotten, "topics": topics}).encode()

    @classmethod
    def load(cls, raw: bytes) -> ProblemLog:
        """What `dump` wrote. Raises: ValueError: it is something else."""
        log = cls()
        try:
            found = json.loads(raw)
            log.forgotten = int(found["forgotten"])
            for one in found["topics"][-MAX_TOPICS:]:
                counts = Counter({str(code): int(count) for code, count in one["counts"].items()})
                good = _load(one["good"]) if one["good"] is not None else None
                log.topics[str(one["topic"])] = TopicProblems(
                    float(one["since_s"]), _load(one["bad"]), good, str(one["code"]), str(one["detail"]), counts
                )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no list of problems: {error}") from None
        return log


def _dump(seen: Sighting) -> dict[str, Any]:
    return {"time_s": seen.time_s, "hex": seen.head.hex(), "size": seen.size}


def _load(found: Any) -> Sighting:
    return Sighting(float(found["time_s"]), bytes.fromhex(found["hex"]), int(found["size"]))


def _whole_characters(head: bytes) -> bytes:
    """Without the last character, of which only a part may be there: at most 3 bytes of UTF-8."""
    for cut in range(1, 4):
        if len(head) >= cut and head[-cut] >= 0xC0:
            return head[:-cut]
    return head
