"""Matured samples as arrays: what the trainer reads and what evaluation scores.

Rows lie once; a sample is a run of rows, so that overlapping windows cost two numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt


class Part(IntEnum):
    """Which part of the split a sample belongs to."""

    TRAIN = 0
    SELECT = 1
    REPORT = 2
    GAP = 3
    """Between two parts: used by none, so that no window reaches over."""


@dataclass(frozen=True)
class Dataset:
    """N samples over R rows of F features, raw values in the contract's units, NaN = missing.

    Attributes:
        rows: shape (R, F), float32.
        windows: shape (N, 2), int64: the sample is rows[start:stop]; event samples have stop = start + 1.
        labels: shape (N,), float32: class index, or the number to predict; NaN where the contract has no label.
        contexts: shape (N,), int64: declared context slot, 0 = unknown.
        parts: shape (N,), uint8: see `Part`.
        times: shape (N,), float64: event time, seconds since the epoch.
        instances: shape (N,), int64: index of the instance.
        groups: shape (N,), int64: samples of one group (panel, engine) are never split and are drawn together.
        length: steps of a window sample; None for event samples.
    """

    rows: npt.NDArray[np.float32]
    windows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    contexts: npt.NDArray[np.int64]
    parts: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    instances: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    length: int | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def of(self, part: Part) -> npt.NDArray[np.int64]:
        """Indices of the samples of one part, in time order."""
        chosen = np.flatnonzero(self.parts == part)
        return chosen[np.argsort(self.times[chosen], kind="stable")]

    def features(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Model inputs: shape (n, F), or (n, length, F) with missing rows before a run's start as NaN."""
        if self.length is None:
            events: npt.NDArray[np.float32] = self.rows[self.windows[index, 0]]
            return events
        stop = self.windows[index, 1]
        steps = stop[:, None] - np.arange(self.length, 0, -1)[None]  # (n, length)
        missing = steps < self.windows[index, 0][:, None]
        gathered: npt.NDArray[np.float32] = self.rows[np.where(missing, 0, steps)]
        gathered[missing] = np.nan
        return gathered

    def save(self, path: Path) -> None:
        """Write as .npz (no pickles in it)."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(path, length=np.array(self.length or 0), **arrays)

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            return cls(**arrays, length=int(file["length"]) or None)


_ARRAYS = ("rows", "windows", "labels", "contexts", "parts", "times", "instances", "groups")
