"""The weighted mean of deltas: elementwise, multiply then add, in participant order, in blocks that fit the cache.

No BLAS: its kernels differ by CPU, and its threads fight over a busy small box. The same updates give the same bits
whatever their order of arrival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aggregator.updates import UpdateSet
from uns_topics.tensors import Vector

BLOCK = 16 * 1024
"""Elements: accumulator and product in float64 take 256 KiB together."""


class FoldError(ValueError):
    """Root of why updates can't be combined."""


class EmptyCohort(FoldError):
    """There is no update to combine."""


class ZeroWeight(FoldError):
    """The weights of all updates add up to nothing (or to something that is not finite)."""


def weighted_mean(updates: UpdateSet, weights: Sequence[float] | None = None) -> Vector:
    """Sum of weight * delta / sum of weights.

    Args: weights: in participant order, none negative; by default each update's `num_examples`.
    Returns: shape (updates.size,), float32; accumulated in float64 and rounded once.
    Raises: EmptyCohort, ZeroWeight.
    """
    shares = normalised(updates.weights if weights is None else weights)
    mean = np.empty(updates.size, np.float32)
    for start in range(0, updates.size, BLOCK):
        stop = min(start + BLOCK, updates.size)
        total = np.zeros(stop - start, np.float64)
        product = np.empty(stop - start, np.float64)
        for share, block in zip(shares, updates.blocks(start, stop), strict=True):
            np.multiply(block, share, out=product, dtype=np.float64)  # float32 blocks would round here
            np.add(total, product, out=total)
        mean[start:stop] = total
    return mean


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights as shares that add up to 1. Raises: EmptyCohort, ZeroWeight; FoldError: a negative weight."""
    if not weights:
        raise EmptyCohort("no update to combine")
    if any(weight < 0 for weight in weights):
        raise FoldError("a weight is negative")
    total = math.fsum(weights)
    if not 0 < total < math.inf:
        raise ZeroWeight(f"the weights of {len(weights)} updates add up to {total}")
    return tuple(weight / total for weight in weights)


def capped(weights: Sequence[float], max_share: float) -> tuple[float, ...]:
    """Shares of which none is above `max_share`; what is cut off goes to the others in proportion.

    Where too few share for that (n * max_share <= 1), all weigh the same.
    Raises: EmptyCohort, ZeroWeight, FoldError.
    """
    shares = normalised(weights)
    if max_share * len(shares) <= 1:
        return tuple(1 / len(shares) for _ in shares)
    full: set[int] = set()
    while over := {i for i, s in enumerate(shares) if i not in full and s > max_share}:
        full |= over
        free = math.fsum(weights[i] for i in range(len(shares)) if i not in full)
        if free <= 0:  # everyone below the cap weighs nothing: the rest is theirs to share alike
            rest = (1 - max_share * len(full)) / max(1, len(shares) - len(full))
            return tuple(max_share if i in full else rest for i in range(len(shares)))
        scale = (1 - max_share * len(full)) / free
        shares = tuple(max_share if i in full else weights[i] * scale for i in range(len(shares)))
    return shares
