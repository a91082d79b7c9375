"""Participants' statistics, pooled once per generation into the frozen standardisation."""

from __future__ import annotations

from collections.abc import Iterable

from uns_topics.contract import Contract
from uns_topics.reports import Statistics
from uns_topics.standardisation import Moments, fill_standardisation, pool
from uns_topics.tensors import TensorTable, Vector


def fill(base: Vector, table: TensorTable, contract: Contract, statistics: Iterable[Statistics]) -> Vector:
    """The base with its standardisation filled from everybody's cells. Args: statistics: in participant order."""
    return fill_standardisation(base, table, contract, pool([_cells(one) for one in statistics]))


def _cells(statistics: Statistics) -> dict[int, dict[str, Moments]]:
    found: dict[int, dict[str, Moments]] = {}
    for cell in statistics.cells:
        found.setdefault(cell.slot, {})[cell.feature] = cell.moments
    return found
