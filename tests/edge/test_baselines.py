"""The constant and the linear model: fitted on the training part alone, from what a plant really has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edge.baselines import constant_predictions, linear_predictions
from edge.dataset import Dataset, Part
from uns_topics.contract import (
    ClassLabel,
    Contract,
    EventSample,
    Feature,
    Label,
    Metric,
    NoLabel,
    RunToFailureLabel,
    WindowSample,
)

CLASSES = ClassLabel(name="verdict", classes=("good", "defect"), positive="defect")
REMAINING = RunToFailureLabel(name="remaining", cap=100.0)


def contract_for(label: Label, length: int | None = None, features: int = 2) -> Contract:
    return Contract(
        federation="lines",
        features=tuple(Feature(name=f"x{i}", unit="", minimum=0, maximum=10) for i in range(features)),
        label=label,
        sample=WindowSample(period_s=1, length=length) if length else EventSample(key="board"),
        metric=Metric.AVERAGE_PRECISION if isinstance(label, ClassLabel) else Metric.RMSE,
    )


def dataset_of(
    rows: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], length: int | None = None, train: float = 0.6
) -> Dataset:
    """One sample per row, or per window that ends there; the first ones train, the rest report."""
    n, steps = len(labels), length or 1
    start = np.maximum(0, np.arange(n) + 1 - steps) if length else np.arange(n)
    return Dataset(
        rows=rows.astype(np.float32),
        windows=np.stack([start, np.arange(n) + 1], axis=1),
        labels=labels.astype(np.float32),
        contexts=np.zeros(n, np.int64),
        parts=np.where(np.arange(n) < train * n, Part.TRAIN, Part.REPORT).astype(np.uint8),
        times=np.arange(n, dtype=np.float64),
        instances=np.zeros(n, np.int64),
        groups=np.full(n, -1, np.int64),
        length=length,
    )


def test_the_constant_is_the_base_rate_of_the_training_part() -> None:
    labels = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1.0, 1, 1, 1, 1])  # 3 of the first 12, 12 - 3 later
    dataset = dataset_of(np.zeros((20, 2)), labels, train=0.5)
    predicted = constant_predictions(dataset, contract_for(CLASSES), np.array([15, 0, 19]))
    assert predicted.dtype == np.float32
    assert predicted.tolist() == pytest.approx([0.3, 0.3, 0.3])


def test_the_positive_class_may_stand_first() -> None:
    labels = np.array([0.0] * 3 + [1.0] * 7)
    first = ClassLabel(name="verdict", classes=("defect", "good"), positive="defect")
    dataset = dataset_of(np.zeros((10, 2)), labels, train=1.0)
    assert constant_predictions(dataset, contract_for(first), np.array([0])).tolist() == pytest.approx([0.3])


def test_the_constant_of_a_run_to_failure_is_the_mean_of_capped_values() -> None:
    dataset = dataset_of(np.zeros((4, 2)), np.array([300.0, 100.0, 40.0, 0.0]), length=2, train=1.0)
    assert constant_predictions(dataset, contract_for(REMAINING, 2), np.arange(2)).tolist() == pytest.approx([60.0] * 2)


def test_logistic_regression_finds_the_odds_of_a_single_switch() -> None:
    """A feature of two values: the fitted probabilities are the two frequencies, 0.2 and 0.7, but for the ridge."""
    switch = np.repeat([0.0, 10.0], 1000)
    labels = np.concatenate([np.arange(1000) < 200, np.arange(1000) < 700]).astype(float)
    dataset = dataset_of(np.stack([switch, np.full(2000, 5.0)], axis=1), labels, train=1.0)
    predicted = linear_predictions(dataset, contract_for(CLASSES), np.array([0, 1999]))
    assert predicted.tolist() == pytest.approx([0.2, 0.7], abs=0.01)


def test_ridge_regression_finds_a_line_and_caps_what_it_learns_from() -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 10, (500, 2))
    labels = 10 + 4 * rows[:, 0] + 3 * rows[:, 1]  # at most 80: below the cap
    dataset = dataset_of(rows, labels, length=1)
    index = dataset.of(Part.REPORT)
    predicted = linear_predictions(dataset, contract_for(REMAINING, 1), index)
    np.testing.assert_allclose(predicted, labels[index], atol=0.2)
    capped = linear_predictions(
        replace(dataset, labels=np.full(500, 1e6, np.float32)), contract_for(REMAINING, 1), index
    )
    np.testing.assert_allclose(capped, 100.0, atol=0.2)


def test_the_slope_of_a_window_is_seen() -> None:
    """Windows that end at the same value and have the same mean, rising and falling in the middle."""
    rng = np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], 300)
    shape = np.array([0.0, -1.0, -0.5, 0.5, 1.0, 0.0])  # sums to 0, ends at 0; its slope has a sign
    rows = np.concatenate([5 + 3 * sign * shape for sign in signs])
    dataset = dataset_of(np.stack([rows, np.full(len(rows), 5.0)], axis=1), np.zeros(len(rows)), length=6)
    ends = np.arange(6, len(rows) + 1, 6)
    dataset = replace(
        dataset,
        windows=np.stack([ends - 6, ends], axis=1),
        labels=(signs > 0).astype(np.float32),
        parts=np.where(np.arange(300) < 200, Part.TRAIN, Part.REPORT).astype(np.uint8),
        times=np.arange(300, dtype=np.float64),
        contexts=np.zeros(300, np.int64),
        instances=np.zeros(300, np.int64),
        groups=np.full(300, -1, np.int64),
    )
    index = dataset.of(Part.REPORT)
    predicted = linear_predictions(dataset, contract_for(CLASSES, 6), index)
    assert np.array_equal(predicted > 0.5, signs[index] > 0)


def test_missing_values_speak_by_being_missing() -> None:
    rng = np.random.default_rng(2)
    gone = rng.random(400) < 0.5
    rows = np.stack([np.where(gone, np.nan, 5.0), np.full(400, np.nan)], axis=1)
    dataset = dataset_of(rows, gone.astype(float))
    index = dataset.of(Part.REPORT)
    predicted = linear_predictions(dataset, contract_for(CLASSES), index)
    assert np.array_equal(predicted > 0.5, gone[index])


@pytest.mark.parametrize("label", [CLASSES, REMAINING])
def test_nothing_outside_the_training_part_is_learnt_from(label: Label) -> None:
    rng = np.random.default_rng(3)
    contract = contract_for(label, 1)
    dataset = dataset_of(rng.uniform(0, 10, (100, 2)), (rng.random(100) < 0.3).astype(float), length=1)
    train = dataset.parts == Part.TRAIN
    lying = replace(dataset, labels=np.where(train, dataset.labels, 1 - dataset.labels))
    index = np.arange(100)
    for predict in (constant_predictions, linear_predictions):
        assert np.array_equal(predict(dataset, contract, index), predict(lying, contract, index))


@pytest.mark.parametrize("label", [CLASSES, REMAINING])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_alone_or_one_row_gives_finite_predictions(label: Label, value: float) -> None:
    contract = contract_for(label, 1)
    for rows in (1, 50):
        dataset = dataset_of(np.full((rows, 2), 3.0), np.full(rows, value), length=1, train=1.0)
        predicted = linear_predictions(dataset, contract, np.arange(rows))
        assert np.isfinite(predicted).all()
        assert np.abs(predicted - value).max() < 0.5


def test_without_training_rows_or_labels_predictions_are_zero() -> None:
    nothing = dataset_of(np.full((5, 2), 3.0), np.ones(5), train=0.0)
    unlabelled = dataset_of(np.full((5, 2), 3.0), np.full(5, np.nan), train=1.0)
    for dataset, label in ((nothing, CLASSES), (unlabelled, NoLabel())):
        for predict in (constant_predictions, linear_predictions):
            assert predict(dataset, contract_for(label), np.arange(5)).tolist() == [0.0] * 5
