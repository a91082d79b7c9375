"""Scoring models on the same rows: summable losses for promotion, figures with intervals for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge.metrics import Figure as Measured
from edge.metrics import figure, paired_difference, row_losses, score_histograms
from uns_topics.contract import ClassLabel, Contract, NoLabel, RunToFailureLabel
from uns_topics.reports import Figure, ModelName, ModelScores, PartScores, Sums

Predictions = Mapping[ModelName, npt.NDArray[np.float32]]
"""Outputs of each model on the same rows: shape (n,) each."""


def score(
    predictions: Predictions,
    labels: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    contract: Contract,
    class_weights: tuple[float, ...],
    *,
    capped: bool = False,
    served: ModelName = "current",
) -> PartScores:
    """All models on one part.

    Args:
        labels: shape (n,): class index or number (uncapped).
        groups: shape (n,): rows of one group are drawn together by the bootstrap.
        class_weights: those of the round; the loss that decides is weighted like the training loss.
        capped: cap labels at the contract's cap (run_to_failure).
        served: what runs on the tags.
    """
    label = contract.label
    if capped:
        labels = cap(labels, contract)
    weights = row_weights(labels, contract, class_weights)
    truth = truth_of(labels, contract)
    losses = {name: row_losses(contract.metric, truth, p) * weights for name, p in predictions.items()}
    is_classes = isinstance(label, ClassLabel)
    models: dict[ModelName, ModelScores] = {}
    for name, predicted in predictions.items():
        histograms = score_histograms(labels, predicted, len(label.classes)) if isinstance(label, ClassLabel) else {}
        names = label.classes if isinstance(label, ClassLabel) else ()
        models[name] = ModelScores(
            loss=Sums.of(losses[name]),
            metric=_wire(figure(contract.metric, truth, predicted, groups)),
            histograms={names[index]: merged for index, merged in histograms.items()} if is_classes else {},
        )
    difference = local = own = None
    if "candidate" in losses and "current" in losses:
        difference = Sums.of(losses["candidate"] - losses["current"])
    if "current" in predictions and "local_only" in predictions:
        local = _wire(
            paired_difference(contract.metric, truth, predictions["current"], predictions["local_only"], groups)
        )
    if served != "current" and served in predictions and "current" in predictions:
        own = _wire(paired_difference(contract.metric, truth, predictions[served], predictions["current"], groups))
    return PartScores(
        n=len(labels),
        models=models,
        candidate_minus_current=difference,
        current_minus_local=local,
        served_minus_current=own,
    )


def cap(labels: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.float32]:
    """Labels capped at the contract's cap (run_to_failure); others as they are."""
    if not isinstance(contract.label, RunToFailureLabel):
        return labels
    capped: npt.NDArray[np.float32] = np.minimum(labels, np.float32(contract.label.cap))
    return capped


def truth_of(labels: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.float32]:
    """1 for the positive class, whichever place it has in the label's dictionary, else 0; numbers as they are.

    Without a label (autoencoder) the output is the error, so the truth is 0.
    """
    label = contract.label
    if isinstance(label, NoLabel):
        return np.zeros(len(labels), np.float32)
    if not isinstance(label, ClassLabel):
        return labels
    return np.asarray(labels == label.classes.index(label.positive), np.float32)


def row_weights(
    labels: npt.NDArray[np.float32], contract: Contract, class_weights: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """What each row's loss counts: its class's weight; for numbers, squared error is in units of the cap."""
    if isinstance(contract.label, ClassLabel):
        weights = np.asarray(class_weights or (1.0,) * len(contract.label.classes), np.float64)
        return weights[labels.astype(np.int64)]
    if isinstance(contract.label, RunToFailureLabel):
        return np.full(len(labels), contract.label.cap**-2)
    return np.ones(len(labels))


def _wire(measured: Measured) -> Figure:
    """A measured figure as it is published; NaN becomes null."""

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return Figure(
        value=plain(measured.value),
        low=plain(measured.low),
        high=plain(measured.high),
        n=measured.n,
        undecided=not measured.decided,
    )
