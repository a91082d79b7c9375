"""A plant's own rows beside all plants', its own share taken out."""

from __future__ import annotations

import numpy as np
import pytest

from edge.quality import Observed, QualityCounters
from edge.unit_watch import KEPT_ROWS, UnitWatch
from tests.edge.examples import solder_contract
from uns_topics.codes import QualityCheck
from uns_topics.contract import Contract
from uns_topics.reference import LEVELS, FeatureReference, Reference
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.sketch import Sketch, grid_of_range, quantiles
from uns_topics.standardisation import Moments

FEATURES = [
    {"name": "ambient", "unit": "degC", "minimum": 0, "maximum": 150},
    {"name": "humidity", "unit": "%", "minimum": 0, "maximum": 100},
]
CONTRACT: Contract = solder_contract(features=FEATURES, context=None)


def rows_of(seed: int, n: int = 600, *, fahrenheit: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ambient = rng.normal(25, 2, n)
    return np.stack([ambient * 1.8 + 32 if fahrenheit else ambient, rng.normal(45, 5, n)], axis=1).astype(np.float32)


def told(rows: np.ndarray) -> Statistics:
    cells = []
    for column, feature in enumerate(CONTRACT.features):
        sketch = Sketch.of(grid_of_range(feature.minimum, feature.maximum).count(rows[:, column]))
        cells.append(
            FeatureCell(
                slot=0,
                feature=feature.name,
                moments=Moments(n=len(rows), sum=0.0, sum_squares=0.0),
                sketch=sketch,
            )
        )
    return Statistics(generation=1, rows=len(rows), label_counts=(0, 0), cells=tuple(cells))


def reference_of(*plants: Statistics) -> Reference:
    features = []
    for column, feature in enumerate(CONTRACT.features):
        grid = grid_of_range(feature.minimum, feature.maximum)
        sketches = [plant.cells[column].sketch for plant in plants]
        pooled = np.sum([sketch.counts(grid) for sketch in sketches if sketch is not None], axis=0)
        low, lower, median, upper, high = quantiles(pooled, grid, LEVELS)
        features.append(
            FeatureReference(
                feature=feature.name,
                sites=len(plants),
                rows=int(pooled.sum()),
                quantiles=(low, lower, median, upper, high),
            )
        )
    return Reference(generation=1, participants=(), features=tuple(features))


BERLIN, LYON, GDANSK = rows_of(1), rows_of(2), rows_of(3, fahrenheit=True)
REFERENCE = reference_of(told(BERLIN), told(LYON), told(GDANSK))


def test_one_of_three_plants_in_another_unit_is_found_by_itself_alone() -> None:
    for rows, found in ((BERLIN, {}), (LYON, {}), (GDANSK, {"ambient": "degF"})):
        watch = UnitWatch(CONTRACT)
        watch.add(rows)
        watch.compare(REFERENCE, told(rows))
        assert {name: one.unit for name, one in watch.findings.items()} == found


def test_a_plant_that_told_nothing_is_compared_too() -> None:
    watch = UnitWatch(CONTRACT)
    watch.add(rows_of(4, fahrenheit=True))
    watch.compare(reference_of(told(BERLIN), told(LYON), told(rows_of(5))), None)
    assert watch.findings["ambient"].text.startswith("looks like degF where degC is declared")


def test_without_a_reference_or_enough_rows_nothing_is_said() -> None:
    watch = UnitWatch(CONTRACT)
    watch.add(GDANSK[:99])
    watch.compare(REFERENCE, told(GDANSK))
    assert not watch.findings
    watch.add(GDANSK)
    assert watch.findings
    watch.compare(None, None)
    assert not watch.findings


def test_a_mended_plant_is_no_longer_named() -> None:
    watch = UnitWatch(CONTRACT)
    watch.add(GDANSK)
    watch.compare(REFERENCE, told(GDANSK))
    assert watch.findings
    for start in range(0, KEPT_ROWS, 50):
        watch.add(rows_of(100 + start, 50))
    assert not watch.findings


def test_the_gate_warns_names_the_check_and_tells_the_sentence_to_the_plant_alone() -> None:
    counters, watch = QualityCounters(CONTRACT), UnitWatch(CONTRACT)
    counters.add("line1", GDANSK)
    watch.add(GDANSK)
    watch.compare(REFERENCE, told(GDANSK))
    report, judgement = counters.report(Observed(more=watch.measures), 600, 600)
    assert judgement.verdict == report.verdict == "warn"
    assert len(judgement.reasons) == 1
    assert judgement.reasons[0].startswith("ambient looks like degF where degC is declared (median 7")
    (finding,) = report.findings
    assert (finding.check, finding.feature, finding.verdict) == (QualityCheck.UNITS, "ambient", "warn")
    assert finding.value == pytest.approx(5 / 9)
    assert "degF" not in report.model_dump_json()


def test_many_rows_at_once_keep_the_newest() -> None:
    watch = UnitWatch(CONTRACT)
    watch.add(np.concatenate([GDANSK, rows_of(7, KEPT_ROWS)]))
    watch.compare(REFERENCE, told(GDANSK))
    assert not watch.findings
