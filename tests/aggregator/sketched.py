"""Statistics as participants tell them of a line with an oven and a drive, with sketches and without sums."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from uns_topics.contract import Contract, EventSample, Feature, Metric, NoLabel
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.sketch import Sketch, grid_of
from uns_topics.standardisation import Moments


def oven_contract(hottest: float) -> Contract:
    """Two features; the oven from 0 degC to this."""
    return Contract(
        federation="sums",
        features=(
            Feature(name="oven", unit="degC", minimum=0, maximum=hottest),
            Feature(name="current", unit="A", minimum=-10, maximum=10),
        ),
        label=NoLabel(),
        sample=EventSample(key="board"),
        metric=Metric.RMSE,
    )


def told_of(contract: Contract, values: Mapping[str, np.ndarray], rows: int, slot: int = 0) -> Statistics:
    """Args: values: by feature."""
    by_name = {f.name: f for f in contract.features}
    return Statistics(
        generation=1,
        rows=rows,
        label_counts=(),
        cells=tuple(
            FeatureCell(
                slot=slot,
                feature=name,
                moments=Moments(n=len(own), sum=0.0, sum_squares=0.0),
                sketch=Sketch.of(grid_of(by_name[name]).count(own)),
            )
            for name, own in values.items()
        ),
    )
