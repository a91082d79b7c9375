"""Scores that mean probabilities: scale and bias of a model's logits, fitted on the select part. Pure numpy.

J. Platt, "Probabilistic outputs for support vector machines", 1999, as H.-T. Lin, C.-J. Lin and R. C. Weng, "A note on
Platt's probabilistic outputs for support vector machines", Machine Learning 68, 2007, fit it: p = sigmoid(a z + b) has
the least log loss against smoothed targets, t+ = (N+ + 1) / (N+ + 2) and t- = 1 / (N- + 2), by Newton's method with
backtracking. It keeps the order of the scores. Isotonic regression is not offered: it needs some thousand labels, makes
ties of what the model tells apart, and is no scale and bias that the graph could carry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_OF_CLASS = 10
"""Fewer of a class say too little: a calibration of two numbers would follow them."""
CLIP = 1e-7
"""Scores are clipped to [CLIP, 1 - CLIP] before their logit."""
RIDGE = 1e-12
STEPS = 100
SMALLEST_STEP = 1e-10
CONVERGED = 1e-5
MAX_SCALE, MAX_BIAS = 100.0, 100.0
"""Beyond, classes are told apart without error, and a float32 graph would say 0 and 1 only."""


@dataclass(frozen=True)
class Calibration:
    """What the graph does to its logit. Attributes: reason: why it is neutral; None where it was fitted."""

    scale: float = 1.0
    bias: float = 0.0
    reason: str | None = "not fitted yet"

    def apply(self, scores: Floats) -> Floats:
        """Calibrated scores. Args: scores: uncalibrated, in [0, 1], shape (n,)."""
        if (self.scale, self.bias) == (1.0, 0.0):
            return scores
        return _sigmoid(self.scale * logits(scores) + self.bias)


def neutral(reason: str) -> Calibration:
    """Scores as they are."""
    return Calibration(1.0, 0.0, reason)


def logits(scores: Floats) -> Floats:
    """Args: scores: in [0, 1], shape (n,)."""
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float64)


def fit(scores: Floats, positive: npt.NDArray[np.bool_]) -> Calibration:
    """Scale and bias for these scores; neutral, with the reason, where they can't be fitted honestly.

    Args: scores: uncalibrated, in [0, 1], shape (n,); positive: shape (n,).
    """
    count = int(positive.sum())
    for name, of_class in (("positive", count), ("negative", len(positive) - count)):
        if of_class < MIN_OF_CLASS:
            return neutral(f"too few {name} samples: {of_class} of {MIN_OF_CLASS}")
    if not np.isfinite(scores).all():
        return neutral("the model gives scores that are no numbers")
    z = logits(scores)
    if np.ptp(z) == 0:
        return neutral("the model gives all samples the same score")
    scale, bias = _newton(z, positive)
    scale, bias = float(np.float32(scale)), float(np.float32(bias))  # as the graph carries them
    if not scale > 0:
        return neutral("the scores don't rise with the label")
    if not (scale <= MAX_SCALE and abs(bias) <= MAX_BIAS):
        return neutral("the scores tell the classes apart without an error")
    return Calibration(scale, bias, None)


def _newton(z: Floats, positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Lin, Lin and Weng 2007, algorithm 1, with p rising in z (their A is -scale)."""
    count = int(positive.sum())
    others = len(positive) - count
    target = np.where(positive, (count + 1) / (count + 2), 1 / (others + 2))
    scale, bias = 0.0, float(np.log((count + 1) / (others + 1)))
    loss = _loss(z, target, scale, bias)
    for _ in range(STEPS):
        p = _sigmoid(scale * z + bias)
        error, weight = p - target, p * (1 - p)
        gradient_a, gradient_b = float(error @ z), float(error.sum())
        if max(abs(gradient_a), abs(gradient_b)) < CONVERGED:
            break
        aa, bb, ab = float(weight @ (z * z)) + RIDGE, float(weight.sum()) + RIDGE, float(weight @ z)
        determinant = aa * bb - ab * ab
        step_a = -(bb * gradient_a - ab * gradient_b) / determinant
        step_b = -(aa * gradient_b - ab * gradient_a) / determinant
        slope = gradient_a * step_a + gradient_b * step_b
        size = 1.0
        while size >= SMALLEST_STEP:
            trial = _loss(z, target, scale + size * step_a, bias + size * step_b)
            if trial < loss + 1e-4 * size * slope:
                break
            size /= 2
        else:
            break  # no step is better: this is as near as floats come
        scale, bias, loss = scale + size * step_a, bias + size * step_b, trial
    return scale, bias


def _loss(z: Floats, target: Floats, scale: float, bias: float) -> float:
    """Log loss against the targets, without overflow."""
    f = scale * z + bias
    return float((np.logaddexp(0.0, f) - target * f).sum())


def _sigmoid(f: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * f)), np.float64)
