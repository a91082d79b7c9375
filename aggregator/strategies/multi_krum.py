"""Multi-Krum (Blanchard et al. 2017, arXiv:1703.02757, section 4 and Multi-Krum in section 6).

score(k) = sum of squared distances from delta^k to its n - f - 2 nearest others
step = mean of the m deltas with the smallest scores
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.fold import normalised, require, weighted_sum
from aggregator.measures import squared_distances
from aggregator.strategies.base import Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class MultiKrumOptions(FileValue):
    """How many may be byzantine, how many are kept, and how those weigh."""

    weighting: Literal["examples", "uniform"] = Field(
        default="uniform", description="those kept alike, or by the examples that each claims"
    )
    byzantine: int = Field(default=1, ge=0, le=1000, description="f: needs at least 2 f + 3 updates a round")
    keep: int | None = Field(default=None, ge=1, le=10_000, description="m: by default n - f; 1 is Krum itself")


class MultiKrum:
    """Averages the updates that lie closest together and leaves out the others whole."""

    needs: Literal["individual", "sum"] = "individual"

    def __init__(self, options: MultiKrumOptions) -> None:
        self._options = options
        self.least = 2 * options.byzantine + 3

    def init(self, size: int) -> StrategyState:
        """Remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight; TooFew: under 2 f + 3 updates."""
        del table
        require(updates, self.least)
        count, byzantine = len(updates), self._options.byzantine
        apart = squared_distances(updates)
        np.fill_diagonal(apart, np.inf)
        nearest = np.sort(apart, axis=1)[:, : count - byzantine - 2]
        scores = np.zeros(count)
        for column in nearest.T:  # ascending, one after the other: every CPU rounds alike
            np.add(scores, column, out=scores)
        keep = min(self._options.keep or count, count - byzantine)
        kept = set(np.argsort(scores, kind="stable")[:keep].tolist())  # of equal scores, the first participants
        weights = updates.weights if self._options.weighting == "examples" else [1] * count
        step = weighted_sum(updates, normalised([w if i in kept else 0 for i, w in enumerate(weights)]))
        return Step(state, step, {"step_norm": l2_norm(step), "kept": float(keep)})
