"""Small contracts of every shape, and samples whose label a network can learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from edge.dataset import Dataset, Part
from uns_topics.contract import (
    ClassLabel,
    ComputedContext,
    Context,
    Contract,
    DeclaredContext,
    EventSample,
    Feature,
    Metric,
    NoLabel,
    RunToFailureLabel,
    WindowSample,
)
from uns_topics.template import Network

LENGTH = 6
CAP = 125.0
FEATURES = (
    Feature(name="temperature", unit="degC", minimum=200, maximum=260),
    Feature(name="volume", unit="%", minimum=0, maximum=200),
    Feature(name="pressure", unit="hPa", minimum=950, maximum=1050, optional=True),
)
DECLARED = DeclaredContext(name="product", values=("A", "B"), spare=2)
COMPUTED = ComputedContext(features=("temperature", "pressure"), centres=((210.0, 960.0), (240.0, 1000.0)))
LABELS = {
    "classes": ClassLabel(name="solder", classes=("good", "defect"), positive="defect"),
    "run_to_failure": RunToFailureLabel(name="remaining", unit="", cap=CAP),
    "none": NoLabel(),
}


def make_contract(
    label: Literal["classes", "run_to_failure", "none"] = "classes",
    context: Context | None = None,
    windows: bool = False,
) -> Contract:
    """A contract over three features."""
    return Contract(
        federation="case",
        features=FEATURES,
        context=context,
        label=LABELS[label],
        sample=WindowSample(period_s=60, length=LENGTH) if windows else EventSample(key="board"),
        metric=Metric.AVERAGE_PRECISION if label == "classes" else Metric.RMSE,
    )


CASES: dict[str, tuple[Contract, Network]] = {
    "mlp": (make_contract(context=DECLARED), Network(kind="mlp", hidden=(16, 8), dropout=0.1)),
    "cnn1d": (make_contract("run_to_failure", COMPUTED, windows=True), Network(kind="cnn1d", hidden=(8, 8))),
    "gru": (make_contract(context=DECLARED, windows=True), Network(kind="gru", hidden=(8, 8))),
    "autoencoder": (make_contract("none", windows=True), Network(kind="autoencoder", hidden=(12, 4))),
    "factory": (make_contract(context=COMPUTED), Network(kind="tests.edge.training.cases:with_batch_norm")),
}
ALLOWED = frozenset({"tests.edge.training.cases:with_batch_norm"})


def with_batch_norm(contract: Contract) -> nn.Module:
    """A site's own module, with running statistics."""
    return nn.Sequential(nn.Linear(2 * len(contract.features), 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


class Folding(nn.Module):
    """A module that computes something else when it is exported than when it is called."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.one = nn.Linear(2 * len(contract.features), 1)
        self.other = nn.Linear(2 * len(contract.features), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2F) -> (N, 1)."""
        first, second = (self.other, self.one) if torch.compiler.is_exporting() else (self.one, self.other)
        out: torch.Tensor = first(x) + 2 * second(x)
        return out


class Deaf(nn.Module):
    """Whatever comes in, the same comes out."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * len(contract.features), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2F) -> (N, 1)."""
        out: torch.Tensor = self.linear(0.0 * x)
        return out


def make_dataset(contract: Contract, samples: int = 600, seed: int = 0) -> Dataset:
    """Samples whose label follows from temperature and volume; a tenth of the pressures is missing."""
    rng = np.random.default_rng(seed)
    steps = contract.window_length or 1
    low = np.array([f.minimum for f in contract.features])
    high = np.array([f.maximum for f in contract.features])
    share = rng.random((samples + steps, len(contract.features)))  # (R, F) in [0, 1]
    rows = (low + (high - low) * share).astype(np.float32)
    rows[rng.random(len(rows)) < 0.1, 2] = np.nan
    last = share[steps - 1 : steps - 1 + samples]
    score = last[:, 0] + last[:, 1]
    labels = {
        "classes": (score > 1.4).astype(np.float32),
        "run_to_failure": (100.0 * score).astype(np.float32),
        "none": np.full(samples, np.nan, np.float32),
    }[contract.label.kind]
    place = np.arange(samples) / samples
    parts = np.select([place < 0.6, place < 0.8], [Part.TRAIN, Part.SELECT], Part.REPORT)
    return Dataset(
        rows=rows,
        windows=np.stack([np.arange(samples), np.arange(samples) + steps], axis=1),
        labels=labels,
        contexts=rng.integers(0, 3, samples, dtype=np.int64),
        parts=parts.astype(np.uint8),
        times=np.arange(samples, dtype=np.float64),
        instances=np.zeros(samples, np.int64),
        groups=np.full(samples, -1, np.int64),
        length=contract.window_length,
    )
