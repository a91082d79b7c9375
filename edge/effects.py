"""What follows from a plant's messages: samples, labels, ends of runs and problems, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.binding import BoundSource
from edge.sparkplug import RebirthRequest


@dataclass(frozen=True, slots=True)
class SampleReady:
    """A sample that a model can run on now.

    Attributes:
        instance: the plant's own path. key: unique in it. time_s: event time. arrival_s: when it was complete.
        group: batch, panel or engine, "" without. split: what the data says: "", train, select or report.
        context: slot of the declared context, 0 = unknown.
        values: float32 in the contract's units, NaN = missing; shape (F,), or (L, F) for a window.
        matures_s: event time at which its label's window closes; None where the contract has no label.
        segment_s, step, rows: windows only: see `edge.windows.Window`.
    """

    instance: str
    key: str
    time_s: float
    arrival_s: float
    group: str
    split: str
    context: int
    values: npt.NDArray[np.float32]
    matures_s: float | None
    segment_s: float | None = None
    step: int = 0
    rows: npt.NDArray[np.float32] | None = None

    @property
    def new_rows(self) -> npt.NDArray[np.float32]:
        """What no sample before it had; shape (n, F), where windows share the other rows."""
        return self.values[None] if self.rows is None else self.rows


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A source says a sample's class; what it revises is decided where all labels lie, in the store.

    Attributes: value: class index in the contract; precedence: 0 is the strongest source.
    """

    instance: str
    key: str
    value: float
    source: str
    precedence: int
    time_s: float
    matures_after_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A group's run has ended: its samples' remaining steps are known now.

    Attributes: time_s: event time of its last row; remaining: steps that were left then.
    """

    instance: str
    group: str
    time_s: float
    remaining: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Problem:
    """A message, or a part of it, that could not be used. `detail` is for the plant's own log and stays short."""

    code: str
    topic: str
    detail: str


@dataclass(frozen=True, slots=True)
class Understood:
    """A message as a source reads it, before anything follows from it; for who looks at a plant's data itself.

    Attributes: said_s: its own timestamp, None without; values: by feature, NaN where missing; seed: only a last value.
    """

    source: BoundSource
    topic: str
    said_s: float | None
    fields: Mapping[str, Any]
    good: bool
    values: Mapping[int, float]
    seed: bool


Effect = SampleReady | LabelSet | RunEnded | Problem | RebirthRequest
