"""A mergeable quantile sketch on a grid of bins that a feature's range alone determines: sums of counts, no values.

DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees",
PVLDB 12(12), 2019): a bin is narrow beside the values in it, so the bin that holds a rank gives its value within a
relative error. Here the bins are fixed beforehand and no bin is wider than a share of the range, because a
temperature of 240 degC within 2 % would say nothing. Every participant counts into the same vector of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from uns_topics.contract import Feature
from uns_topics.model import Value
from uns_topics.standardisation import MIN_CELL

ALPHA = 0.02
"""Relative error of a value between the two limits below."""
RANGE_BINS = 256
"""No bin is wider than this part of the range: where that is finer than `ALPHA`, bins are equal."""
ZERO_SHARE = 1 / 4096
"""Part of the range within which values count as zero."""
MAX_BINS = 640
"""No range has more."""
MAX_FILLED = 256
"""Bins of one sketch that are told at most."""
_GAMMA = (1 + ALPHA) / (1 - ALPHA)

Counts = npt.NDArray[np.int64]
"""Rows per bin of a grid, shape (B,)."""


def _growing_edges() -> tuple[float, ...]:
    """Edges of the bins that grow with the value, for a range of 1. Multiplication alone: the same on every CPU."""
    edges = [ZERO_SHARE]
    while edges[-1] * (_GAMMA - 1) < 1 / RANGE_BINS:
        edges.append(edges[-1] * _GAMMA)
    return tuple(edges)


_GROWING = np.array(_growing_edges())


@dataclass(frozen=True, eq=False)
class Grid:
    """The bins of one range.

    Attributes:
        edges: rising, shape (B + 1,); the first and the last one are the range.
        values: what a bin stands for, shape (B,): within `ALPHA` of each of its values, relative to them.
    """

    edges: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def count(self, values: npt.NDArray[np.floating]) -> Counts:
        """Rows per bin; values beyond the range count at its ends, NaN counts nowhere."""
        present = values[~np.isnan(values)].astype(np.float64)
        inner = np.clip(present, self.edges[0], self.edges[-1])
        bins = np.clip(np.searchsorted(self.edges, inner, side="right") - 1, 0, len(self) - 1)
        return np.bincount(bins, minlength=len(self)).astype(np.int64)


@lru_cache(maxsize=4096)
def grid_of_range(minimum: float, maximum: float) -> Grid:
    """The grid of a range. Raises: ValueError: the range is empty, or too wide for a float."""
    span = maximum - minimum
    if not (span > 0 and np.isfinite(span)):
        raise ValueError(f"no grid from {minimum} to {maximum}")
    growing = span * _GROWING
    inner = np.concatenate([-growing, growing])
    edges = np.concatenate(
        [
            [minimum, maximum],
            inner[(inner > minimum) & (inner < maximum)],
            _equal_edges(max(minimum, float(growing[-1])), maximum, span),
            _equal_edges(minimum, min(maximum, -float(growing[-1])), span),
        ]
    )
    edges = np.unique(edges)  # where a float can't tell two edges apart, they are one
    low, high = edges[:-1], edges[1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        harmonic = 2 * low * (high / (low + high))  # the same relative error at both ends
    values = np.where((low <= 0) & (high >= 0), 0.0, harmonic)
    values = np.clip(np.where(np.isfinite(values), values, low), low, high)
    edges.flags.writeable = values.flags.writeable = False
    return Grid(edges, values)


def _equal_edges(start: float, stop: float, span: float) -> npt.NDArray[np.float64]:
    """Edges between equal bins from `start` to `stop`, both left out; none where there is nothing between them."""
    if not start < stop:
        return np.empty(0)
    number = max(1, int(np.ceil((stop - start) / span * RANGE_BINS)))
    return start + (stop - start) * (np.arange(1, number) / number)


def grid_of(feature: Feature) -> Grid:
    """The grid of a feature, by the contract's range."""
    return grid_of_range(feature.minimum, feature.maximum)


