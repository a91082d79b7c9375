"""Participants' statistics, pooled once per generation: the frozen standardisation, and what all plants look like."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uns_topics.contract import Contract, Feature
from uns_topics.reference import LEVELS, MAX_NAMED, MIN_SITES, FeatureReference, Reference
from uns_topics.reports import Statistics
from uns_topics.sketch import Sketch, grid_of, merge, quantiles, reach
from uns_topics.standardisation import Moments, capped_shares, fill_standardisation, pool
from uns_topics.tensors import TensorTable, Vector


def fill(
    base: Vector,
    table: TensorTable,
    contract: Contract,
    statistics: Iterable[Statistics],
    kept: Collection[str] = (),
) -> Vector:
    """The base with its standardisation filled from everybody's cells.

    Args: statistics: in participant order; kept: features whose standardisation stays as the base has it.
    """
    return fill_standardisation(base, table, contract, pool([_cells(one) for one in statistics]), kept)


def reference(
    generation: int, contract: Contract, statistics: Mapping[str, Statistics], max_bytes: int
) -> Reference | None:
    """Pooled quantiles of each feature that enough participants told of; None where there is no such feature.

    Args:
        statistics: by participant.
        max_bytes: of the message; features that no longer fit are left out, the contract's last ones first.
    """
    by_feature: dict[str, list[Sketch]] = {}
    for cell in (cell for one in statistics.values() for cell in one.cells if cell.slot == 0):
        if cell.sketch is not None:
            by_feature.setdefault(cell.feature, []).append(cell.sketch)
    found = tuple(
        _feature_reference(feature, by_feature[feature.name])
        for feature in contract.features
        if len(by_feature.get(feature.name, ())) >= MIN_SITES
    )
    named = tuple(sorted(statistics)) if len(statistics) <= MAX_NAMED else ()
    whole = Reference(generation=generation, participants=named, features=found)
    while whole.features and len(whole.model_dump_json()) > max_bytes:
        whole = whole.model_copy(update={"features": whole.features[: len(whole.features) * 4 // 5]})
    return whole if whole.features else None


def _feature_reference(feature: Feature, sketches: Sequence[Sketch]) -> FeatureReference:
    """One feature's, with the same cap on one participant as in the standardisation."""
    grid = grid_of(feature)
    shares = capped_shares([sketch.n for sketch in sketches])
    pooled = np.zeros(len(grid))
    for sketch, share in zip(sketches, shares, strict=True):
        pooled += sketch.counts(grid) * share
    low, lower, median, upper, high = (float(f"{q:.6g}") for q in quantiles(pooled, grid, LEVELS))
    return FeatureReference(
        feature=feature.name,
        sites=len(sketches),
        rows=int(pooled.sum()),
        quantiles=(low, lower, median, upper, high),
    )


@dataclass(frozen=True, slots=True)
class FeatureOverview:
    """One feature over all sites that told of it, in the contract's unit, clipped to its range.

    Attributes:
        minimum, maximum: edges of the outermost bins that were told, with up to nine rows of each site beyond them.
        quantiles: at 5, 25, 50, 75 and 95 %; these three are None where nobody told a sketch.
    """

    feature: str
    unit: str
    sites: int
    rows: int
    mean: float
    deviation: float
    minimum: float | None
    maximum: float | None
    quantiles: tuple[float, ...] | None


def overview(contract: Contract, statistics: Sequence[Statistics]) -> tuple[FeatureOverview, ...]:
    """Federated statistics for people: all rows that were told, nobody's share capped; in the contract's order."""
    found = []
    for feature in contract.features:
        cells = [cell for one in statistics for cell in one.cells if cell.slot == 0 and cell.feature == feature.name]
        if not cells:
            continue
        moments = sum((cell.moments for cell in cells[1:]), start=cells[0].moments)
        grid, span = grid_of(feature), feature.maximum - feature.minimum
        sketches = [cell.sketch.counts(grid) for cell in cells if cell.sketch is not None and cell.sketch.fits(grid)]
        pooled = merge(sketches) if sketches else None
        low, high = reach(pooled, grid) if pooled is not None else (None, None)
        found.append(
            FeatureOverview(
                feature=feature.name,
                unit=feature.unit,
                sites=len(cells),
                rows=moments.n,
                mean=feature.minimum + span * moments.mean,
                deviation=span * moments.deviation,
                minimum=low,
                maximum=high,
                quantiles=tuple(quantiles(pooled, grid, LEVELS)) if pooled is not None else None,
            )
        )
    return tuple(found)


def _cells(statistics: Statistics) -> dict[int, dict[str, Moments]]:
    found: dict[int, dict[str, Moments]] = {}
    for cell in statistics.cells:
        found.setdefault(cell.slot, {})[cell.feature] = cell.moments
    return found
