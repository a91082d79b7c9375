"""FedBuff, the server's part (Nguyen et al. 2022, arXiv:2106.06639, Algorithm 1 and section 5).

x <- x + eta_g * 1 / K * sum_k s(tau_k) * delta^k        with s(tau) = 1 / sqrt(1 + tau)

tau_k: versions between the base of an update and the current one; K: updates in the buffer. The buffer is the
round, and `aggregator.buffer` says what lies in it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.fold import require, weighted_sum
from aggregator.strategies.base import Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class FedBuffOptions(FileValue):
    """Every update weighs by its staleness alone, as in the paper."""

    buffer: int = Field(default=10, ge=1, le=10_000, description="K: updates that end a round, late ones among them")
    learning_rate: float = Field(default=1.0, gt=0, le=100, description="eta_g: of the server")


class FedBuff:
    """The mean of deltas that count the less the older their base is."""

    needs: Literal["individual", "sum"] = "individual"
    least = 1

    def __init__(self, options: FedBuffOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """The buffer is the round, so nothing else is remembered."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One buffer. Raises: EmptyCohort."""
        del table
        require(updates)
        scale = self._options.learning_rate / len(updates)
        step = weighted_sum(updates, [scale / math.sqrt(1 + stale) for stale in updates.staleness])
        figures = {"step_norm": l2_norm(step), "mean_staleness": float(np.mean(updates.staleness))}
        return Step(state, step, figures)
