"""Lengths and distances of the deltas of a round, block by block; the same on every CPU, as in `uns_topics.sums`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aggregator.updates import UpdateSet
from uns_topics.sums import BLOCK, sum_of_squares
from uns_topics.tensors import Vector


def norms(updates: UpdateSet) -> tuple[float, ...]:
    """The Euclidean norm of each delta, in participant order."""
    return distances(updates, None)


def distances(updates: UpdateSet, reference: Vector | None) -> tuple[float, ...]:
    """How far each delta is from `reference`, shape (updates.size,); None stands for the origin."""
    totals = [0.0] * len(updates)
    for start in range(0, updates.size, BLOCK):
        stop = min(start + BLOCK, updates.size)
        for index, block in enumerate(updates.blocks(start, stop)):
            apart = block if reference is None else _difference(block, reference[start:stop])
            totals[index] += sum_of_squares(apart)
    return tuple(math.sqrt(total) for total in totals)


def squared_distances(updates: UpdateSet) -> npt.NDArray[np.float64]:
    """Squared distance of each pair. Returns: shape (n, n), symmetric, zeros on the diagonal.

    Elementwise, n * (n - 1) / 2 passes: the identity with inner products is faster by BLAS, and loses what is small
    beside the norms.
    """
    count = len(updates)
    found = np.zeros((count, count))
    for start in range(0, updates.size, BLOCK):
        blocks = list(updates.blocks(start, min(start + BLOCK, updates.size)))
        for i in range(count):
            for j in range(i):
                found[i, j] += sum_of_squares(_difference(blocks[i], blocks[j]))
    return found + found.T


def _difference(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    apart: npt.NDArray[np.float64] = np.subtract(a, b, dtype=np.float64)
    return apart
