"""What a model has to beat: a constant and a linear model, fitted on the training part. Pure numpy.

Missing values become the mean and a mask column; of a window the last row, the mean and the slope are used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.dataset import Dataset, Part
from uns_topics.contract import ClassLabel, Contract, RunToFailureLabel
from uns_topics.standardisation import scale

RIDGE = 1e-3
"""Penalty per row on standardised columns: enough to make collinear columns solvable."""
NEWTON_STEPS = 25
CHUNK_ROWS = 8192

Floats = npt.NDArray[np.float64]
Predictions = npt.NDArray[np.float32]


def constant_predictions(dataset: Dataset, contract: Contract, index: npt.NDArray[np.int64]) -> Predictions:
    """The training part's base rate, or mean of the (capped) number. Returns: shape (n,)."""
    target = _target(dataset.labels[dataset.of(Part.TRAIN)], contract)
    value = float(target.mean()) if len(target) else 0.0
    return np.full(len(index), value * _unit(contract), np.float32)


def linear_predictions(dataset: Dataset, contract: Contract, index: npt.NDArray[np.int64]) -> Predictions:
    """Logistic regression by Newton's method, or ridge regression. Returns: shape (n,)."""
    train = dataset.of(Part.TRAIN)
    target = _target(dataset.labels[train], contract)
    if len(train) == 0:
        return np.zeros(len(index), np.float32)
    columns = _columns(dataset, contract, train)
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    deviation[deviation < 1e-9] = 1.0
    design = _with_intercept((columns - mean) / deviation)
    is_classes = isinstance(contract.label, ClassLabel)
    weights = _logistic(design, target) if is_classes else _ridge(design, target)
    outputs = np.empty(len(index), np.float32)
    for start in range(0, len(index), CHUNK_ROWS):
        chosen = index[start : start + CHUNK_ROWS]
        raw = _with_intercept((_columns(dataset, contract, chosen) - mean) / deviation) @ weights
        outputs[start : start + CHUNK_ROWS] = _sigmoid(raw) if is_classes else raw * _unit(contract)
    return outputs


def _target(labels: npt.NDArray[np.float32], contract: Contract) -> Floats:
    """1 for the positive class; the number in units of its cap."""
    label = contract.label
    if isinstance(label, ClassLabel):
        return np.asarray(labels == label.classes.index(label.positive), np.float64)
    if isinstance(label, RunToFailureLabel):
        return np.asarray(np.minimum(labels, label.cap) / label.cap, np.float64)
    return np.zeros(len(labels))


def _unit(contract: Contract) -> float:
    return contract.label.cap if isinstance(contract.label, RunToFailureLabel) else 1.0


def _columns(dataset: Dataset, contract: Contract, index: npt.NDArray[np.int64]) -> Floats:
    """Range-scaled values with masks: (n, 2F) of events, (n, 4F) of windows."""
    parts = []
    for start in range(0, max(1, len(index)), CHUNK_ROWS):
        scaled = scale(dataset.features(index[start : start + CHUNK_ROWS]), contract)
        missing = np.isnan(scaled)
        filled = np.where(missing, 0.5, scaled)
        if dataset.length is None:
            parts.append(np.concatenate([filled, missing], axis=1))
            continue
        present = ~missing
        count = np.maximum(present.sum(axis=1), 1)
        mean = np.where(present, filled, 0.0).sum(axis=1) / count
        steps = np.linspace(-1.0, 1.0, dataset.length)[None, :, None]
        slope = np.where(present, (filled - mean[:, None]) * steps, 0.0).sum(axis=1) / count
        parts.append(np.concatenate([filled[:, -1], mean, slope, missing.mean(axis=1)], axis=1))
    return np.concatenate(parts)


def _with_intercept(columns: Floats) -> Floats:
    return np.concatenate([columns, np.ones((len(columns), 1))], axis=1)


def _penalty(width: int, rows: int) -> Floats:
    """Ridge on every column but the intercept."""
    diagonal = np.full(width, RIDGE * rows)
    diagonal[-1] = 1e-9 * rows
    return np.diag(diagonal)


def _ridge(design: Floats, target: Floats) -> Floats:
    gram = design.T @ design + _penalty(design.shape[1], len(design))
    return np.asarray(np.linalg.solve(gram, design.T @ target))


def _logistic(design: Floats, target: Floats) -> Floats:
    """Iteratively reweighted least squares (Hastie, Tibshirani, Friedman 2009, section 4.4.1), with a step limit."""
    weights = np.zeros(design.shape[1])
    penalty = _penalty(design.shape[1], len(design))
    for _ in range(NEWTON_STEPS):
        probability = _sigmoid(design @ weights)
        gradient = design.T @ (target - probability) - penalty @ weights
        curvature = np.maximum(probability * (1 - probability), 1e-6)
        step = np.linalg.solve(design.T @ (design * curvature[:, None]) + penalty, gradient)
        weights = weights + step * min(1.0, 10.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-6:
            break
    return weights


def _sigmoid(raw: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(raw, -500, 500))))
