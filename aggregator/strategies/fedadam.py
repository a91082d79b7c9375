"""FedAdam (Reddi et al. 2021, arXiv:2003.00295, Algorithm 2): v_t = beta_2 * v_{t-1} + (1 - beta_2) * Delta_t^2."""

from __future__ import annotations

import math

from pydantic import Field

from aggregator.strategies.adaptive import Adaptive, AdaptiveOptions, Block


class FedAdamOptions(AdaptiveOptions):
    """Those of Algorithm 2, and Adam's own."""

    beta_2: float = Field(default=0.99, ge=0, lt=1, description="how much of the second moment is kept")
    bias_correction: bool = Field(
        default=False, description="Kingma and Ba's correction of the first rounds, which the paper leaves out"
    )


class FedAdam(Adaptive):
    """The second moment forgets at a fixed rate."""

    def __init__(self, options: FedAdamOptions) -> None:
        super().__init__(options)
        self._beta_2 = options.beta_2
        self._corrects = options.bias_correction

    def second_moment(self, v: Block, square: Block) -> Block:
        """v_t."""
        return self._beta_2 * v + (1 - self._beta_2) * square

    def correction(self, rounds: int) -> float:
        """sqrt(1 - beta_2^t) / (1 - beta_1^t) (Kingma and Ba 2015, arXiv:1412.6980, end of section 2)."""
        if not self._corrects:
            return 1.0
        return math.sqrt(1 - self._beta_2**rounds) / (1 - self._options.beta_1**rounds)
