"""FedAdagrad (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2): v_t = v_{t-1} + Delta_t^2."""

from __future__ import annotations

from pydantic import Field

from aggregator.strategies.adaptive import Adaptive, AdaptiveOptions, Block


class FedAdagradOptions(AdaptiveOptions):
    """Those of Algorithm 2; without momentum, as in the paper's experiments."""

    beta_1: float = Field(default=0.0, ge=0, lt=1, description="how much of the first moment is kept")


class FedAdagrad(Adaptive):
    """The second moment only grows, and so steps only shrink."""

    def second_moment(self, v: Block, square: Block) -> Block:
        """v_t."""
        return v + square
