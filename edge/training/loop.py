"""Local training: a fixed number of steps over the training part. One visible loop, in the order things happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.dataset import Dataset, Part
from edge.training.modules import PlantModel
from edge.training.optimizers import Adam, Optimizer, Sgd
from uns_topics.contract import ClassLabel, Contract, RunToFailureLabel
from uns_topics.plan import Training

SCORE_ROWS = 4096


class Diverged(Exception):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: weighted log loss, squared error in units of the cap, or the reconstruction error."""

    contract: Contract
    class_weights: tuple[float, ...]

    def rows(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Loss per row. Args: raw: (B,) from `PlantModel.raw`; labels: (B,). Returns: (B,)."""
        label = self.contract.label
        if isinstance(label, ClassLabel):
            positive = label.classes.index(label.positive)
            target = (labels == positive).to(raw.dtype)  # (B,)
            weights = torch.tensor(self.class_weights or (1.0,) * len(label.classes))[labels.long()]  # (B,)
            return torch.nn.functional.binary_cross_entropy_with_logits(raw, target, weights, reduction="none")
        if isinstance(label, RunToFailureLabel):
            return torch.square(raw - torch.clamp(labels, max=label.cap) / label.cap)
        return raw


def train(
    model: PlantModel,
    optimizer: Optimizer,
    dataset: Dataset,
    objective: Objective,
    settings: Training,
    rng: np.random.Generator,
    correction: Mapping[str, Tensor] | None = None,
) -> float:
    """Take `settings.steps` steps; returns the mean loss of the last quarter.

    Args: correction: what is added to the gradients of parameters, by name and of their shapes.
    Raises: Diverged.
    """
    train_part = dataset.of(Part.TRAIN)
    anchor = [p.detach().clone() for p in model.parameters()] if settings.proximal_mu else []
    corrected = [(p, correction[name]) for name, p in model.named_parameters() if correction and name in correction]
    losses = []
    model.train()
    for _ in range(settings.steps):
        rows = rng.choice(train_part, min(settings.batch_size, len(train_part)), replace=False)  # (B,)
        features, contexts, labels = batch(dataset, rows)  # (B, [L,] F), (B,), (B,)
        loss = objective.rows(model.raw(features, contexts), labels).mean()
        if anchor:  # FedProx (Li et al. 2020, arXiv:1812.06127): mu / 2 * |w - w_global|^2
            distance = sum(torch.square(p - a).sum() for p, a in zip(model.parameters(), anchor, strict=True))
            loss = loss + settings.proximal_mu / 2 * distance
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for parameter, shift in corrected:  # SCAFFOLD: g - c_k + c; clipped with it, corrections would no longer cancel
            parameter.grad = shift.clone() if parameter.grad is None else parameter.grad.add_(shift)
        optimizer.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise Diverged(f"the loss became {losses[-1]} in step {len(losses)}")
    model.eval()
    return float(np.mean(losses[-max(1, len(losses) // 4) :]))


def score(model: PlantModel, dataset: Dataset, part: Part, objective: Objective) -> float:
    """Mean loss of a part; infinite where it has no rows."""
    rows = dataset.of(part)
    total = 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), SCORE_ROWS):
            features, contexts, labels = batch(dataset, rows[start : start + SCORE_ROWS])
            total += float(objective.rows(model.raw(features, contexts), labels).sum())
    return total / len(rows) if len(rows) else float("inf")


def batch(dataset: Dataset, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, [L,] F), contexts (B,) and labels (B,) of these samples."""
    return (
        torch.from_numpy(dataset.features(rows)),
        torch.from_numpy(dataset.contexts[rows]),
        torch.from_numpy(dataset.labels[rows]),
    )


def make_optimizer(model: PlantModel, settings: Training) -> Optimizer:
    """A fresh optimiser: in a round it starts anew, because its state belongs to no global version."""
    if settings.optimizer == "adam":
        return Adam(model.parameters(), settings.learning_rate)
    return Sgd(model.parameters(), settings.learning_rate, settings.momentum)
