"""Federated averaging (McMahan et al. 2017, arXiv:1602.05629, Algorithm 1).

w_{t+1} = sum_k n_k / n * w^k_{t+1}    which, with delta^k = w^k_{t+1} - w_t, is
w_{t+1} = w_t + sum_k n_k / n * delta^k
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aggregator.fold import capped, weighted_mean
from aggregator.gate import l2_norm
from aggregator.strategies.base import Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.tensors import TensorTable


class FedAvgOptions(FileValue):
    """How a participant weighs."""

    weighting: Literal["examples", "uniform"] = Field(
        default="examples", description="n_k as in the paper, or every participant alike"
    )
    max_share: float = Field(default=1.0, gt=0, le=1, description="no participant weighs more than this share")


class FedAvg:
    """The weighted mean of the deltas is the step."""

    needs: Literal["individual", "sum"] = "sum"

    def __init__(self, options: FedAvgOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """Averaging remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        by_examples = self._options.weighting == "examples"
        shares = capped(updates.weights if by_examples else [1] * len(updates), self._options.max_share)
        step = weighted_mean(updates, shares)  # sum_k n_k / n * delta^k
        return Step(state, step, {"step_norm": l2_norm(step), "largest_share": max(shares)})
