"""Lengths and distances of deltas, in float64 by elementwise steps alone, so that every CPU finds the same.

BLAS adds up in an order that depends on the CPU, and `sum` promises none; here each block is folded in halves.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aggregator.updates import UpdateSet
from uns_topics.tensors import Vector

_BLOCK = 16 * 1024


def l2_norm(values: Vector) -> float:
    """Euclidean norm. Args: values: shape (d,)."""
    return math.sqrt(sum(_sum_of_squares(values[start : start + _BLOCK]) for start in range(0, values.size, _BLOCK)))


def norms(updates: UpdateSet) -> tuple[float, ...]:
    """The Euclidean norm of each delta, in participant order."""
    return distances(updates, None)


def distances(updates: UpdateSet, reference: Vector | None) -> tuple[float, ...]:
    """How far each delta is from `reference`, shape (updates.size,); None stands for the origin."""
    totals = [0.0] * len(updates)
    for start in range(0, updates.size, _BLOCK):
        stop = min(start + _BLOCK, updates.size)
        for index, block in enumerate(updates.blocks(start, stop)):
            apart = block if reference is None else _difference(block, reference[start:stop])
            totals[index] += _sum_of_squares(apart)
    return tuple(math.sqrt(total) for total in totals)


def squared_distances(updates: UpdateSet) -> npt.NDArray[np.float64]:
    """Squared distance of each pair. Returns: shape (n, n), symmetric, zeros on the diagonal.

    Elementwise, n * (n - 1) / 2 passes: the identity with inner products is faster by BLAS, and loses what is small
    beside the norms.
    """
    count = len(updates)
    found = np.zeros((count, count))
    for start in range(0, updates.size, _BLOCK):
        blocks = list(updates.blocks(start, min(start + _BLOCK, updates.size)))
        for i in range(count):
            for j in range(i):
                found[i, j] += _sum_of_squares(_difference(blocks[i], blocks[j]))
    return found + found.T


def _difference(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    apart: npt.NDArray[np.float64] = np.subtract(a, b, dtype=np.float64)
    return apart


def _sum_of_squares(values: npt.NDArray[np.floating]) -> float:
    squares = np.square(values, dtype=np.float64)
    size = squares.size
    while size > 1:  # the second half onto the first; the middle of an odd number stays
        rest = size - size // 2
        np.add(squares[: size // 2], squares[rest:size], out=squares[: size // 2])
        size = rest
    return float(squares[0]) if size else 0.0
