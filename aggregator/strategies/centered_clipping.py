"""Centered clipping (Karimireddy, He and Jaggi 2021, arXiv:2012.10333, Algorithm 1, `CClip`).

v_0 = the previous aggregate
v_{l+1} = v_l + sum_k p_k * (delta^k - v_l) * min(1, tau_l / |delta^k - v_l|)

The paper leaves the radius to the user. Here tau_l is the median of the distances |delta^k - v_l|: it follows the
updates as they shrink, and while under half are byzantine it lies between honest distances.
"""

from __future__ import annotations

import math
import statistics
from typing import Literal

import numpy as np
from pydantic import Field

from aggregator.fold import add_scaled, weighted_sum
from aggregator.measures import distances
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.weighting import RobustWeighting
from aggregator.updates import UpdateSet
from uns_topics.sums import l2_norm
from uns_topics.tensors import TensorTable


class CenteredClippingOptions(RobustWeighting):
    """How a participant weighs, and how often the centre is moved."""

    iterations: int = Field(default=1, ge=1, le=20, description="each reads all updates twice")


class CenteredClipping:
    """Averages what lies near the previous aggregate, and takes of the rest only the direction."""

    needs: Literal["individual", "sum"] = "individual"
    least = 1

    def __init__(self, options: CenteredClippingOptions) -> None:
        self._options = options

    def init(self, size: int) -> StrategyState:
        """Centred at no change."""
        return {"reference": np.zeros(size, np.float32)}

    def apply(self, state: StrategyState, updates: UpdateSet, table: TensorTable) -> Step:
        """One round. Raises: EmptyCohort, ZeroWeight."""
        del table
        shares = self._options.shares(updates)
        centre = state["reference"]
        radius, clipped = 0.0, 0
        for _ in range(self._options.iterations):
            away = distances(updates, centre)
            radius = statistics.median(away)
            factors = [p if d <= radius else p * (radius / d) for p, d in zip(shares, away, strict=True)]
            clipped = sum(d > radius for d in away)
            # sum_k f_k * (delta^k - v) = sum_k f_k * delta^k - v * sum_k f_k, which takes no model-sized difference
            moved = weighted_sum(updates, factors)
            add_scaled(moved, centre, max(0.0, 1.0 - math.fsum(factors)))
            centre = moved
        figures = {"step_norm": l2_norm(centre), "radius": radius, "clipped": float(clipped)}
        return Step({"reference": centre}, centre, figures)
