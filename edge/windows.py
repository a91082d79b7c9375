"""Window samples of one instance: rows on a grid of event time, windows that never pass the end of a run. Pure.

`TagGrid` makes rows out of tags that come one by one; where a message is a row already, it goes to `WindowBuilder`
directly, so that its window is there at once.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.events import NAN, Tag, TagHistory
from edge.signal_map import Join
from uns_topics.contract import WindowSample

MAX_OPEN_RUNS = 1024
"""Runs of one instance that are open at a time; beyond it the longest silent one is given up."""
MAX_ENDED_RUNS = 4096
"""Ended runs whose late rows are recognised."""
MAX_ROWS_AT_ONCE = 10_000
"""Rows that one message may close; a longer silence cuts the run."""
_BUFFER_ROWS = 64

Row = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A window that is ready.

    Attributes:
        segment_s: event time of the first row of its run of rows without a cut; with the group it names that run.
        step: place of its last row in that run, from 0.
        values: shape (L, F), NaN = missing, before the run's start too.
        rows: shape (k, F), the last k rows, which no earlier window of that run contained.
    """

    time_s: float
    segment_s: float
    step: int
    values: Row
    rows: Row


class _Run:
    """Rows of one group; `position` is one past the newest in the buffer."""

    __slots__ = ("buffer", "context", "first_step", "handed", "last_s", "position", "segment_s", "step")

    def __init__(self, time_s: float, length: int, width: int, context: int, *, first_step: int) -> None:
        self.buffer = np.full((length - 1 + _BUFFER_ROWS, width), np.nan, np.float32)
        self.position = length - 1
        self.segment_s = time_s
        self.last_s = time_s
        self.step = -1
        self.handed = -1
        self.context = context
        self.first_step = first_step

    def append(self, row: Row | list[float], length: int) -> None:
        if self.position == len(self.buffer):
            kept = length - 1
            self.buffer[:kept] = self.buffer[self.position - kept :].copy()
            self.position = kept
        self.buffer[self.position] = row
        self.position += 1
        self.step += 1


class WindowBuilder:
    """Windows out of rows.

    A run is cut by a gap that is longer than `max_gap_rows` and by a change of context; after the latter nothing is
    padded, so that no window reaches over a changeover.

    Args: width: features; counters: where late rows, duplicates and cuts are counted.
    """

    def __init__(self, rule: WindowSample, width: int, counters: Counter[str]) -> None:
        self._rule = rule
        self._width = width
        self._counters = counters
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()

    def row(self, group: str, time_s: float, values: Row | list[float], context: int = 0) -> Window | None:
        """The next row of a group's run. Returns: the window that ends with it, if its turn has come."""
        rule = self._rule
        run = self._runs.get(group)
        if run is None:
            if time_s <= self._ended.get(group, -math.inf):
                self._counters["late"] += 1
                return None
            run = self._open(group, time_s, context)
        else:
            distance_s = time_s - run.last_s
            if distance_s <= 0:
                self._counters["duplicate" if distance_s == 0 else "late"] += 1
                return None
            missing = round(distance_s / rule.period_s) - 1
            if missing < 0:
                self._counters["extra-row"] += 1
                return None
            if context != run.context:
                run = self._open(group, time_s, context, padded=False)
            elif missing > max_gap_rows(rule):
                self._counters["run-cut"] += 1
                run = self._open(group, time_s, context)
            else:
                for _ in range(missing):
                    run.append([NAN] * self._width, rule.length)
                self._runs.move_to_end(group)
        run.append(values, rule.length)
        run.last_s = time_s
        return self._window(run)

    def end(self, group: str, time_s: float) -> float:
        """The group's run has ended. Returns: event time of its last row, or `time_s` where none is known."""
        run = self._runs.pop(group, None)
        end_s = run.last_s if run is not None else self._ended.get(group, time_s)
        self._ended[group] = end_s
        self._ended.move_to_end(group)
        if len(self._ended) > MAX_ENDED_RUNS:
            self._ended.popitem(last=False)
        return end_s

    def _open(self, group: str, time_s: float, context: int, *, padded: bool = True) -> _Run:
        rule = self._rule
        first_step = 0 if padded and rule.pad else rule.length - 1
        run = _Run(time_s, rule.length, self._width, context, first_step=first_step)
        self._runs[group] = run
        self._runs.move_to_end(group)
        if len(self._runs) > MAX_OPEN_RUNS:
            self._runs.popitem(last=False)
            self._counters["run-cut"] += 1
        return run

    def _window(self, run: _Run) -> Window | None:
        if run.step < run.first_step or (run.step - run.first_step) % self._rule.stride:
            return None
        length = self._rule.length
        values = run.buffer[run.position - length : run.position].copy()
        fresh = min(run.step - run.handed, length)
        run.handed = run.step
        return Window(run.last_s, run.segment_s, run.step, values, values[length - fresh :])


