"""SCAFFOLD, a participant's part (Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1, option II). Pure.

y <- y - lr * (g(y) - c_k + c)                          K times, from y = x
c_k^+ = c_k - c + (x - y) / (K * lr)                    with delta = y - x

c comes down with the version x. c_k starts at 0, never leaves the plant and is the mean of its gradients on the way
from x. All are of shape (elements of role weight,), float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from uns_topics.template import Lineage
from uns_topics.tensors import Vector


@dataclass(frozen=True)
class OwnControl:
    """c_k after the last accepted update, and before it: its version may be refused, and then it never counted.

    Attributes: version: the base of that update's round.
    """

    before: Vector = field(repr=False)
    after: Vector = field(repr=False)
    version: int
    round_number: int


def at(own: OwnControl | None, version: int, lineage: Lineage, elements: int) -> Vector:
    """c_k as the server's c of this version counts it.

    An accepted update's round came to nothing where its base is still the base, or where another round made the next
    version from it. Further on the way between is unknown here, and the update's version counts as promoted.
    """
    if own is None or own.version > version:  # an aggregator that lost its store counts from 0 again, c too
        return np.zeros(elements, np.float32)
    is_skipped = lineage.parent == own.version and lineage.round_number != own.round_number
    return own.before if version == own.version or is_skipped else own.after


@dataclass(frozen=True)
class Controls:
    """What a round is trained with. Attributes: server: c of its base; own: c_k."""

    server: Vector = field(repr=False)
    own: Vector = field(repr=False)

    @property
    def correction(self) -> Vector:
        """c - c_k: what is added to each gradient."""
        return np.subtract(self.server, self.own)

    def change(self, counted: Vector, delta: Vector, steps: int, learning_rate: float) -> Vector:
        """c_k^+ less the c_k that the server counts: what leaves. Not finite where that overflows.

        Args: counted: c_k as it is now: another one than it was trained with, where a receipt came meanwhile.
        """
        scale = np.float32(1 / (steps * learning_rate))
        with np.errstate(over="ignore", invalid="ignore"):
            after = np.subtract(np.subtract(self.own, self.server), np.multiply(delta, scale))  # c_k^+
            return np.subtract(after, counted)
