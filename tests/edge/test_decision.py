"""What a model decides by: enough evidence first, then calibration and thresholds, own ones where there is plenty."""

from __future__ import annotations

import numpy as np
import pytest

from edge.alarm import Trip
from edge.calibration import Calibration
from edge.dataset import Dataset, Part
from edge.decision import OWN_ROWS, Decision, RateChange, decide
from edge.probation import evidence
from edge.rules import CostRule, Probation, QuantileRule
from tests.support.tiny_template import tiny_contract

CONTRACT = tiny_contract()
RULE = CostRule(rule="cost", miss=10, false_alarm=1)


def dataset(n: int, *, instances: int = 1, seed: int = 0) -> Dataset:
    """Rows of which the last fifth but one selects; every fifth is positive, and its x0 is higher."""
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % 5 == 0).astype(np.float32)
    rows = np.stack([labels * 2 + random.normal(4, 1, n), np.zeros(n)], axis=1).astype(np.float32)
    parts = np.full(n, Part.TRAIN, np.uint8)
    parts[n * 3 // 5 :] = Part.SELECT
    parts[n * 4 // 5 :] = Part.REPORT
    return Dataset(
        rows, np.stack([np.arange(n), np.arange(n) + 1], axis=1), labels, np.zeros(n, np.int64), parts,
        np.arange(n) * 60.0, np.arange(n) % instances, np.full(n, -1),
    )  # fmt: skip


def scores_of(data: Dataset, index: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(data.rows[index, 0].astype(np.float64) - 5)))


def decided(n: int, rule: CostRule | None = RULE, **settings: int) -> Decision:
    data = dataset(n, **settings)
    found = evidence(data, CONTRACT, Probation())
    paths = [f"line{i}" for i in range(settings.get("instances", 1))]
    return decide(scores_of(data, found.index), found, data, paths, CONTRACT, rule)


def test_with_enough_labels_there_is_a_calibration_and_a_threshold() -> None:
    found = decided(1000)
    assert (found.problem, found.rows, found.positives) == (None, 200, 40)
    assert found.calibration.reason is None
    assert found.trip is not None
    assert found.trip_of("anywhere") == found.trip
    assert 0.01 < found.trip.threshold < 0.5  # misses are dear


def test_with_too_few_there_is_neither() -> None:
    found = decided(240)
    assert found.problem == "evaluated on 48 matured samples of 50"
    assert (found.trip, found.calibration.scale, found.calibration.reason) == (None, 1.0, found.problem)
    data = dataset(500)
    rare = evidence(data, CONTRACT, Probation(positives=21))
    assert rare.problem == "evaluated on 20 positive samples of 21"


def test_a_site_without_a_rule_has_no_threshold_and_may_leave_probation() -> None:
    found = decided(1000, None)
    assert (found.problem, found.trip) == (None, None)


def test_where_select_is_too_small_what_the_model_ran_on_before_its_label_counts_too() -> None:
    data = dataset(100)
    ran = np.zeros(100, bool)
    ran[20:60] = True
    assert evidence(data, CONTRACT, Probation()).problem is not None
    found = evidence(data, CONTRACT, Probation(), ran)
    assert found.problem is None
    assert found.index.tolist() == list(range(20, 80))
    enough = evidence(dataset(1000), CONTRACT, Probation(), np.ones(1000, bool))
    assert enough.rows == 200  # select will do: nothing else is mixed in


def test_an_instance_with_plenty_of_samples_has_a_threshold_of_its_own() -> None:
    few, plenty = decided(1000, instances=2), decided(5 * 2 * OWN_ROWS + 50, instances=2)
    assert few.own == {}
    assert set(plenty.own) == {"line0", "line1"}
    assert plenty.trip_of("line1") == plenty.own["line1"]
    assert plenty.trip_of("line2") == plenty.trip


def test_errors_of_an_autoencoder_have_a_quantile_and_no_calibration() -> None:
    contract = type(CONTRACT).model_validate({**CONTRACT.model_dump(), "label": {"kind": "none"}, "metric": "rmse"})
    data = dataset(1000)
    found = evidence(data, contract, Probation())
    assert (found.problem, found.positives) == (None, None)
    rule = QuantileRule(rule="quantile", share=0.01)
    decision = decide(scores_of(data, found.index) * 9, found, data, ["line0"], contract, rule)
    assert decision.trip is not None
    assert decision.flagged(scores_of(data, found.index) * 9, ["line0"] * 200) == 2
    assert decision.calibration.reason == "only scores of classes are calibrated"


def test_what_a_model_decides_by_reads_back() -> None:
    for found in (decided(5 * 2 * OWN_ROWS + 50, instances=2), decided(240), Decision()):
        assert Decision.load(found.dump()) == found
    with pytest.raises((ValueError, KeyError, TypeError)):
        Decision.load("{}")


def test_alarms_are_counted_by_each_instance_s_own_threshold() -> None:
    decision = Decision(Calibration(), Trip(0.5), {"b": Trip(0.8)}, None)
    assert decision.flagged(np.array([0.6, 0.6, 0.9, 0.4]), ["a", "b", "b", "a"]) == 2
    assert Decision().flagged(np.array([0.6]), ["a"]) == 0


@pytest.mark.parametrize(
    ("rows", "before", "after", "exceeds"),
    [(1000, 10, 40, True), (1000, 40, 10, True), (1000, 10, 35, False), (1000, 0, 9, False), (99, 0, 99, False)],
)
def test_rates_are_compared_as_far_as_the_samples_bear_it(rows: int, before: int, after: int, exceeds: bool) -> None:
    assert RateChange(rows, before, after).exceeds(2.9) is exceeds
