"""Figures with intervals, per-row losses and score histograms. Pure numpy; labels of classes are 1 = positive, else 0.

A figure says what it is worth: its interval comes from a bootstrap over whole groups (rows of one engine or batch are
not independent), and it is undecided where too few rows or groups speak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uns_topics.contract import Metric
from uns_topics.reports import HISTOGRAM_BINS
from uns_topics.standardisation import MIN_CELL

RESAMPLES = 200
INTERVAL = (2.5, 97.5)
"""Percentiles of the resamples: a 95 % interval."""
CLIP = 1e-7
"""Scores are clipped to [CLIP, 1 - CLIP] before the log loss."""

WORST = 1e12
"""Squared error beyond which nothing gets worse: its sums must fit."""

Numbers = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure on n rows with its 95 % interval; NaN where it can't be computed.

    Attributes: decided: at least ten rows (of each class), and ten groups where rows come in groups.
    """

    value: float
    low: float
    high: float
    n: int
    decided: bool


def average_precision(labels: Numbers, scores: Numbers, weights: Floats | None = None) -> float:
    """Area under the precision-recall steps: sum of (R_n - R_(n-1)) P_n over distinct scores; NaN without positives.

    Args: labels: shape (n,), 1 = positive; weights: how often each row counts.
    """
    return _Ranking(labels, scores).average_precision(weights)


def roc_auc(labels: Numbers, scores: Numbers, weights: Floats | None = None) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where a class is absent."""
    return _Ranking(labels, scores).roc_auc(weights)


def rmse(labels: Numbers, outputs: Numbers, weights: Floats | None = None) -> float:
    """Root mean squared error; NaN without rows."""
    return _root_mean(_squared_errors(labels, outputs), weights)


def row_losses(metric: Metric, labels: Numbers, outputs: Numbers) -> Floats:
    """Per-row loss, unweighted: log loss for classes, squared error for numbers. Shape (n,), finite.

    An output that is no number counts as `WORST`, or as surely wrong: a model that gives one must not win.
    """
    known = np.isfinite(outputs)
    if metric is Metric.RMSE:
        return np.where(known, np.minimum(_squared_errors(labels, np.where(known, outputs, 0)), WORST), WORST)
    scores = np.clip(np.where(known, outputs, 0.5).astype(np.float64), CLIP, 1 - CLIP)
    positive = labels == 1
    losses = -np.log(np.where(positive, scores, 1 - scores))
    return np.asarray(np.where(known, losses, -np.log(CLIP)), np.float64)


def figure(
    metric: Metric, labels: Numbers, outputs: Numbers, groups: npt.NDArray[np.int64] | None = None, seed: int = 0
) -> Figure:
    """One model's figure; NaN and undecided where an output is no number.

    Args: groups: shape (n,), rows of one group are drawn together; a negative group is a row of its own.
    """
    if not np.isfinite(outputs).all():
        return _undecided(len(labels))
    measure = _measure(metric, labels, outputs)
    return _with_interval(measure, metric, labels, groups, seed)


def paired_difference(
    metric: Metric,
    labels: Numbers,
    first: Numbers,
    second: Numbers,
    groups: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
    *,
    interval: tuple[float, float] = INTERVAL,
    resamples: int = RESAMPLES,
) -> Figure:
    """Figure of the first model minus that of the second, both measured on the same rows of each resample."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return _undecided(len(labels))
    one, other = _measure(metric, labels, first), _measure(metric, labels, second)
    return _with_interval(
        lambda weights: one(weights) - other(weights), metric, labels, groups, seed, interval, resamples
    )


def score_histograms(labels: Numbers, scores: Numbers, classes: int = 2) -> dict[int, tuple[tuple[int, int], ...]]:
    """Per class, (upper bin, rows): equal bins of [0, 1], neighbours merged until each holds ten rows.

    The last bin ends at `HISTOGRAM_BINS`. A class with fewer than ten rows is left out, so that nobody is singled out.
    """
    found = {}
    for index in range(classes):
        chosen = scores[labels == index]
        if len(chosen) >= MIN_CELL:
            found[index] = _merged(chosen)
    return found


