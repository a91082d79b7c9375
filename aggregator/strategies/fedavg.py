"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1).

w_{t+1} = sum_k n_k / n * w^k_{t+1}    which, with delta^k = w^k_{t+1} - w_t, is
w_{t+1} = w_t + sum_k n_k / n * delta^k
"""

from __future__ import annotations

from typing import Literal

from aggregator.fold import weighted_mean
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import Weighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class FedAvgOptions(Weighting):
    """How a participant weighs."""


class FedAvg:
    """The weighted mean of the deltas is the step."""

    needs: Literal["individual", "sum"] = "sum"
    least = 1

    def __init__(self, options: Weighting) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """Averaging remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        shares = self._options.shares(updates)
        step = weighted_mean(updates, shares)  # sum_k n_k / n * delta^k
        return Step(state, step, {"step_norm": l2_norm(step), "largest_share": max(shares)})
