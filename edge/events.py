"""Event samples of one instance: keyed parts complete a sample, unkeyed tags join as of its time. Pure.

Everything runs on event time. A part that never comes is waited for until the instance's own time has passed the
event by the patience; then the sample goes on without it, or is dropped where it lacks what the contract requires.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from edge.signal_map import Join

MAX_PENDING = 10_000
"""Incomplete samples of one instance; beyond it the oldest is given up early."""
MAX_READINGS = 20_000
"""Readings kept of one tag; beyond it the oldest go."""
MAX_DONE_KEYS = 50_000
"""Keys of finished samples that a repeated message is recognised by."""
_TRIM_EVERY = 256

NAN = float("nan")
_JOINED: dict[Join, Callable[[list[float]], float]] = {
    Join.MEAN: lambda good: sum(good) / len(good),
    Join.MIN: min,
    Join.MAX: max,
    Join.SUM: sum,
    Join.COUNT: lambda good: float(len(good)),
}


class TagHistory:
    """Readings of one tag in event time; NaN is a reading that was not good."""

    __slots__ = ("_horizon_s", "_times", "_trim_at", "_values")

    def __init__(self, horizon_s: float) -> None:
        self._horizon_s = horizon_s
        self._times: list[float] = []
        self._values: list[float] = []
        self._trim_at = _TRIM_EVERY

    def __len__(self) -> int:
        return len(self._times)

    @property
    def newest_s(self) -> float:
        """Event time of the newest reading; minus infinity without any."""
        return self._times[-1] if self._times else float("-inf")

    def last_until(self, time_s: float) -> float:
        """Event time of the newest reading at or before `time_s`; minus infinity without any."""
        stop = bisect_right(self._times, time_s)
        return self._times[stop - 1] if stop else float("-inf")

    def first_after(self, time_s: float) -> float:
        """Event time of the oldest reading after `time_s`; infinity without any."""
        stop = bisect_right(self._times, time_s)
        return self._times[stop] if stop < len(self._times) else float("inf")

    def add(self, time_s: float, value: float) -> bool:
        """Insert a reading where its time belongs; one of the same time is replaced. Returns: it was a repetition."""
        times = self._times
        if not times or time_s > times[-1]:
            times.append(time_s)
            self._values.append(value)
            if len(times) >= self._trim_at:
                self._trim()
            return False
        at = bisect_left(times, time_s)
        if times[at] == time_s:
            repeated = self._values[at] == value
            self._values[at] = value
            return repeated
        times.insert(at, time_s)
        self._values.insert(at, value)
        return False

    def join(self, how: Join, time_s: float, max_age_s: float) -> float:
        """One number out of the readings in (time_s - max_age_s, time_s]; NaN without any.

        `last` is NaN where the latest of them was not good: an older good value would hide that the sensor failed.
        `count` without any is 0 where an older one is known. `linear` reads the gap limit as age, see `_linear`.
        """
        if how is Join.LINEAR:
            return self._linear(time_s, max_age_s)
        stop = bisect_right(self._times, time_s)
        if stop == 0 or self._times[stop - 1] <= time_s - max_age_s:
            return 0.0 if how is Join.COUNT and stop else NAN
        if how is Join.LAST:
            return self._values[stop - 1]
        start = bisect_right(self._times, time_s - max_age_s, 0, stop)
        good = [value for value in self._values[start:stop] if value == value]
        if not good:
            return NAN
        return _JOINED[how](good)

    def _linear(self, time_s: float, gap_limit_s: float) -> float:
        """Between the neighbours of `time_s`; NaN where one is missing or not good, or where they lie too far apart."""
        at = bisect_left(self._times, time_s)
        if at == len(self._times):
            return NAN
        after_s, after = self._times[at], self._values[at]
        if after_s == time_s:
            return after
        if at == 0 or after_s - self._times[at - 1] > gap_limit_s:
            return NAN
        before_s, before = self._times[at - 1], self._values[at - 1]
        return before + (after - before) * (time_s - before_s) / (after_s - before_s)

    def _trim(self) -> None:
        """Drop what no event can ask for any more; the newest reading before the horizon stays."""
        keep_from = bisect_right(self._times, self._times[-1] - self._horizon_s) - 1
        keep_from = max(0, keep_from, len(self._times) - MAX_READINGS)
        del self._times[:keep_from]
        del self._values[:keep_from]
        self._trim_at = len(self._times) + _TRIM_EVERY


@dataclass(frozen=True, slots=True)
class Tag:
    """How a tag joins. `max_age_s`: for `linear` the longest gap between two readings."""

    join: Join
    max_age_s: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one keyed message says of a sample.

    Attributes: rank: place of its source in the signal map; the event's time is that of its lowest rank.
    """

    rank: int
    time_s: float
    arrival_s: float
    values: Mapping[int, float]
    context: int | None = None
    group: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """A sample: all features in the contract's order, NaN = missing."""

    key: str
    time_s: float
    arrival_s: float
    values: list[float]
    context: int
    group: str
    split: str


