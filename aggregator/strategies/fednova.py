"""FedNova: normalised averaging (Wang et al. 2020, arXiv:2007.07481, equations 6 to 8, for plain local SGD).

tau_k: local steps of participant k; p_k: its share
d_k = delta^k / tau_k;    tau_eff = sum_k p_k * tau_k
x <- x + tau_eff * sum_k p_k * d_k

A participant that took more steps than others no longer pulls the model towards its own optimum. The gate holds tau_k
within the plan's number of steps: claiming one step counts for at most that factor.
"""

from __future__ import annotations

import math
from typing import Literal

from aggregator.fold import FoldError, require, weighted_sum
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import Weighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class NoSteps(FoldError):
    """An update says that no local step was taken, so there is nothing to normalise by."""


class FedNovaOptions(Weighting):
    """How a participant weighs."""


class FedNova:
    """The weighted mean of deltas per local step, times the mean number of steps."""

    needs: Literal["individual", "sum"] = "sum"
    least = 1

    def __init__(self, options: FedNovaOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """Averaging remembers nothing."""
        del size
        return {}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight, NoSteps."""
        del table
        require(updates)
        if min(updates.steps) < 1:
            raise NoSteps(f"{updates.participants[updates.steps.index(min(updates.steps))]} took no local step")
        shares = self._options.shares(updates)
        effective = math.fsum(share * steps for share, steps in zip(shares, updates.steps, strict=True))  # tau_eff
        factors = [share * (effective / steps) for share, steps in zip(shares, updates.steps, strict=True)]
        step = weighted_sum(updates, factors)
        return Step(state, step, {"step_norm": l2_norm(step), "effective_steps": effective})
