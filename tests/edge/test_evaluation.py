"""Scores on numbers that can be checked by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from edge.evaluation import score
from tests.edge.examples import engine_contract, solder_contract
from uns_topics.contract import Contract

ALONE = np.full(4, -1, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def contract(positive: str) -> Contract:
    label = solder_contract().label.model_dump() | {"positive": positive}
    return solder_contract(label=label)


def test_the_loss_of_classes_is_weighted_log_loss() -> None:
    labels = floats(0, 0, 0, 1)
    predictions = {"candidate": floats(0.5, 0.5, 0.5, 0.5), "current": floats(0.25, 0.25, 0.25, 0.75)}
    part = score(predictions, labels, ALONE, contract("defect"), (1.0, 3.0))  # type: ignore[arg-type]
    candidate, current = part.models["candidate"].loss, part.models["current"].loss
    assert candidate.n == current.n == part.n == 4
    assert candidate.sum == pytest.approx(6 * log(2))
    assert candidate.sum_squares == pytest.approx((3 + 9) * log(2) ** 2)
    assert current.sum == pytest.approx(6 * -log(0.75))
    assert part.candidate_minus_current is not None
    assert part.candidate_minus_current.sum == pytest.approx(candidate.sum - current.sum)
    assert part.models["candidate"].histograms == {}  # fewer than ten rows of each class
    assert part.current_minus_local is None


def test_the_positive_class_may_stand_first() -> None:
    """`positive: good`: the score is the probability of class 0."""
    labels = floats(0, 0, 0, 1)
    right, wrong = floats(0.9, 0.9, 0.9, 0.1), floats(0.1, 0.1, 0.1, 0.9)
    part = score({"candidate": right, "current": wrong}, labels, ALONE, contract("good"), (1.0, 3.0))
    assert part.models["candidate"].loss.sum == pytest.approx(6 * -log(0.9), rel=1e-5)
    assert part.models["current"].loss.sum == pytest.approx(6 * -log(0.1), rel=1e-5)
    assert part.models["candidate"].metric.value == 1.0
    many = np.repeat(labels, 10)
    part = score({"current": np.repeat(right, 10)}, many, np.repeat(ALONE, 10), contract("good"), (1.0, 3.0))
    assert {name: sum(rows for _, rows in bins) for name, bins in part.models["current"].histograms.items()} == {
        "good": 30,
        "defect": 10,
    }


def test_without_class_weights_each_row_counts_one() -> None:
    part = score({"current": floats(0.5, 0.5, 0.5, 0.5)}, floats(0, 0, 0, 1), ALONE, contract("defect"), ())
    assert part.models["current"].loss.sum == pytest.approx(4 * log(2))


def test_the_loss_of_a_regression_is_in_units_of_its_cap_and_the_figure_is_not() -> None:
    labels, outputs = floats(1, 2, 3, 10), floats(1, 2, 3, 4)
    part = score({"current": outputs}, labels, ALONE, engine_contract(), ())
    assert part.models["current"].loss.sum == pytest.approx(36 / 16)
    assert part.models["current"].metric.value == pytest.approx(3.0)
    capped = score({"current": outputs}, labels, ALONE, engine_contract(), (), capped=True)  # 10 counts as 4
    assert capped.models["current"].loss.sum == 0
    assert capped.models["current"].metric.value == 0


def test_a_part_without_rows_or_without_one_class_decides_nothing() -> None:
    none = np.empty(0, np.float32)
    empty = score({"current": none, "candidate": none}, none, ALONE[:0], contract("defect"), (1.0, 3.0))
    assert (empty.n, empty.models["current"].loss.n, empty.models["current"].metric.value) == (0, 0, None)
    good = score({"current": floats(0.1, 0.2, 0.3, 0.4)}, floats(0, 0, 0, 0), ALONE, contract("defect"), (1.0, 3.0))
    assert good.models["current"].metric.undecided
    assert good.models["current"].loss.n == 4


def test_federated_is_compared_with_local_only_on_the_same_rows() -> None:
    labels = np.tile(floats(0, 1), 20)
    groups = np.full(40, -1, np.int64)
    better, worse = np.where(labels == 1, 0.9, 0.1).astype(np.float32), np.full(40, 0.5, np.float32)
    part = score({"current": better, "local_only": worse}, labels, groups, contract("defect"), (1.0, 1.0))
    assert part.current_minus_local is not None
    assert part.current_minus_local.value == pytest.approx(0.5)