@dataclass(slots=True)
class _Pending:
    first_s: float
    parts: dict[int, Part] = field(default_factory=dict)
    covered: set[int] = field(default_factory=set)


class EventJoiner:
    """Joins what one instance says.

    Args:
        width: features of the contract; keyed: those that come with a key; required: those that it must have.
        tags: those that join as of the event. patience_s: event time that a missing part is waited for.
        counters: where duplicates and what was given up are counted.
    """

    def __init__(
        self,
        width: int,
        keyed: frozenset[int],
        required: frozenset[int],
        tags: Mapping[int, Tag],
        patience_s: float,
        counters: Counter[str],
    ) -> None:
        self._width = width
        self._keyed = keyed
        self._required_parts = keyed & required
        self._tags = tags
        self._patience_s = patience_s
        self._counters = counters
        self._histories = {index: TagHistory(tag.max_age_s + patience_s) for index, tag in tags.items()}
        self._contexts = TagHistory(float("inf"))
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._watermark_s = float("-inf")

    @property
    def pending(self) -> int:
        """Samples that wait for a part."""
        return len(self._pending)

    def tag(self, index: int, time_s: float, value: float) -> None:
        """A reading of a tag; a retained one, too: it seeds the last value."""
        if self._histories[index].add(time_s, value):
            self._counters["duplicate"] += 1

    def context(self, time_s: float, slot: int) -> None:
        """The product or recipe changed (or was said again)."""
        self._contexts.add(time_s, float(slot))

    def part(self, key: str, part: Part) -> Joined | None:
        """A keyed message. Returns: the sample, once all keyed features are there."""
        if key in self._done:
            self._counters["duplicate"] += 1
            return None
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(part.time_s)
        elif part.rank in pending.parts:
            self._counters["duplicate"] += 1
            return None
        pending.parts[part.rank] = part
        pending.covered |= part.values.keys()
        pending.first_s = min(pending.first_s, part.time_s)
        if pending.covered >= self._keyed:
            del self._pending[key]
            return self._finish(key, pending)
        return None

    def advance(self, time_s: float) -> Iterable[Joined]:
        """The instance's event time has come this far: give up waiting where patience has run out."""
        self._watermark_s = max(self._watermark_s, time_s)
        if not self._pending:
            return ()
        return self._give_up()

    def _give_up(self) -> list[Joined]:
        joined = []
        while self._pending:
            key, pending = next(iter(self._pending.items()))
            overdue = self._watermark_s > pending.first_s + self._patience_s
            if not overdue and len(self._pending) <= MAX_PENDING:
                break
            if not overdue:
                self._counters["pending-overflow"] += 1
            del self._pending[key]
            if self._required_parts <= pending.covered:
                joined.append(self._finish(key, pending))
            else:
                self._counters["incomplete"] += 1
                self._remember(key)
        return joined

    def _finish(self, key: str, pending: _Pending) -> Joined:
        self._remember(key)
        parts = [pending.parts[rank] for rank in sorted(pending.parts)]
        time_s = parts[0].time_s
        values = [NAN] * self._width
        for index, tag in self._tags.items():
            values[index] = self._histories[index].join(tag.join, time_s, tag.max_age_s)
        for part in reversed(parts):  # where two sources feed one feature, the first in the file counts
            for index, value in part.values.items():
                values[index] = value
        context = next((part.context for part in parts if part.context is not None), None)
        if context is None:
            slot = self._contexts.join(Join.LAST, time_s, float("inf"))
            context = int(slot) if slot == slot else 0
        return Joined(
            key,
            time_s,
            max(part.arrival_s for part in parts),
            values,
            context,
            next((part.group for part in parts if part.group), ""),
            next((part.split for part in parts if part.split), ""),
        )

    def _remember(self, key: str) -> None:
        self._done[key] = None
        if len(self._done) > MAX_DONE_KEYS:
            self._done.popitem(last=False)
