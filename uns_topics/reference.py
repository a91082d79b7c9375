"""How all plants' values of a feature lie: pooled quantiles, by which a plant recognises that its own are off. Pure."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from uns_topics.model import Identifier, Slug, Value
from uns_topics.sketch import Counts, Grid
from uns_topics.standardisation import PARTICIPANT_CAP

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles that are published."""
MIN_SITES = 3
"""A feature that fewer plants told of is left out: of two, each would know the other's."""
MAX_NAMED = 200
"""Of more participants than this, one's own share in the pool is too small to be taken out."""

Quantiles = tuple[float, float, float, float, float]


class FeatureReference(Value):
    """One feature, in the contract's unit."""

    feature: Identifier
    sites: int = Field(ge=MIN_SITES, le=10_000, description="participants that told of it")
    rows: int = Field(ge=1, le=2**53, description="of them all, one participant's share capped at a half")
    quantiles: Quantiles = Field(description="at 5, 25, 50, 75 and 95 %")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("quantiles that don't rise")
        return self


class Reference(Value):
    """`down/reference`, retained, once per generation: pooled from the statistics that it starts from."""

    generation: int = Field(ge=1, le=2**31)
    participants: tuple[Slug, ...] = Field(
        max_length=MAX_NAMED, description="whose statistics are in it; empty where they are too many to tell one apart"
    )
    features: tuple[FeatureReference, ...] = Field(max_length=1000)


def without(reference: FeatureReference, own: Counts, grid: Grid, cap: float = PARTICIPANT_CAP) -> Quantiles | None:
    """The others' quantiles: the pool without this plant's share in it, which would hide what sets it apart.

    Between the five levels the pool is taken as even, so the outer ones are rough.

    Args: own: what this plant told, shape (B,); cap: of one participant's share in the pool.
    Returns: None where too little is left.
    """
    n = float(min(own.sum(), cap * reference.rows))
    rest = reference.rows - n
    if n <= 0:
        return reference.quantiles
    if rest <= 0:
        return None
    ends = grid.edges[1:]
    marks = np.clip([-np.inf, *reference.quantiles, np.inf], grid.edges[0], grid.edges[-1])
    passed = np.interp(ends, marks, (0.0, *LEVELS, 1.0))  # share of the pool up to each edge
    others = np.maximum.accumulate((reference.rows * passed - n * np.cumsum(own) / own.sum()) / rest)
    found = np.minimum(np.searchsorted(others, LEVELS), len(ends) - 1)
    low, median_low, median, median_high, high = (float(value) for value in grid.values[found])
    return low, median_low, median, median_high, high
