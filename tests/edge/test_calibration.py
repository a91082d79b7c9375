"""Calibration: it finds what was put in, keeps the order, and says why it does nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.calibration import MIN_OF_CLASS, _newton, fit, logits


def drawn(n: int, scale: float, bias: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose probability is sigmoid(scale * logit + bias)."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, n)
    positive = random.random(n) < 1 / (1 + np.exp(-(scale * z + bias)))
    return 1 / (1 + np.exp(-z)), positive


def log_loss(p: np.ndarray, positive: np.ndarray) -> float:
    return float(-np.log(np.where(positive, p, 1 - p)).mean())


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.5, -3.0), (2.0, 1.0)])
def test_what_the_scores_lack_is_found(scale: float, bias: float) -> None:
    scores, positive = drawn(20_000, scale, bias)
    found = fit(scores, positive)
    assert found.reason is None
    assert (found.scale, found.bias) == (pytest.approx(scale, abs=0.1), pytest.approx(bias, abs=0.1))
    fresh, truth = drawn(20_000, scale, bias, seed=1)
    assert log_loss(found.apply(fresh), truth) <= log_loss(fresh, truth) + 1e-4


def test_it_is_where_the_smoothed_loss_is_least() -> None:
    scores, positive = drawn(300, 1.0, -2.0)
    z = logits(scores)
    count, n = int(positive.sum()), len(positive)
    target = np.where(positive, (count + 1) / (count + 2), 1 / (n - count + 2))

    def loss(a: float, b: float) -> float:
        return float((np.logaddexp(0, a * z + b) - target * (a * z + b)).sum())

    a, b = _newton(z, positive)
    for da, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert loss(a, b) < loss(a + da, b + db)


def test_perfectly_parted_classes_stay_finite() -> None:
    """Without the smoothed targets the scale would grow without end."""
    scores = np.concatenate([np.full(20, 0.2), np.full(20, 0.8)])
    found = fit(scores, np.arange(40) >= 20)
    assert found.reason is None
    assert found.scale < 10
    assert found.apply(scores).tolist() == pytest.approx([1 / 22] * 20 + [21 / 22] * 20, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "positives", "reason"),
    [
        (np.linspace(0.1, 0.9, 100), range(91, 100), f"too few positive samples: 9 of {MIN_OF_CLASS}"),
        (np.linspace(0.1, 0.9, 100), range(8, 100), f"too few negative samples: 8 of {MIN_OF_CLASS}"),
        (np.linspace(0.1, 0.9, 100), range(50), "the scores don't rise with the label"),
        (np.full(100, 0.3), range(50), "the model gives all samples the same score"),
        (np.full(100, np.nan), range(50), "the model gives scores that are no numbers"),
    ],
)
def test_it_stays_neutral_where_it_could_not_be_honest(scores: np.ndarray, positives: range, reason: str) -> None:
    found = fit(scores, np.isin(np.arange(100), positives))
    assert (found.scale, found.bias, found.reason) == (1.0, 0.0, reason)
    assert found.apply(scores) is scores


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(25, 200), st.floats(0.0, 1.0))
def test_it_keeps_the_order(seed: int, n: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    scores = random.random(n).round(2)
    positive = random.random(n) < (1 - noise) * scores + noise * random.random()
    calibrated = fit(scores, positive).apply(scores)
    order = np.argsort(scores)
    assert (np.diff(calibrated[order]) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
