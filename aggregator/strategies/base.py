"""What a strategy is: a value with `init` and `apply`, its state passed in and returned, never hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from aggregator.updates import UpdateSet
from uns_topics.tensors import TensorTable, Vector

StrategyState = Mapping[str, np.ndarray]
"""Named arrays: stored per version, so that refusing a version restores the state before it."""


@dataclass(frozen=True)
class Step:
    """What a strategy makes of a round: its next state, the step onto the base, and figures for people.

    Attributes: step: shape (updates.size,), float32: new weights = base weights + step.
    """

    state: StrategyState
    step: Vector
    diagnostics: Mapping[str, float] = field(default_factory=dict)


CONTROL = "control"
"""Name in a state of the control variate that goes down with each version, where `Plan.control` says so."""


class Strategy(Protocol):
    """Combines the `weight` deltas of a round (delta = local - global)."""

    @property
    def needs(self) -> Literal["individual", "sum"]:
        """Whether single updates must be seen, or their weighted sum is enough (which masking requires)."""

    @property
    def least(self) -> int:
        """Fewest updates that the rule can be applied to; the plan's quorum must not be below it."""

    def init(self, size: int) -> StrategyState:
        """The state before the first round. Args: size: elements of all `weight` tensors."""

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Inputs stay untouched. Raises: FoldError: nothing to combine, or too little for this rule."""
