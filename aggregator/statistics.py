"""Participants' statistics: checked on arrival, pooled once per generation into the frozen standardisation."""

from __future__ import annotations

from collections.abc import Iterable

from uns_topics.contract import ClassLabel, Contract
from uns_topics.reports import Statistics
from uns_topics.standardisation import MIN_CELL, Moments, fill_standardisation, pool
from uns_topics.tensors import TensorTable, Vector

_ROUNDING = 1e-6
"""Relative slack for sums in float64: a sum of squares of values in [0, 1] is never above their sum."""


def number_of_classes(contract: Contract) -> int:
    """Classes that `label_counts` speak of; 0 where the label is not one of classes."""
    return len(contract.label.classes) if isinstance(contract.label, ClassLabel) else 0


def problem(statistics: Statistics, contract: Contract) -> str | None:
    """Why these statistics can't be used, in words; None where they can."""
    if len(statistics.label_counts) != number_of_classes(contract):
        return (
            f"{len(statistics.label_counts)} label counts where the contract has {number_of_classes(contract)} classes"
        )
    seen: set[tuple[int, str]] = set()
    for cell in statistics.cells:
        key = (cell.slot, cell.feature)
        if cell.feature not in contract.feature_names or cell.slot >= contract.slots:
            return f"a cell of feature {cell.feature} at slot {cell.slot}, which the contract doesn't have"
        if key in seen:
            return f"two cells of feature {cell.feature} at slot {cell.slot}"
        seen.add(key)
        if (wrong := _moments_problem(cell.moments)) is not None:
            return f"feature {cell.feature} at slot {cell.slot}: {wrong}"
    return None


def fill(base: Vector, table: TensorTable, contract: Contract, statistics: Iterable[Statistics]) -> Vector:
    """The base with its standardisation filled from everybody's cells. Args: statistics: in participant order."""
    return fill_standardisation(base, table, contract, pool([_cells(one) for one in statistics]))


def _cells(statistics: Statistics) -> dict[int, dict[str, Moments]]:
    found: dict[int, dict[str, Moments]] = {}
    for cell in statistics.cells:
        found.setdefault(cell.slot, {})[cell.feature] = cell.moments
    return found


def _moments_problem(moments: Moments) -> str | None:
    """Values are clipped and scaled to [0, 1], which bounds their sums."""
    n, total, squares = moments.n, moments.sum, moments.sum_squares
    slack = _ROUNDING * max(1, n)
    if n < MIN_CELL:
        return f"{n} rows, fewer than {MIN_CELL}"
    if not -slack <= total <= n + slack or squares > total + slack:
        return "sums that values between 0 and 1 can't have"
    if total * total > n * squares + slack * n:
        return "a negative variance"
    return None
