"""What is said of one instance meets here: keyed parts become events, readings become windows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from edge.binding import BoundMap, BoundSource, required_features
from edge.dialects import read_number, read_text
from edge.effects import Effect, LabelSet, Problem, RunEnded, SampleReady
from edge.events import NAN, EventJoiner, Joined, Part, Tag
from edge.splits import SAID
from edge.windows import TagGrid, Window, WindowBuilder
from uns_topics.contract import ClassLabel, Contract, EventSample, RunToFailureLabel, WindowSample


class Instance(Protocol):
    """What is known of one instance."""

    def take(self, message: InstanceMessage) -> list[Effect]: ...

    def seed(self, message: InstanceMessage) -> None: ...


@dataclass(slots=True)
class InstanceMessage:
    """A decoded message at its instance, with the numbers of its features."""

    source: BoundSource
    rank: int
    topic: str
    time_s: float
    arrival_s: float
    fields: Mapping[str, Any]
    good: bool
    values: dict[int, float]
    problems: list[Effect]

    def text(self, field: str | None) -> str:
        """A field as text, "" without."""
        return (read_text(self.fields.get(field)) or "") if field is not None else ""


class Words:
    """What both kinds of instance read besides numbers: context, split and verdict."""

    def __init__(self, path: str, contract: Contract, counters: Counter[str]) -> None:
        self.path = path
        self._label = contract.label
        self._counters = counters

    def context(self, message: InstanceMessage) -> int | None:
        """The slot that a message names; None where it names none."""
        bound = message.source.context
        if bound is None or not message.good:
            return None
        text = message.text(bound.field)
        if not text:
            return None
        slot = bound.slots.get(text, 0)
        if slot == 0:
            self._counters["unknown-context"] += 1
        return slot

    def split(self, message: InstanceMessage) -> str:
        """What the data says of a sample's part; `test` is what others call `report`."""
        text = message.text(message.source.declared.split).lower()
        if text not in SAID:
            self._counters["unknown-split"] += 1
            return ""
        return "report" if text == "test" else text

    def label(self, message: InstanceMessage, key: str) -> Effect | None:
        """The verdict of a message that has one."""
        bound = message.source.label
        if bound is None or not isinstance(self._label, ClassLabel) or not message.good:
            return None
        code = message.text(bound.field)
        if not code:
            if message.values:
                return None
            self._counters["no-label"] += 1
            return Problem("no-label", message.topic, f"no text in field {bound.field!r}")
        value = bound.codes.get(code)
        if value is None:
            self._counters["unmapped-code"] += 1
            return Problem("unmapped-code", message.topic, f"the text of field {bound.field!r} is no code of the map")
        return LabelSet(
            self.path,
            key,
            float(value),
            bound.source,
            bound.precedence,
            message.time_s,
            self._label.matures_after_s,
        )

    def matures_s(self, time_s: float) -> float | None:
        """When a sample's label window closes; that of a run to failure is closed by the run's end."""
        if isinstance(self._label, ClassLabel):
            return time_s + self._label.matures_after_s
        return time_s if isinstance(self._label, RunToFailureLabel) else None


class EventInstance:
    """One instance whose samples are events."""

    def __init__(self, path: str, bound_map: BoundMap, contract: Contract, counters: Counter[str]) -> None:
        assert isinstance(contract.sample, EventSample)
        self._words = Words(path, contract, counters)
        self._counters = counters
        tags = {index: Tag(f.join, f.max_age_s) for index, f in bound_map.tags.items()}
        self._joiner = EventJoiner(
            len(contract.features),
            bound_map.keyed,
            required_features(contract),
            tags,
            contract.sample.patience_s,
            counters,
        )

    def seed(self, message: InstanceMessage) -> None:
        if message.source.declared.key is None:
            self._tags(message)

    def take(self, message: InstanceMessage) -> list[Effect]:
        effects: list[Effect] = []
        declared = message.source.declared
        if declared.key is None:
            self._tags(message)
        else:
            key = message.text(declared.key)
            if not key:
                self._counters["no-key"] += 1
                return [Problem("no-key", message.topic, f"no text or number in field {declared.key!r}")]
            if declared.feeds_samples:
                joined = self._joiner.part(key, self._part(message))
                if joined is not None:
                    effects.append(self._sample(joined))
            label = self._words.label(message, key)
            if label is not None:
                effects.append(label)
        effects += [self._sample(joined) for joined in self._joiner.advance(message.time_s)]
        return effects

    def _tags(self, message: InstanceMessage) -> None:
        for index, value in message.values.items():
            self._joiner.tag(index, message.time_s, value)
        slot = self._words.context(message)
        if slot is not None:
            self._joiner.context(message.time_s, slot)

    def _part(self, message: InstanceMessage) -> Part:
        return Part(
            message.rank,
            message.time_s,
            message.arrival_s,
            message.values,
            self._words.context(message),
            message.text(message.source.declared.group),
            self._words.split(message),
        )

    def _sample(self, joined: Joined) -> SampleReady:
        return SampleReady(
            self._words.path,
            joined.key,
            joined.time_s,
            joined.arrival_s,
            joined.group,
            joined.split,
            joined.context,
            np.array(joined.values, np.float32),
            self._words.matures_s(joined.time_s),
        )


