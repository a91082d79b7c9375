"""The threshold that a site's rule asks for, fitted on samples that no model was trained on. Pure numpy.

The cost rule takes the cut with the least cost on those samples (C. Elkan, "The foundations of cost-sensitive
learning", 2001, has the theory; for calibrated scores the cut comes near `false_alarm / (false_alarm + miss)`). The
rate rule counts alarms that come on, with their hysteresis, as an operator would. An output at the threshold alarms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.alarm import Trip, activations, course
from edge.rules import AboveRule, AlarmRule, BelowRule, CostRule, QuantileRule, RateRule

Floats = npt.NDArray[np.float64]

MOST_ON = 0.5
"""Share of the samples that the rate rule's alarm may be on for."""
CANDIDATES = 200
"""Cuts that the rate rule tries, denser where alarms are few."""


@dataclass(frozen=True)
class Rows:
    """Samples to fit on, all of shape (n,).

    Attributes:
        outputs: as the leaf will show them. positive: meaningless where there are no classes.
        times: event time in seconds. instances: number of the instance.
    """

    outputs: Floats
    positive: npt.NDArray[np.bool_]
    times: Floats
    instances: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outputs)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        """Some of them."""
        return Rows(self.outputs[chosen], self.positive[chosen], self.times[chosen], self.instances[chosen])


def trip_at(rule: AlarmRule, threshold: float) -> Trip:
    """The rule's alarm at a threshold."""
    return Trip(threshold, rule.above, rule.hysteresis, rule.clear_samples)


def fit(rule: AlarmRule, rows: Rows) -> float | None:
    """The threshold; None where the rows say nothing about it."""
    match rule:
        case BelowRule() | AboveRule():
            return rule.value
        case _ if not len(rows) or not np.isfinite(rows.outputs).all():
            return None
        case CostRule():
            return _by_cost(rule, rows) if rows.positive.any() else None
        case QuantileRule():
            return _cut(_falling(rows.outputs), int(rule.share * len(rows)))
        case RateRule():
            return _by_rate(rule, rows)


def cost(rule: CostRule, outputs: Floats, positive: npt.NDArray[np.bool_], threshold: float) -> float:
    """What misses and false alarms come to."""
    flagged = outputs >= threshold
    return rule.miss * int((positive & ~flagged).sum()) + rule.false_alarm * int((~positive & flagged).sum())


def _by_cost(rule: CostRule, rows: Rows) -> float:
    """Of cuts that cost the same, the one with the fewest alarms."""
    order = np.argsort(-rows.outputs, kind="stable")
    falling, positive = rows.outputs[order], rows.positive[order]
    hits = np.concatenate(([0], np.cumsum(positive)))
    alarms = np.arange(len(falling) + 1)
    costs = rule.miss * (hits[-1] - hits) + rule.false_alarm * (alarms - hits)
    allowed = np.ones(len(costs), bool)
    allowed[1:-1] = falling[1:] != falling[:-1]  # a cut can't part what is equal
    return _cut(falling, int(np.flatnonzero(allowed)[np.argmin(costs[allowed])]))


def _by_rate(rule: RateRule, rows: Rows) -> float:
    """From the strictest cut on, as far as no window of a shift's length holds too many alarms."""
    falling, shift_s = _falling(rows.outputs), rule.shift_hours * 3600.0
    runs = []
    for instance in np.unique(rows.instances):
        of = np.flatnonzero(rows.instances == instance)
        of = of[np.argsort(rows.times[of], kind="stable")]
        runs.append((rows.outputs[of], rows.times[of]))
    found = _cut(falling, 0)
    for count in _ranks(len(falling)):
        threshold = _cut(falling, count)
        trip = trip_at(rule, threshold)
        if any(_too_many(trip, outputs, times, rule.at_most, shift_s) for outputs, times in runs):
            break
        found = threshold
    return found


def _too_many(trip: Trip, outputs: Floats, times: Floats, at_most: int, shift_s: float) -> bool:
    """Whether any window of a shift's length holds more alarms; a part shorter than a shift may have its share.

    An alarm that is hardly ever off comes on seldom, too, and says nothing.
    """
    active = course(trip, outputs)
    if active.mean() > MOST_ON:
        return True
    span = float(times[-1] - times[0])
    most = at_most if span >= shift_s else int(at_most * span / shift_s)
    on = times[activations(active)]
    return len(on) > most and bool((on[most:] - on[: len(on) - most] < shift_s).any())


def _ranks(n: int) -> Iterator[int]:
    """How many samples to flag, rising, at most `CANDIDATES` of them."""
    if n <= CANDIDATES:
        yield from range(1, n + 1)
    else:
        yield from np.unique(np.geomspace(1, n, CANDIDATES).astype(int)).tolist()


def _falling(outputs: Floats) -> Floats:
    return np.sort(outputs)[::-1]


def _cut(falling: Floats, count: int) -> float:
    """A threshold that flags the first `count` at most: ties at the cut stay below it."""
    while 0 < count < len(falling) and falling[count - 1] == falling[count]:
        count -= 1
    if count == 0:
        top, spread = float(falling[0]), float(falling[0] - falling[-1])
        above = top + max(1e-3, 0.05 * spread)
        return _between(top, min(above, 1.0) if top < 1.0 else above)
    low = float(falling[count]) if count < len(falling) else float("-inf")
    return _between(low, float(falling[count - 1]))


def _between(low: float, high: float) -> float:
    """A number in (low, high], near the middle, with as few digits as the leaf shows where that is possible."""
    if low == float("-inf"):
        return high
    middle = low + (high - low) / 2
    short = float(f"{middle:.6g}")
    return short if low < short <= high else middle if low < middle else high
