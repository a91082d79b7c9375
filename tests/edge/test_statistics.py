"""What a plant tells of its data: enough for all, never of single rows, and never more than a message holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.dataset import Dataset
from edge.scoring import Snapshot
from edge.statistics import ENVELOPE_BYTES, may_renew, said, say, statistics_of
from edge.store import SampleStore
from tests.edge.versions import TEMPLATE
from uns_topics.contract import (
    ClassLabel,
    Contract,
    DeclaredContext,
    EventSample,
    Feature,
    Metric,
)
from uns_topics.reports import FeatureCell, Statistics
from uns_topics.scope import statistics_problem
from uns_topics.sketch import MAX_FILLED, grid_of, quantiles
from uns_topics.standardisation import Moments
from uns_topics.transfers import KIB, MIN_CHUNK_BYTES


def contract_of(features: int, products: int = 0) -> Contract:
    return Contract(
        federation="sums",
        features=tuple(Feature(name=f"feature_{i}", unit="", minimum=-50, maximum=150) for i in range(features)),
        context=DeclaredContext(name="product", values=tuple(map(str, range(products)))) if products else None,
        label=ClassLabel(name="verdict", classes=("good", "bad"), positive="bad"),
        sample=EventSample(key="board"),
        metric=Metric.ROC_AUC,
    )


def snapshot_of(contract: Contract, n: int, seed: int = 1) -> Snapshot:
    rng = np.random.default_rng(seed)
    rows = rng.normal(60, 30, (n, len(contract.features))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.02] = np.nan
    dataset = Dataset(
        rows=rows,
        windows=np.stack([np.arange(n), np.arange(1, n + 1)], axis=1),
        labels=(np.arange(n) % 5 == 0).astype(np.float32),
        contexts=rng.integers(0, contract.slots, n),
        parts=np.zeros(n, np.uint8),
        times=np.arange(n, dtype=np.float64),
        instances=np.zeros(n, np.int64),
        groups=np.arange(n),
    )
    return Snapshot(dataset, contract, n)


def test_sketches_and_moments_are_of_the_same_clipped_rows() -> None:
    contract = contract_of(3)
    snapshot = snapshot_of(contract, 2000)
    told = statistics_of(snapshot, 1, 256 * KIB)
    assert statistics_problem(told, contract) is None
    assert len(told.cells) == 3
    for column, cell in enumerate(told.cells):
        grid = grid_of(contract.features[column])
        values = snapshot.dataset.rows[:, column]
        clipped = np.clip(values[~np.isnan(values)].astype(np.float64), -50, 150)
        assert cell.sketch is not None
        assert cell.moments.n == cell.sketch.n == len(clipped)
        assert cell.moments.mean * 200 - 50 == pytest.approx(clipped.mean())
        found = quantiles(cell.sketch.counts(grid), grid, (0.05, 0.5, 0.95))
        np.testing.assert_allclose(found, np.quantile(clipped, (0.05, 0.5, 0.95)), atol=2.5)


def test_a_feature_with_nine_rows_is_not_told() -> None:
    contract = contract_of(2)
    snapshot = snapshot_of(contract, 40)
    snapshot.dataset.rows[9:, 1] = np.nan
    told = statistics_of(snapshot, 1, 256 * KIB)
    assert {cell.feature for cell in told.cells} == {"feature_0"}


@pytest.mark.parametrize("seed", range(20))
def test_few_rows_don_t_follow_from_a_difference(seed: int) -> None:
    contract = contract_of(4, products=3)
    told = statistics_of(snapshot_of(contract, 150 + seed, seed), 1, 256 * KIB)
    assert statistics_problem(told, contract) is None  # it looks at the differences too
    assert any(cell.slot for cell in told.cells)


@pytest.mark.parametrize("max_bytes", [MIN_CHUNK_BYTES, 40 * KIB, 128 * KIB, 256 * KIB, 2**30])
@pytest.mark.parametrize(("features", "products"), [(20, 4), (60, 100), (400, 0)])
def test_a_message_is_never_too_long(features: int, products: int, max_bytes: int) -> None:
    contract = contract_of(features, products)
    told = statistics_of(snapshot_of(contract, 1500), 1, max_bytes)
    assert len(told.model_dump_json()) <= min(max_bytes, 256 * KIB) - ENVELOPE_BYTES
    assert statistics_problem(told, contract) is None
    assert told.cells
    if len({cell.feature for cell in told.cells}) < features:
        assert not any(cell.slot or cell.sketch for cell in told.cells)  # the least goes first


def test_twenty_features_fit_the_smallest_chunk_with_a_sketch_each() -> None:
    told = statistics_of(snapshot_of(contract_of(20), 5000), 1, MIN_CHUNK_BYTES)
    assert len(told.cells) == 20
    assert all(cell.sketch is not None and len(cell.sketch.rows) >= 16 for cell in told.cells)


def test_with_room_sketches_are_as_fine_as_they_get() -> None:
    told = statistics_of(snapshot_of(contract_of(1), 20_000), 1, 256 * KIB)
    assert told.cells[0].sketch is not None
    assert 150 < len(told.cells[0].sketch.rows) <= MAX_FILLED


# Said once ----------------------------------------------------------------------------------------------------


def statistics(rows: int, *cells: int, generation: int = 1) -> Statistics:
    return Statistics(
        generation=generation,
        rows=rows,
        label_counts=(rows, 0),
        cells=tuple(
            FeatureCell(slot=slot, feature="feature_0", moments=Moments(n=n, sum=0.0, sum_squares=0.0))
            for slot, n in enumerate(cells)
        ),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    with SampleStore(tmp_path / "samples.sqlite") as opened:
        yield opened


def test_after_a_restart_the_same_is_said(store: SampleStore) -> None:
    first = say(store, TEMPLATE.sha256, statistics(100, 100))
    assert first.rows == 100
    assert say(store, TEMPLATE.sha256, statistics(103, 103)) == first  # else three rows would be told
    assert say(store, TEMPLATE.sha256, statistics(250, 250)).rows == 250
    assert say(store, TEMPLATE.sha256, statistics(260, 260)).rows == 250


def test_what_another_release_said_counts_as_nothing(store: SampleStore) -> None:
    say(store, TEMPLATE.sha256, statistics(100, 100))
    ((name, kept),) = store.named("statistics-").items()
    store.put(f"statistics-{name}", kept.replace(b'"rows"', b'"lines"'))
    assert said(store, TEMPLATE.sha256, 1) is None
    assert say(store, TEMPLATE.sha256, statistics(103, 103)).rows == 103


def test_another_generation_or_template_says_its_own(store: SampleStore) -> None:
    say(store, TEMPLATE.sha256, statistics(100, 100))
    assert say(store, TEMPLATE.sha256, statistics(103, 103, generation=2)).rows == 103
    assert say(store, "f" * 64, statistics(104, 104)).rows == 104


@pytest.mark.parametrize(
    ("fresh", "may"),
    [
        (statistics(200, 200), True),
        (statistics(199, 199), False),
        (statistics(200, 109), False),  # nine rows more of a feature that is often missing
        (statistics(200, 200, 10), True),
        (statistics(200, 90), False),
    ],
)
def test_when_there_is_enough_new_to_say(fresh: Statistics, may: bool) -> None:
    assert may_renew(statistics(100, 100), fresh) is may
