"""How much each participant counts, as options that strategies share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aggregator.fold import capped
from aggregator.updates import UpdateSet
from uns_topics.model import FileValue


class Weighting(FileValue):
    """By examples, as the paper of federated averaging has it."""

    weighting: Literal["examples", "uniform"] = Field(
        default="examples", description="n_k as in the paper, or every participant alike"
    )
    max_share: float = Field(default=1.0, gt=0, le=1, description="no participant weighs more than this share")

    def shares(self, updates: UpdateSet) -> tuple[float, ...]:
        """Each participant's share, adding up to 1. Raises: EmptyCohort, ZeroWeight."""
        weights = updates.weights if self.weighting == "examples" else [1] * len(updates)
        return capped(weights, self.max_share)


class RobustWeighting(Weighting):
    """Uniform unless told otherwise: an attacker would simply claim more examples."""

    weighting: Literal["examples", "uniform"] = Field(
        default="uniform", description="every participant alike, or by the examples that each claims"
    )
