"""The newest values of each feature beside all plants': which features seem to come in another unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge.quality_gate import Measure
from edge.unit_check import UnitFinding, unit_finding
from uns_topics.codes import QualityCheck
from uns_topics.contract import Contract
from uns_topics.reference import LEVELS, Quantiles, Reference, without
from uns_topics.reports import Statistics
from uns_topics.sketch import grid_of

KEPT_ROWS = 1000
"""Rows that are looked at: once a plant has mended its signal map, this many samples later nothing is said any more."""
MIN_VALUES = 100
"""Fewer values than this say nothing about a feature."""
_AGAIN_ROWS = 100


class UnitWatch:
    """The newest rows of one participant, and the others' quantiles."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._rows = np.full((KEPT_ROWS, len(contract.features)), np.nan, np.float32)
        self._seen = 0
        self._others: dict[str, Quantiles] = {}
        self._found: dict[str, UnitFinding] = {}
        self._looked_at: int | None = None

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Take in rows in time order. Args: rows: shape (n, F), as the signal map gives them, NaN = missing."""
        newest = rows[-KEPT_ROWS:]
        self._rows[(self._seen + np.arange(len(newest))) % KEPT_ROWS] = newest
        self._seen += len(newest)

    def compare(self, reference: Reference | None, told: Statistics | None) -> None:
        """Compare with this from now on. Args: told: this plant's own statistics, if they are part of it."""
        sketches = {cell.feature: cell.sketch for cell in told.cells if cell.slot == 0} if told is not None else {}
        by_name = {one.feature: one for one in reference.features} if reference is not None else {}
        self._others = {}
        for feature in self._contract.features:
            pooled, own = by_name.get(feature.name), sketches.get(feature.name)
            if pooled is None:
                continue
            grid = grid_of(feature)
            others = without(pooled, own.counts(grid), grid) if own is not None else pooled.quantiles
            if others is not None:
                self._others[feature.name] = others
        self._looked_at = None

    @property
    def findings(self) -> Mapping[str, UnitFinding]:
        """By feature; looked for again after each hundred rows."""
        if self._looked_at is None or self._seen - self._looked_at >= _AGAIN_ROWS:
            self._looked_at = self._seen
            self._found = {name: found for name in self._others if (found := self._look(name)) is not None}
        return self._found

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The findings as the gate takes them: they warn, and hold nothing back."""
        return tuple(
            Measure(QualityCheck.UNITS, name, found.scale, 2.0, 1.0, holds=False, text=f"{name} {found.text}")
            for name, found in self.findings.items()
        )

    def _look(self, name: str) -> UnitFinding | None:
        column = self._contract.feature_names.index(name)
        values = self._rows[:, column]
        present = values[np.isfinite(values)].astype(np.float64)
        if len(present) < MIN_VALUES:
            return None
        own = np.quantile(present, LEVELS).tolist()
        return unit_finding(own, self._others[name], self._contract.features[column].unit)