class WindowInstance:
    """One instance whose samples are windows."""

    def __init__(self, path: str, bound_map: BoundMap, contract: Contract, counters: Counter[str]) -> None:
        assert isinstance(contract.sample, WindowSample)
        self._words = Words(path, contract, counters)
        self._counters = counters
        self._rule = contract.sample
        self._width = len(contract.features)
        self._builder = WindowBuilder(contract.sample, self._width, counters)
        self._grid: TagGrid | None = None
        if not bound_map.by_row:
            tags = {index: Tag(f.join, f.max_age_s) for index, f in bound_map.tags.items()}
            self._grid = TagGrid(self._width, tags, contract.sample.period_s, bound_map.lateness_s, counters)
        self._context = 0
        self._group = ""
        self._split = ""

    def seed(self, message: InstanceMessage) -> None:
        if self._grid is not None:
            for index, value in message.values.items():
                self._grid.seed(index, message.time_s, value)
        slot = self._words.context(message)
        self._context = self._context if slot is None else slot

    def take(self, message: InstanceMessage) -> list[Effect]:
        declared = message.source.declared
        effects: list[Effect] = []
        if self._grid is not None:
            effects += self._rows(self._grid.close_before(message.time_s), message.arrival_s)
        self._follow(message, effects)
        if message.source.features:
            if self._grid is not None:
                for index, value in message.values.items():
                    self._grid.tag(index, message.time_s, value)
            else:
                effects += self._row(message)
        end = declared.end_of_run
        if end is not None and (not message.source.features or end.remaining in message.fields):
            effects += self._end(message, end.remaining)
        return effects

    def _follow(self, message: InstanceMessage, effects: list[Effect]) -> None:
        """Take on the group, split and context that a message names; with another group the last one's row closes."""
        declared = message.source.declared
        slot = self._words.context(message)
        group = message.text(declared.group)
        changed = (slot is not None and slot != self._context) or (declared.group and group != self._group)
        if changed and self._grid is not None:
            effects += self._rows(self._grid.close_all(), message.arrival_s)
        if slot is not None:
            self._context = slot
        if declared.group:
            self._group = group
        if declared.split:
            self._split = self._words.split(message)

    def _row(self, message: InstanceMessage) -> list[Effect]:
        values = [NAN] * self._width
        for index, value in message.values.items():
            values[index] = value
        window = self._builder.row(self._group, message.time_s, values, self._context)
        if window is None:
            return []
        sample = self._sample(window, message.arrival_s)
        label = self._words.label(message, sample.key)
        return [sample] if label is None else [sample, label]

    def _rows(self, rows: Iterable[tuple[float, list[float]]], arrival_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for time_s, values in rows:
            window = self._builder.row(self._group, time_s, values, self._context)
            if window is not None:
                effects.append(self._sample(window, arrival_s))
        return effects

    def _end(self, message: InstanceMessage, field: str | None) -> list[Effect]:
        remaining = read_number(message.fields.get(field)) if field is not None else 0.0
        if not isinstance(remaining, float) or remaining < 0:
            self._counters["wrong-type"] += 1
            return [Problem("wrong-type", message.topic, f"field {field!r}: no number of remaining steps")]
        effects: list[Effect] = []
        if self._grid is not None:
            effects += self._rows(self._grid.close_all(), message.arrival_s)
        end_s = self._builder.end(self._group, message.time_s)
        effects.append(RunEnded(self._words.path, self._group, end_s, remaining, self._rule.period_s))
        return effects

    def _sample(self, window: Window, arrival_s: float) -> SampleReady:
        moment = datetime.fromtimestamp(window.time_s, UTC).isoformat(timespec="milliseconds")
        return SampleReady(
            self._words.path,
            f"{self._group}@{moment}" if self._group else moment,
            window.time_s,
            arrival_s,
            self._group,
            self._split,
            self._context,
            window.values,
            self._words.matures_s(window.time_s),
            window.segment_s,
            window.step,
            window.rows,
        )