class TagGrid:
    """Rows out of tags that come one by one: the row of time T holds what was read in (T - period, T].

    A row closes when the instance's event time has passed T by the lateness; later readings of it are counted late.
    `last` carries a value over periods without a new one up to its age; a row in which all is missing is left out.
    With a `linear` tag the row also waits for the tag's next reading, until one would come too late for its gap limit.
    """

    def __init__(
        self, width: int, tags: Mapping[int, Tag], period_s: float, lateness_s: float, counters: Counter[str]
    ) -> None:
        self._width = width
        self._period_s = period_s
        self._lateness_s = lateness_s
        self._counters = counters
        ages = {i: tag.max_age_s if tag.join in (Join.LAST, Join.LINEAR) else period_s for i, tag in tags.items()}
        self._tags = {
            i: Tag(tag.join, ages[i] if tag.join is Join.LINEAR else max(ages[i], period_s)) for i, tag in tags.items()
        }
        self._linear = [(i, tag.max_age_s) for i, tag in self._tags.items() if tag.join is Join.LINEAR]
        self._settled = (-math.inf, 0)
        """Of a row: how many linear tags, from the first on, it need not wait for."""
        self._longest_s = max((tag.max_age_s for tag in self._tags.values()), default=period_s)
        self._histories = {i: TagHistory(tag.max_age_s + lateness_s + 2 * period_s) for i, tag in self._tags.items()}
        self._next: int | None = None  # the row to close next, in periods since the epoch

    def seed(self, index: int, time_s: float, value: float) -> None:
        """A retained reading: the last value before all others, no news."""
        self._histories[index].add(time_s, value)

    def tag(self, index: int, time_s: float, value: float) -> None:
        """A reading of a tag."""
        row = self._row_of(time_s)
        if self._next is None:
            self._next = row
        elif row < self._next:
            self._counters["late"] += 1
        if self._histories[index].add(time_s, value):
            self._counters["duplicate"] += 1

    def close_before(self, time_s: float, *, at_end: bool = False) -> Iterator[tuple[float, list[float]]]:
        """Rows that close because event time has come to `time_s`, oldest first. Args: at_end: nothing more comes."""
        limit_s = time_s - self._lateness_s
        for _ in range(MAX_ROWS_AT_ONCE):
            if self._next is None or not self._next * self._period_s < limit_s:
                return
            row_s = self._next * self._period_s
            if not at_end and self._awaits_neighbour(row_s, limit_s):
                return
            self._next += 1
            values = self._values(row_s)
            if values is not None:
                yield row_s, values
            else:
                self._skip_silence(row_s, limit_s)
        self._next = max(self._next or 0, self._row_of(limit_s))

    def close_all(self) -> Iterator[tuple[float, list[float]]]:
        """All rows up to the newest reading: a run has ended."""
        newest_s = max((h.newest_s for h in self._histories.values()), default=-math.inf)
        if newest_s > -math.inf:
            yield from self.close_before(newest_s + self._period_s + self._lateness_s, at_end=True)

    def _awaits_neighbour(self, row_s: float, limit_s: float) -> bool:
        """Whether a linear tag may still get the reading after this row that it needs."""
        if self._settled[0] != row_s:
            self._settled = (row_s, 0)
        for place in range(self._settled[1], len(self._linear)):  # once settled, a tag is for this row
            index, gap_limit_s = self._linear[place]
            newest_s = self._histories[index].newest_s
            if newest_s < row_s and limit_s <= newest_s + gap_limit_s:
                self._settled = (row_s, place)
                return True
        return False

    def _values(self, row_s: float) -> list[float] | None:
        values = [NAN] * self._width
        found = False
        for index, tag in self._tags.items():
            value = self._histories[index].join(tag.join, row_s, tag.max_age_s)
            values[index] = value
            found = found or (value == value and not (value == 0 and tag.join is Join.COUNT))
        return values if found else None

    def _skip_silence(self, row_s: float, limit_s: float) -> None:
        """Nothing was read for longer than any value is carried: go on at the next reading there may be."""
        last_s = max((h.last_until(row_s) for h in self._histories.values()), default=-math.inf)
        if last_s + self._longest_s < row_s:
            following_s = min((h.first_after(row_s) for h in self._histories.values()), default=math.inf)
            self._next = max(self._next or 0, self._row_of(min(following_s, limit_s)))

    def _row_of(self, time_s: float) -> int:
        return math.ceil(time_s / self._period_s)


def max_gap_rows(rule: WindowSample) -> int:
    """Missing rows that a run bears before it is cut: a fifth of a window, at least 2."""
    return max(2, math.ceil(rule.length / 5))
