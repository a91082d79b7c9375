"""Models and baselines on the rows of one snapshot: what is published of them. Pure, apart from onnxruntime."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge.baselines import constant_predictions, linear_predictions
from edge.dataset import Dataset, Part
from edge.evaluation import Predictions, cap, row_weights, score, truth_of
from edge.metrics import Figure, row_losses
from edge.models import BATCH_ROWS, Model
from edge.variants import gains
from uns_topics.contract import ClassLabel, Contract, NoLabel
from uns_topics.presence import Variant
from uns_topics.reports import ModelName, PartScores
from uns_topics.standardisation import Moments, cells, class_weights, context_slots

Outputs = npt.NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)


def outputs_of(models: Mapping[Key, Model], dataset: Dataset, index: npt.NDArray[np.int64]) -> dict[Key, Outputs]:
    """Outputs of each model, under its key: shape (n,) each. Args: index: places in the dataset, shape (n,)."""
    outputs: dict[Key, list[Outputs]] = {name: [] for name in models}
    for start in range(0, len(index), BATCH_ROWS):
        rows = index[start : start + BATCH_ROWS]
        features = dataset.features(rows)
        for name, model in models.items():
            outputs[name].append(model.run(features, dataset.contexts[rows]))
    return {name: np.concatenate(parts) if parts else np.empty(0, np.float32) for name, parts in outputs.items()}


class Snapshot:
    """The matured samples of one moment under a contract.

    Args: matured: how many had ever matured by then, dropped ones too; instances: path of each instance's number.
    """

    def __init__(self, dataset: Dataset, contract: Contract, matured: int, instances: tuple[str, ...] = ()) -> None:
        self.instances = instances
        self.dataset = dataset
        self.contract = contract
        self.matured = matured

    def predict(self, part: Part, models: Mapping[Key, Model]) -> dict[Key, Outputs]:
        """Outputs of each model on one part, under its key: shape (n,) each."""
        return outputs_of(models, self.dataset, self.dataset.of(part))

    def baselines(self, part: Part) -> dict[ModelName, Outputs]:
        """Outputs of the constant and the linear model on one part; without a label there is nothing to fit."""
        if isinstance(self.contract.label, NoLabel):
            return {}
        index = self.dataset.of(part)
        return {name: values[index] for name, values in self._baselines.items()}

    def score(
        self,
        part: Part,
        predictions: Predictions,
        weights: tuple[float, ...],
        *,
        capped: bool = False,
        served: ModelName = "current",
    ) -> PartScores:
        """Figures of each model on one part. Args: weights: of the classes."""
        index = self.dataset.of(part)
        labels, groups = self.dataset.labels[index], self.dataset.groups[index]
        return score(predictions, labels, groups, self.contract, weights, capped=capped, served=served)

    def loss(self, part: Part, outputs: Outputs, weights: tuple[float, ...]) -> float:
        """Mean loss of one model's outputs on one part, labels capped; infinite without rows."""
        if not len(outputs):
            return float("inf")
        labels = cap(self.dataset.labels[self.dataset.of(part)], self.contract)
        losses = row_losses(self.contract.metric, truth_of(labels, self.contract), outputs)
        return float((losses * row_weights(labels, self.contract, weights)).mean())

    def gains(self, running: Outputs, others: Mapping[Variant, Outputs]) -> dict[Variant, Figure]:
        """How much better other models are on the select part than what runs."""
        index = self.dataset.of(Part.SELECT)
        truth = truth_of(cap(self.dataset.labels[index], self.contract), self.contract)
        return gains(self.contract.metric, truth, running, others, self.dataset.groups[index])

    def training_rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Each row of the training part once, however many windows share it: shape (n, F); its context slot: (n,)."""
        train = self.dataset.of(Part.TRAIN)
        stops, first = np.unique(self.dataset.windows[train, 1] - 1, return_index=True)
        rows, declared = self.dataset.rows[stops], self.dataset.contexts[train][first]
        return rows, context_slots(rows, declared, self.contract)

    def cells(self) -> dict[int, dict[str, Moments]]:
        """Moments of the training part, by context slot and feature."""
        return cells(*self.training_rows(), self.contract)

    def class_weights(self) -> tuple[float, ...]:
        """Those of this plant alone."""
        return class_weights(self.label_counts)

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Rows of the training part by class."""
        label = self.contract.label
        if not isinstance(label, ClassLabel):
            return ()
        labels = self.dataset.labels[self.dataset.of(Part.TRAIN)].astype(np.int64)
        return tuple(int(n) for n in np.bincount(labels, minlength=len(label.classes)))

    @cached_property
    def _baselines(self) -> dict[ModelName, Outputs]:
        """Fitted on the training part once per snapshot."""
        everything = np.arange(len(self.dataset))
        return {
            "constant": constant_predictions(self.dataset, self.contract, everything),
            "linear": linear_predictions(self.dataset, self.contract, everything),
        }
