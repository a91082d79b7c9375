"""SCAFFOLD, the server's part (Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1).

x <- x + eta_g * 1 / |S| * sum_{k in S} delta^k
c <- c + |S| / N * 1 / |S| * sum_{k in S} delta_c^k        with delta_c^k = c_k^+ - c_k from update group `control`

Participants correct each local step by c - c_k: c goes down with each version, c_k is kept in the plant, and
`edge/control.py` is their part. Option II, which makes c_k^+ of the delta, takes plain SGD.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.fold import FoldError, add_scaled, require, weighted_mean
from aggregator.strategies.base import CONTROL, Step, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue
from uns_topics.plan import Training
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class NoControl(FoldError):
    """The updates carry no control variates."""


class ScaffoldOptions(FileValue):
    """Every participant weighs the same, as in the paper."""

    population: int = Field(default=10, ge=1, le=100_000, description="N: participants of the federation")
    learning_rate: float = Field(default=1.0, gt=0, le=100, description="eta_g: of the server")


class Scaffold:
    """The mean of the deltas steps the model, the mean of the control deltas steps the server's control variate."""

    needs: Literal["individual", "sum"] = "sum"
    least = 1

    def __init__(self, options: ScaffoldOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """c = 0, as each c_k."""
        return {CONTROL: np.zeros(size, np.float32)}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, NoControl."""
        del table
        require(updates)
        controls = updates.controls
        if controls is None or controls.participants != updates.participants or controls.size != updates.size:
            raise NoControl("SCAFFOLD needs group control, as large as group delta, of every participant")
        uniform = [1] * len(updates)
        step = weighted_mean(updates, uniform)
        np.multiply(step, np.float32(self._options.learning_rate), out=step)
        control = weighted_mean(controls, uniform)
        sampled = min(1.0, len(updates) / self._options.population)  # |S| / N
        np.multiply(control, np.float32(sampled), out=control)
        add_scaled(control, state[CONTROL], 1.0)
        return Step({CONTROL: control}, step, {"step_norm": l2_norm(step), "control_norm": l2_norm(control)})


def plain_training(options: ScaffoldOptions, training: Training) -> Training:
    """SGD without momentum, whose steps add up to K * lr * the mean gradient. Raises: ValueError: anything else."""
    del options
    if training.optimizer != "sgd":
        raise ValueError("its control variates are means of plain gradients: set training.optimizer: sgd")
    if "momentum" in training.model_fields_set and training.momentum:
        raise ValueError(f"training.momentum is {training.momentum:g} and must be 0: leave it out")
    return training.model_copy(update={"momentum": 0.0})
