"""FedYogi (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2).

v_t = v_{t-1} - (1 - beta_2) * Delta_t^2 * sign(v_{t-1} - Delta_t^2)
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from aggregator.strategies.adaptive import Adaptive, AdaptiveOptions, Block


class FedYogiOptions(AdaptiveOptions):
    """Those of Algorithm 2, and Yogi's own."""

    beta_2: float = Field(default=0.99, ge=0, lt=1, description="how slowly the second moment follows")


class FedYogi(Adaptive):
    """The second moment moves by the square alone, so that a quiet round doesn't make the next step large."""

    def __init__(self, options: FedYogiOptions) -> None:
        super().__init__(options)
        self._beta_2 = options.beta_2

    def second_moment(self, v: Block, square: Block) -> Block:
        """v_t; never negative, because it falls only where it is above the square, by less than the square."""
        return v - (1 - self._beta_2) * square * np.sign(v - square)
