"""Weighted sums and means of deltas: elementwise, multiply then add, in participant order, in cache-sized blocks.

No BLAS: its kernels differ by CPU, and its threads fight over a busy small box. The same updates give the same bits
whatever their order of arrival.

Eight products are added up in float32, and each such sum to a total in float64. That is two and a half times as fast
as float64 throughout, and unlike float32 throughout its error doesn't grow with the cohort: it is at most
(GROUP + 2) * 2^-24 * sum of |factor * delta|, whatever the number of updates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from aggregator.updates import UpdateSet
from uns_topics.tensors import Vector

BLOCK = 64 * 1024
"""Elements: the fastest of 16 Ki to 128 Ki. Smaller ones pay for calls, larger ones leave the caches. Two threads at
it gained nothing: each call is a few microseconds, after which they queue for the interpreter's lock."""
GROUP = 8
"""Products added up in float32 before they go into the float64 total."""


class FoldError(ValueError):
    """Root of why updates can't be combined."""


class EmptyCohort(FoldError):
    """There is no update to combine."""


class ZeroWeight(FoldError):
    """The weights of all updates add up to nothing (or to something that is not finite)."""


class TooFew(FoldError):
    """Fewer updates than the strategy's rule can be applied to."""


def weighted_mean(updates: UpdateSet, weights: Sequence[float] | None = None) -> Vector:
    """Sum of weight * delta / sum of weights.

    Args: weights: in participant order, none negative; by default each update's `num_examples`.
    Returns: shape (updates.size,), float32. Raises: EmptyCohort, ZeroWeight.
    """
    return weighted_sum(updates, normalised(updates.weights if weights is None else weights))


def weighted_sum(updates: UpdateSet, factors: Sequence[float]) -> Vector:
    """Sum of factor * delta.

    Args: factors: one for each update, in participant order; an update whose factor is 0 is not read.
    Returns: shape (updates.size,), float32; overflow gives infinity, which no version may hold. Raises: EmptyCohort.
    """
    require(updates)
    result = np.empty(updates.size, np.float32)
    space = _Space(min(BLOCK, updates.size))
    for start in range(0, updates.size, BLOCK):
        stop = min(start + BLOCK, updates.size)
        blocks = zip(factors, updates.blocks(start, stop), strict=True)
        result[start:stop] = space.total(((np.float32(f), b) for f, b in blocks if f), stop - start)
    return result


def add_scaled(onto: Vector, values: Vector, factor: float) -> None:
    """`onto` += factor * values, in place, block by block: no further model in memory. Both of one shape (d,)."""
    scale = np.float32(factor)
    for start in range(0, onto.size, BLOCK):
        block = slice(start, start + BLOCK)
        np.add(onto[block], values[block] * scale, out=onto[block])


class _Space:
    """Room for one block's sums, made once: an allocation each would cost more than the sums."""

    def __init__(self, size: int) -> None:
        self._total = np.empty(size, np.float64)
        self._sum = np.empty(size, np.float32)
        self._product = np.empty(size, np.float32)

    def total(self, terms: Iterable[tuple[np.float32, Vector]], size: int) -> np.ndarray:
        """Sum of factor * block. Returns: a view, valid until the next call."""
        total, partial, product = self._total[:size], self._sum[:size], self._product[:size]
        total.fill(0.0)
        pending = 0
        for factor, block in terms:
            if pending == 0:
                np.multiply(block, factor, out=partial)
            else:
                np.multiply(block, factor, out=product)
                np.add(partial, product, out=partial)
            pending += 1
            if pending == GROUP:
                np.add(total, partial, out=total)
                pending = 0
        if pending:
            np.add(total, partial, out=total)
        return total


def require(updates: UpdateSet, least: int = 1) -> None:
    """Raises: EmptyCohort: no update at all. TooFew: fewer than `least`."""
    if not len(updates):
        raise EmptyCohort("no update to combine")
    if len(updates) < least:
        raise TooFew(f"{len(updates)} updates where the strategy needs at least {least}")


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
