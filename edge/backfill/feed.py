"""Readings into samples: what was said at one moment becomes messages, and those go the way of live ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from edge.backfill.readings import Reading
from edge.backfill.tag_map import Target
from edge.clock import FUTURE_TOLERANCE_S
from edge.effects import Effect, LabelSet, SampleReady
from edge.ingest import Ingest
from edge.quality import QualityCounters
from edge.store import SampleStore

BATCH_EFFECTS = 2_000
WHOLE = ""
"""In place of a field: the whole message, as it was said."""
MAX_AT_ONCE = 100_000
"""Readings of one moment that are put together; more are cut there."""


@dataclass
class Fed:
    """What came of the readings so far."""

    readings: int = 0
    messages: int = 0
    samples: int = 0
    labels: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Said:
    target: Target
    fields: dict[str, Any]
    good: bool
    bad_fields: int = 0


class Feed:
    """Feeds one store. Args: now_s: samples are marked as having arrived now; later readings can't be."""

    def __init__(self, ingest: Ingest, store: SampleStore, quality: QualityCounters, now_s: float) -> None:
        self._ingest = ingest
        self._store = store
        self._quality = quality
        self._now_s = now_s
        self.fed = Fed()
        self.at_s = float("-inf")
        """Event time that it has come to."""

    def run(self, readings: Iterable[Reading]) -> Iterator[None]:
        """Store what comes of readings in time order, batch by batch. Yields after each batch."""
        batch: list[Effect] = []
        for moment, together in _moments(readings):
            self.fed.readings += len(together)
            self.at_s = moment
            if moment > self._now_s + FUTURE_TOLERANCE_S:
                self.fed.skipped["future"] += len(together)
                continue
            batch += self._moment(moment, together)
            if len(batch) >= BATCH_EFFECTS:
                self._keep(batch)
                batch = []
                yield
        self._keep(batch)
        yield

    def _moment(self, moment: float, together: list[Reading]) -> list[Effect]:
        effects: list[Effect] = []
        for said in _messages(together):
            self.fed.messages += 1
            target = said.target
            if WHOLE not in said.fields:
                if said.good:  # where no field of it is good, ingest counts the message
                    self.fed.skipped["bad-quality"] += said.bad_fields
                effects += self._ingest.recall(target.topic, said.fields, moment, good=said.good)
                continue
            payload = said.fields[WHOLE]
            if isinstance(payload, str):
                payload = payload.encode(errors="replace")
            if not isinstance(payload, bytes):
                self.fed.skipped["undecodable"] += 1
                continue
            effects += self._ingest.feed(target.topic, payload, arrival_s=moment)
        return effects

    def _keep(self, batch: list[Effect]) -> None:
        batch = [replace(e, arrival_s=self._now_s) if isinstance(e, SampleReady) else e for e in batch]
        for effect in batch:
            if isinstance(effect, SampleReady):
                self.fed.samples += 1
                self._quality.add(effect.instance, effect.new_rows, effect.time_s)
            elif isinstance(effect, LabelSet):
                self.fed.labels += 1
                self._quality.add_labels(1)
        self._store.add(batch)


def _moments(readings: Iterable[Reading]) -> Iterator[tuple[float, list[Reading]]]:
    """Readings of the same time together."""
    moment, together = float("-inf"), list[Reading]()
    for reading in readings:
        if reading.time_s != moment or len(together) >= MAX_AT_ONCE:
            if together:
                yield moment, together
            moment, together = reading.time_s, []
        together.append(reading)
    if together:
        yield moment, together


def _messages(together: list[Reading]) -> list[_Said]:
    """One message of all fields of a topic; a field that comes again begins the next. Tags come before events."""
    said: list[_Said] = []
    newest: dict[str, _Said] = {}
    for _, target, value, good in together:
        if target.field is None or (target.is_only and isinstance(value, str) and value.startswith("{")):
            said.append(_Said(target, {WHOLE: value}, good))
            continue
        known = newest.get(target.topic)
        if known is None or target.field in known.fields:
            known = newest[target.topic] = _Said(target, {}, False)
            said.append(known)
        known.fields[target.field] = value
        known.good = known.good or good
        known.bad_fields += not good
    if len(said) > 1:
        said.sort(key=lambda message: message.target.rank)
    return said
