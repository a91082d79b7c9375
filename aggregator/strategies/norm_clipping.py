"""Averaging of deltas clipped to their median norm (Sun et al. 2019, arXiv:1911.07963, section 4, norm bounding).

step = sum_k p_k * delta^k * min(1, M / |delta^k|)        with M = the median of |delta^k|

The paper fixes M in advance; the median adapts it to the round, and while under half are byzantine it lies between
honest norms.
"""

from __future__ import annotations

import statistics
from typing import Literal

from aggregator.fold import weighted_sum
from aggregator.measures import norms
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import RobustWeighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class NormClippingOptions(RobustWeighting):
    """How a participant weighs."""


class NormClipping:
    """No participant moves the model further than the median one."""

    needs: Literal["individual", "sum"] = "individual"
    least = 1

    def __init__(self, options: NormClippingOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """Remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        shares = self._options.shares(updates)
        lengths = norms(updates)
        bound = statistics.median(lengths)
        factors = [p if length <= bound else p * (bound / length) for p, length in zip(shares, lengths, strict=True)]
        step = weighted_sum(updates, factors)
        clipped = float(sum(length > bound for length in lengths))
        return Step(state, step, {"step_norm": l2_norm(step), "bound": bound, "clipped": clipped})
