"""Coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, Definition 1): robust while under half are byzantine."""

from __future__ import annotations

from typing import Literal

import numpy as np

from aggregator.columns import by_sorted_columns
from aggregator.fold import require
from aggregator.strategies.base import Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable, Vector


class MedianOptions(FileValue):
    """None: every participant has one vote on each element."""


class Median:
    """Each element of the step is the median of the participants' values (the mean of the middle two)."""

    needs: Literal["individual", "sum"] = "individual"
    least = 1

    def __init__(self, options: MedianOptions) -> None:
        del options

    def init(self, size: int) -> StrategyState:
        """Remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort."""
        del table
        require(updates)
        step = by_sorted_columns(updates, _middle)
        return Step(state, step, {"step_norm": l2_norm(step)})


def _middle(columns: Vector) -> np.ndarray:
    count = columns.shape[1]
    upper = columns[:, count // 2]
    if count % 2:
        return upper
    return (columns[:, count // 2 - 1].astype(np.float64) + upper) / 2
