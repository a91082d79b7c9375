"""Coordinate-wise trimmed mean (Yin et al. 2018, arXiv:1803.01498, Definition 2)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.columns import by_sorted_columns
from aggregator.fold import require
from aggregator.strategies.base import Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable, Vector

_ROUNDING = 1e-9
"""0.29 * 100 is a little less than 29."""


class TrimmedMeanOptions(FileValue):
    """Every participant has one vote on each element."""

    beta: float = Field(default=0.2, gt=0, lt=0.5, description="share cut off at either end of each element's values")


class TrimmedMean:
    """Each element of the step is the mean of what is left of the participants' values without the extremes."""

    needs: Literal["individual", "sum"] = "individual"

    def __init__(self, options: TrimmedMeanOptions) -> None:
        self._beta = options.beta
        self.least = math.ceil(1 / options.beta - _ROUNDING)
        """With fewer nothing would be cut off, and the rule would be a plain mean that only looks robust."""

    def init(self, size: int) -> StrategyState:
        """Remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort; TooFew: nothing could be cut off."""
        del table
        require(updates, self.least)
        cut = math.floor(self._beta * len(updates) + _ROUNDING)

        def mean_of_the_rest(columns: Vector) -> np.ndarray:
            total = np.zeros(len(columns))
            for index in range(cut, len(updates) - cut):  # in ascending order, so that every CPU rounds alike
                np.add(total, columns[:, index], out=total)
            return total / (len(updates) - 2 * cut)

        step = by_sorted_columns(updates, mean_of_the_rest)
        return Step(state, step, {"step_norm": l2_norm(step), "cut_per_end": float(cut)})
