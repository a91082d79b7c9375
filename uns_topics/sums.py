"""Sums and lengths in float64 by elementwise steps alone, so that every CPU and every place finds the same.

BLAS adds up in an order that depends on the CPU, and `numpy.sum` leaves it to its kernel; here halves are folded.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from uns_topics.tensors import Vector

BLOCK = 16 * 1024
"""Elements that are squared at a time: they stay in the cache."""


def stable_sum(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Sums along the last axis."""
    return _folded(values.astype(np.float64))


def sum_of_squares(values: npt.NDArray[np.floating]) -> float:
    """Of one block. Args: values: shape (d,), d at most some `BLOCK`s, for float64 squares of all are made."""
    return float(_folded(np.square(values, dtype=np.float64)))


def l2_norm(values: Vector) -> float:
    """Euclidean norm. Args: values: shape (d,)."""
    return math.sqrt(sum(sum_of_squares(values[start : start + BLOCK]) for start in range(0, values.size, BLOCK)))


def _folded(total: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The last axis added up in place: the second half onto the first; the middle of an odd number stays."""
    while (length := total.shape[-1]) > 1:
        half = (length + 1) // 2
        total[..., : length - half] += total[..., half:]
        total = total[..., :half]
    return total[..., 0] if total.shape[-1] else np.zeros(total.shape[:-1])
