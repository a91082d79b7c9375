"""Adaptive server optimisers (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2), of which three choose v.

Delta_t = sum_k n_k / n * delta^k
m_t = beta_1 * m_{t-1} + (1 - beta_1) * Delta_t
v_t = (Adagrad, Yogi or Adam)
x_{t+1} = x_t + eta * m_t / (sqrt(v_t) + tau)         with v_{-1} = tau^2
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from aggregator.fold import BLOCK, weighted_mean
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import Weighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable

Block = npt.NDArray[np.float64]


class AdaptiveOptions(Weighting):
    """What the three have in common. A step's elements are of the size of `learning_rate`, whatever the deltas'."""

    learning_rate: float = Field(default=0.01, gt=0, le=10, description="eta: of the server")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="how much of the first moment is kept")
    tau: float = Field(default=1e-3, gt=0, le=1, description="degree of adaptivity: the larger, the nearer to FedAvgM")


class Adaptive(ABC):
    """Algorithm 2 with `second_moment` left open. State: both moments in float32, worked on in float64."""

    needs: Literal["individual", "sum"] = "sum"
    least = 1

    def __init__(self, options: AdaptiveOptions) -> None:
        self._options = options

    @abstractmethod
    def second_moment(self, v: Block, square: Block) -> Block:
        """v_t. Args: v: v_{t-1}; square: Delta_t squared, of the same shape."""

    def correction(self, rounds: int) -> float:
        """What eta is multiplied by in the `rounds`-th round, counted from 1. The paper has none."""
        del rounds
        return 1.0

    def init(self, size: int) -> StrategyState:
        """m = 0, v = tau^2."""
        return {
            "first_moment": np.zeros(size, np.float32),
            "second_moment": np.full(size, self._options.tau**2, np.float32),
            "rounds": np.zeros((), np.int64),
        }

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        options = self._options
        step = weighted_mean(updates, options.shares(updates))  # Delta_t, overwritten block by block
        mean_norm = l2_norm(step)
        rounds = int(state["rounds"]) + 1
        rate = options.learning_rate * self.correction(rounds)
        first, second = np.empty_like(step), np.empty_like(step)
        for start in range(0, step.size, BLOCK):
            block = slice(start, min(start + BLOCK, step.size))
            delta = step[block].astype(np.float64)
            m = options.beta_1 * state["first_moment"][block].astype(np.float64) + (1 - options.beta_1) * delta
            v = self.second_moment(state["second_moment"][block].astype(np.float64), np.square(delta))
            first[block], second[block] = m, v
            step[block] = rate * m / (np.sqrt(v) + options.tau)
        new: StrategyState = {"first_moment": first, "second_moment": second, "rounds": np.array(rounds, np.int64)}
        return Step(new, step, {"mean_norm": mean_norm, "step_norm": l2_norm(step)})
