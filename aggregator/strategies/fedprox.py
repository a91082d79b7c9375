"""FedProx (Li et al. 2020, arXiv:1812.06127, Algorithm 2).

Each participant minimises F_k(w) + mu / 2 * |w - w_t|^2; the server averages as FedAvg does. Choosing it by name sets
the plan's `training.proximal_mu`, which is all that there is to it.
"""

from __future__ import annotations

from pydantic import Field

from aggregator.strategies.fedavg import FedAvg
from aggregator.strategies.weighting import Weighting
from uns_topics.plan import Training


class FedProxOptions(Weighting):
    """How a participant weighs, and how hard it is held."""

    mu: float = Field(default=0.01, gt=0, le=1000, description="the proximal term's weight in the local objective")


class FedProx(FedAvg):
    """The server's part is the weighted mean."""


def proximal_training(options: FedProxOptions, training: Training) -> Training:
    """The local objective that goes with it. Raises: ValueError: the configuration sets another mu itself."""
    if training.proximal_mu not in (0.0, options.mu):
        raise ValueError(
            f"training.proximal_mu is {training.proximal_mu:g} and strategy.options.mu is {options.mu:g}: "
            "leave the former out"
        )
    return training.model_copy(update={"proximal_mu": options.mu})
