"""FedAvg with server momentum (Hsu et al. 2019, arXiv:1909.06335, section 4.3).

v <- beta * v + sum_k n_k / n * delta^k
w <- w + learning_rate * v        (the paper's delta has the opposite sign, and so its step)
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.fold import add_scaled, weighted_mean
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import Weighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class FedAvgMOptions(Weighting):
    """Momentum 0.9 makes a steady step ten times the mean: lower the learning rate where that is too much."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="beta: how much of the last step goes on")
    learning_rate: float = Field(default=1.0, gt=0, le=100, description="of the server")


class FedAvgM:
    """Heavy-ball momentum over the weighted means."""

    needs: Literal["individual", "sum"] = "sum"
    least = 1

    def __init__(self, options: FedAvgMOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """At rest."""
        return {"velocity": np.zeros(size, np.float32)}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        velocity = weighted_mean(updates, self._options.shares(updates))
        mean_norm = l2_norm(velocity)
        add_scaled(velocity, state["velocity"], self._options.momentum)
        step = velocity * np.float32(self._options.learning_rate)
        return Step({"velocity": velocity}, step, {"mean_norm": mean_norm, "step_norm": l2_norm(step)})
