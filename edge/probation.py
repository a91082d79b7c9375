"""What a model has been evaluated on in this plant, and whether that is enough for it to decide anything. Pure.

The select part counts first: no model was trained on it. A plant that has hardly any yet has something as good: samples
that the very model ran on before their label was known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.dataset import Dataset, Part
from edge.evaluation import truth_of
from edge.rules import Probation
from uns_topics.contract import ClassLabel, Contract

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """Matured samples to evaluate and fit on.

    Attributes: index: places in the dataset, in time order. problem: why they are too few; None where they aren't.
    """

    index: Index
    positives: int | None
    problem: str | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.index)


def evidence(
    dataset: Dataset, contract: Contract, needs: Probation, predicted: npt.NDArray[np.bool_] | None = None
) -> Evidence:
    """What there is to go by.

    Args: predicted: shape (N,): the model ran on it live; None where it may have been trained on what it ran on.
    """
    select = dataset.of(Part.SELECT)
    found = _look(select, dataset, contract, needs)
    if found.problem is None or predicted is None:
        return found
    both = np.union1d(select, np.flatnonzero(predicted))
    return _look(both[np.argsort(dataset.times[both], kind="stable")], dataset, contract, needs)


def _look(index: Index, dataset: Dataset, contract: Contract, needs: Probation) -> Evidence:
    positives = None
    if isinstance(contract.label, ClassLabel):
        positives = int((truth_of(dataset.labels[index], contract) == 1).sum())
    problem = None
    if len(index) < needs.rows:
        problem = f"evaluated on {len(index)} matured samples of {needs.rows}"
    elif positives is not None and positives < needs.positives:
        problem = f"evaluated on {positives} positive samples of {needs.positives}"
    return Evidence(index, positives, problem)