def suppress(counts: Counts, minimum: int = MIN_CELL) -> Counts:
    """Move rows until each filled bin holds at least `minimum`; none is lost, so nothing follows from the total.

    Neighbours are taken together from below, and a group's rows go to the bin of its middle row: past no point of the
    range do `minimum` rows or more move, so a quantile moves by fewer than `minimum` ranks.
    Returns: all zeros where there are fewer rows than that.
    """
    told = np.zeros_like(counts)
    groups: list[list[int]] = []
    held = minimum
    for one in np.flatnonzero(counts).tolist():
        if held >= minimum:
            groups.append([])
            held = 0
        groups[-1].append(one)
        held += int(counts[one])
    if held < minimum:
        rest = groups.pop()
        if not groups:
            return told
        groups[-1] += rest
    for group in groups:
        passed = np.cumsum(counts[group])
        middle = int(np.searchsorted(passed, (passed[-1] + 1) // 2))
        told[group[middle]] = passed[-1]
    return told


def quantiles(
    counts: npt.NDArray[np.int64] | npt.NDArray[np.float64], grid: Grid, levels: Sequence[float]
) -> list[float]:
    """Lower quantiles: the values of the bins that hold the ranks `floor(level * (n - 1))`, counted from 0.

    Raises: ValueError: there are no rows.
    """
    passed = np.cumsum(counts)
    if not len(passed) or passed[-1] <= 0:
        raise ValueError("quantiles of no rows")
    ranks = np.floor(np.asarray(levels) * max(0.0, passed[-1] - 1))
    found = np.minimum(np.searchsorted(passed, ranks, side="right"), np.flatnonzero(counts)[-1])
    return [float(value) for value in grid.values[found]]


Step = Annotated[int, Field(ge=1, le=MAX_BINS)]
Rows = Annotated[int, Field(ge=MIN_CELL, le=2**53)]


class Sketch(Value):
    """Rows per filled bin of the feature's grid, each of at least ten rows."""

    steps: tuple[Step, ...] = Field(max_length=MAX_FILLED, description="bins from one filled bin to the next, from -1")
    rows: tuple[Rows, ...] = Field(max_length=MAX_FILLED)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.steps) != len(self.rows):
            raise ValueError(f"{len(self.steps)} steps for {len(self.rows)} bins")
        if sum(self.steps) > MAX_BINS:
            raise ValueError(f"a bin beyond the {MAX_BINS} that a grid can have")
        if sum(self.rows) > 2**53:
            raise ValueError("more rows than can be counted")
        return self

    @classmethod
    def of(cls, counts: Counts, most: int = MAX_FILLED) -> Self | None:
        """What may be told of these counts, in at most so many bins; None where there are too few rows."""
        told = suppress(counts)
        if np.count_nonzero(told) > most:
            told = suppress(counts, max(MIN_CELL, -(-int(counts.sum()) // most)))
        filled = np.flatnonzero(told)
        if not len(filled):
            return None
        steps = np.diff(filled, prepend=-1)
        return cls(steps=tuple(steps.tolist()), rows=tuple(told[filled].tolist()))

    @property
    def n(self) -> int:
        """All rows."""
        return sum(self.rows)

    def fits(self, grid: Grid) -> bool:
        """Whether no bin lies beyond the grid's last one."""
        return sum(self.steps) <= len(grid)

    def counts(self, grid: Grid) -> Counts:
        """Rows per bin, shape (B,). Raises: ValueError: a bin that the grid doesn't have."""
        if not self.fits(grid):
            raise ValueError("a bin that the grid doesn't have")
        counts = np.zeros(len(grid), np.int64)
        counts[np.cumsum(self.steps, dtype=np.int64) - 1] = self.rows
        return counts


def reach(counts: Counts, grid: Grid) -> tuple[float, float]:
    """Minimum and maximum as they may be told: edges of the outermost filled bins.

    Of single rows nothing is told: up to nine rows of each sketch may lie beyond either edge. Raises: ValueError: no
    rows.
    """
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise ValueError("the reach of no rows")
    return float(grid.edges[filled[0]]), float(grid.edges[filled[-1] + 1])


def merge(all_counts: Iterable[Counts]) -> Counts:
    """The sketch of all rows: the sum. Raises: ValueError: of different grids, or of none."""
    parts = list(all_counts)
    if len({part.shape for part in parts}) != 1:
        raise ValueError(f"can't add {len(parts)} sketches of different grids")
    total: Counts = np.sum(parts, axis=0, dtype=np.int64)
    return total
