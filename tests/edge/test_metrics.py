"""Figures by hand-sized numbers, and when they decide nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.metrics import (
    CLIP,
    average_precision,
    figure,
    paired_difference,
    rmse,
    roc_auc,
    row_losses,
    score_histograms,
)
from uns_topics.contract import Metric
from uns_topics.reports import HISTOGRAM_BINS

LABELS = np.array([1, 0, 1, 0, 0], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.4, 0.1], np.float32)


def test_average_precision() -> None:
    # positives found at ranks 1 and 3: precision 1/1 and 2/3, each half of the recall
    assert average_precision(LABELS, SCORES) == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(average_precision(np.zeros(3, np.float32), SCORES[:3]))


def test_tied_scores_are_one_threshold() -> None:
    labels = np.array([1, 0, 0, 1], np.float32)
    assert average_precision(labels, np.full(4, 0.5, np.float32)) == pytest.approx(0.5)
    assert average_precision(labels[::-1], np.full(4, 0.5, np.float32)) == pytest.approx(0.5)
    assert roc_auc(labels, np.full(4, 0.5, np.float32)) == pytest.approx(0.5)


def test_roc_auc() -> None:
    # 6 pairs: 0.9 beats three negatives, 0.7 beats two
    assert roc_auc(LABELS, SCORES) == pytest.approx(5 / 6)
    assert math.isnan(roc_auc(np.ones(3, np.float32), SCORES[:3]))


def test_weights_count_rows_several_times() -> None:
    weights = np.array([2.0, 1, 1, 3, 0])
    repeated = np.repeat(np.arange(5), weights.astype(int))
    assert average_precision(LABELS, SCORES, weights) == pytest.approx(
        average_precision(LABELS[repeated], SCORES[repeated])
    )
    assert roc_auc(LABELS, SCORES, weights) == pytest.approx(roc_auc(LABELS[repeated], SCORES[repeated]))
    assert rmse(LABELS, SCORES, weights) == pytest.approx(rmse(LABELS[repeated], SCORES[repeated]))


def test_rmse() -> None:
    assert rmse(np.array([1.0, 2, 3]), np.array([1.0, 4, 7])) == pytest.approx(math.sqrt((0 + 4 + 16) / 3))
    assert math.isnan(rmse(np.zeros(0), np.zeros(0)))


def test_row_losses() -> None:
    losses = row_losses(Metric.AVERAGE_PRECISION, np.array([1.0, 0, 1, 0]), np.array([0.8, 0.25, 0.0, 1.0]))
    expected = [-math.log(0.8), -math.log(0.75), -math.log(CLIP), -math.log(1 - (1 - CLIP))]
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert row_losses(Metric.RMSE, np.array([1.0, 2]), np.array([3.0, 2])).tolist() == [4, 0]


def test_the_interval_covers_the_truth_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(3)
    outputs = random.normal(0, 5, 400)
    measured = figure(Metric.RMSE, np.zeros(400), outputs)
    assert measured.decided
    assert measured.low < 5 < measured.high
    assert measured.value == pytest.approx(rmse(np.zeros(400), outputs))
    assert measured == figure(Metric.RMSE, np.zeros(400), outputs)
    assert measured != figure(Metric.RMSE, np.zeros(400), outputs, seed=1)


def test_groups_are_drawn_whole() -> None:
    random = np.random.default_rng(3)
    outputs = np.repeat(random.normal(0, 5, 20), 20)  # twenty engines, each off by one number
    groups = np.repeat(np.arange(20), 20)
    by_row = figure(Metric.RMSE, np.zeros(400), outputs)
    by_group = figure(Metric.RMSE, np.zeros(400), outputs, groups)
    assert by_group.high - by_group.low > 3 * (by_row.high - by_row.low)
    assert figure(Metric.RMSE, np.zeros(400), outputs, np.full(400, -1)) == by_row


@pytest.mark.parametrize("positives", [0, 1, 9, 391, 400])
def test_too_few_rows_of_a_class_decide_nothing(positives: int) -> None:
    labels = np.zeros(400, np.float32)
    labels[:positives] = 1
    scores = np.linspace(1, 0, 400)
    measured = figure(Metric.AVERAGE_PRECISION, labels, scores)
    assert not measured.decided
    assert math.isnan(measured.low)
    assert measured.n == 400
    assert figure(Metric.AVERAGE_PRECISION, (np.arange(400) < 10).astype(float), scores).decided


def test_too_few_groups_decide_nothing() -> None:
    assert not figure(Metric.RMSE, np.zeros(400), np.ones(400), np.repeat(np.arange(4), 100)).decided


def test_a_paired_interval_is_narrower_than_the_figures() -> None:
    random = np.random.default_rng(5)
    truth = random.normal(0, 50, 300)
    hard = random.normal(0, 10, 300)
    first, second = truth + hard, truth + 1.2 * hard
    paired = paired_difference(Metric.RMSE, truth, first, second)
    assert paired.value == pytest.approx(rmse(truth, first) - rmse(truth, second))
    assert paired.high < 0
    alone = figure(Metric.RMSE, truth, first)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_histograms_hold_ten_rows_a_bin() -> None:
    labels = np.array([0] * 25 + [1] * 9, np.float32)
    scores = np.concatenate([np.full(10, 0.0), np.full(4, 0.5), np.full(6, 0.51), np.full(5, 1.0), np.full(9, 0.3)])
    found = score_histograms(labels, scores)
    assert found == {0: ((1, 10), (HISTOGRAM_BINS, 15))}  # the five at the top join the bin below
    everyone = score_histograms(np.ones(1000), np.linspace(0, 1, 1000))[1]
    assert sum(rows for _, rows in everyone) == 1000
    assert min(rows for _, rows in everyone) >= 10
    assert [upper for upper, _ in everyone] == sorted({upper for upper, _ in everyone})
