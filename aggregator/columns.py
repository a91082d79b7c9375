"""Deltas column by column, for rules that look at all participants' values of one element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aggregator.updates import UpdateSet
from uns_topics.tensors import Vector

COLUMN_BYTES = 1024 * 1024
"""A block of columns, transposed: within a level-2 cache, whatever the cohort."""


def by_sorted_columns(updates: UpdateSet, rule: Callable[[Vector], np.ndarray]) -> Vector:
    """Apply `rule` to blocks of columns whose values are sorted.

    Args: rule: takes shape (k, n), each row one element's values, ascending; returns shape (k,).
    Returns: shape (updates.size,), float32.
    """
    count, size = len(updates), updates.size
    width = max(1, min(size, COLUMN_BYTES // (4 * count)))
    result = np.empty(size, np.float32)
    space = np.empty((width, count), np.float32)  # contiguous rows: numpy sorts these several times as fast as columns
    for start in range(0, size, width):
        stop = min(start + width, size)
        block = space[: stop - start]
        for index, values in enumerate(updates.blocks(start, stop)):
            # Plus zero: a sort may leave -0 and 0 in either order, which depends on the CPU's kernel.
            np.add(values, np.float32(0.0), out=block[:, index])
        block.sort(axis=1)
        result[start:stop] = rule(block)
    return result