def _merged(scores: Numbers) -> tuple[tuple[int, int], ...]:
    bins = np.clip((scores.astype(np.float64) * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
    merged: list[tuple[int, int]] = []
    rows = 0
    for index, count in enumerate(np.bincount(bins, minlength=HISTOGRAM_BINS).tolist()):
        rows += count
        if rows >= MIN_CELL:
            merged.append((index + 1, rows))
            rows = 0
    _, last = merged.pop()  # what is left over at the top joins the last bin
    return (*merged, (HISTOGRAM_BINS, last + rows))


class _Ranking:
    """Labels by falling score, sorted once; every resample is another weighting of the same order."""

    def __init__(self, labels: Numbers, scores: Numbers) -> None:
        self._order = np.argsort(-scores.astype(np.float64), kind="stable")
        self._positive = (labels[self._order] == 1).astype(np.float64)
        ordered = scores[self._order]
        self._last_of_tie = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)

    def _counts(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """True and false positives at each distinct threshold, from the highest."""
        weight = np.ones(len(self._order)) if weights is None else weights[self._order]
        true = np.cumsum(weight * self._positive)[self._last_of_tie]
        false = np.cumsum(weight * (1 - self._positive))[self._last_of_tie]
        return true, false

    def average_precision(self, weights: Floats | None = None) -> float:
        true, false = self._counts(weights)
        if len(true) == 0 or true[-1] <= 0:
            return float("nan")
        found = np.maximum(true + false, 1e-300)  # nothing above a threshold adds no recall either
        return float(np.sum(np.diff(true, prepend=0.0) / true[-1] * (true / found)))

    def roc_auc(self, weights: Floats | None = None) -> float:
        true, false = self._counts(weights)
        if len(true) == 0 or true[-1] <= 0 or false[-1] <= 0:
            return float("nan")
        before = np.concatenate(([0.0], true[:-1]))
        area = np.sum(np.diff(false, prepend=0.0) * (true + before) / 2)
        return float(area / (true[-1] * false[-1]))


def _squared_errors(labels: Numbers, outputs: Numbers) -> Floats:
    return np.square(outputs.astype(np.float64) - labels.astype(np.float64))


def _root_mean(squares: Floats, weights: Floats | None) -> float:
    if weights is None:
        return float(np.sqrt(squares.mean())) if len(squares) else float("nan")
    total = weights.sum()
    return float(np.sqrt((weights * squares).sum() / total)) if total > 0 else float("nan")


def _measure(metric: Metric, labels: Numbers, outputs: Numbers) -> Callable[[Floats | None], float]:
    """The metric of these rows as a function of how often each row counts."""
    if metric is Metric.RMSE:
        squares = _squared_errors(labels, outputs)
        return lambda weights: _root_mean(squares, weights)
    ranking = _Ranking(labels, outputs)
    return ranking.average_precision if metric is Metric.AVERAGE_PRECISION else ranking.roc_auc


def _undecided(n: int) -> Figure:
    return Figure(float("nan"), float("nan"), float("nan"), n, decided=False)


def _with_interval(
    measure: Callable[[Floats | None], float],
    metric: Metric,
    labels: Numbers,
    groups: npt.NDArray[np.int64] | None,
    seed: int,
    interval: tuple[float, float] = INTERVAL,
    resamples: int = RESAMPLES,
) -> Figure:
    n = len(labels)
    clusters, count = _clusters(n, groups)
    value = measure(None)
    positives = n if metric is Metric.RMSE else int((labels == 1).sum())
    decided = min(positives, n if metric is Metric.RMSE else n - positives) >= MIN_CELL and count >= MIN_CELL
    if not decided or not np.isfinite(value):
        return Figure(value, float("nan"), float("nan"), n, decided=False)
    random = np.random.default_rng(seed)
    drawn = np.array(
        [
            measure(np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)[clusters])
            for _ in range(resamples)
        ]
    )
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < resamples // 2:  # the positives lie in so few groups that most resamples have none
        return Figure(value, float("nan"), float("nan"), n, decided=False)
    low, high = np.percentile(drawn, interval)
    return Figure(value, float(low), float(high), n, decided=True)


def _clusters(n: int, groups: npt.NDArray[np.int64] | None) -> tuple[npt.NDArray[np.int64], int]:
    """Cluster of each row, counted from 0, and their number."""
    if groups is None:
        return np.arange(n), n
    own = np.where(groups < 0, groups.max(initial=0) + 1 + np.arange(n), groups)
    names, clusters = np.unique(own, return_inverse=True)
    return clusters, len(names)
