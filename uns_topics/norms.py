"""Lengths of vectors, in float64 by elementwise steps alone, so that every CPU and every place finds the same.

BLAS adds up in an order that depends on the CPU, and `sum` promises none; here each block is folded in halves.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from uns_topics.tensors import Vector

BLOCK = 16 * 1024
"""Elements that are squared at a time: they stay in the cache."""


def l2_norm(values: Vector) -> float:
    """Euclidean norm. Args: values: shape (d,)."""
    return math.sqrt(sum(sum_of_squares(values[start : start + BLOCK]) for start in range(0, values.size, BLOCK)))


def sum_of_squares(values: npt.NDArray[np.floating]) -> float:
    """Of one block. Args: values: shape (d,), d at most some `BLOCK`s, for float64 squares of all are made."""
    squares = np.square(values, dtype=np.float64)
    size = squares.size
    while size > 1:  # the second half onto the first; the middle of an odd number stays
        rest = size - size // 2
        np.add(squares[: size // 2], squares[rest:size], out=squares[: size // 2])
        size = rest
    return float(squares[0]) if size else 0.0
