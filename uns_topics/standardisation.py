"""Standardisation from summable statistics, the same at the aggregator (pooled) and at an edge (its own).

Values are clipped to the contract's range and scaled to [0, 1] before they are counted, so that a sum in float64 is
exact enough and no feature's unit dominates. Inside the graph the same clip and scale stand before the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from uns_topics.contract import Contract
from uns_topics.model import Count, Value
from uns_topics.tensors import TensorTable, Vector

MEAN_TENSOR = "standardise.mean"
DEVIATION_TENSOR = "standardise.deviation"
MIN_CELL = 10
"""Cells (a feature at an operating point, a class, a bin) with fewer rows are not told: nobody is singled out."""
MIN_DEVIATION = 1e-4
"""Floor of a deviation, as a share of the contract's range: wide ranges hold narrow operating points."""
PARTICIPANT_CAP = 0.5
"""The most of a pooled cell's rows that one participant stands for."""
CLASS_WEIGHT_RANGE = (1.0, 20.0)


class Moments(Value):
    """n, sum and sum of squares: add them over participants and the pooled mean and deviation follow."""

    n: Count
    sum: float
    sum_squares: float = Field(ge=0)

    def __add__(self, other: Moments) -> Moments:
        return Moments(n=self.n + other.n, sum=self.sum + other.sum, sum_squares=self.sum_squares + other.sum_squares)

    @property
    def mean(self) -> float:
        """Raises: ZeroDivisionError: n is 0."""
        return self.sum / self.n

    @property
    def deviation(self) -> float:
        """Population standard deviation. Raises: ZeroDivisionError: n is 0."""
        return float(np.sqrt(max(0.0, self.sum_squares / self.n - self.mean**2)))

    def scaled(self, share: float) -> Moments:
        """The same mean and deviation with less weight (a cap on one participant)."""
        n = max(1, int(self.n * share))
        return Moments(n=n, sum=self.sum * n / self.n, sum_squares=self.sum_squares * n / self.n)


Cells = Mapping[int, Mapping[str, Moments]]
"""Moments by context slot, then by feature."""


def scale(values: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[np.float64]:
    """Clip to the contract's ranges and scale to [0, 1]. Args: values: shape (..., F), NaN = missing."""
    low = np.array([f.minimum for f in contract.features])
    high = np.array([f.maximum for f in contract.features])
    scaled: npt.NDArray[np.float64] = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return scaled


def context_slots(
    values: npt.NDArray[np.float32], declared: npt.NDArray[np.int64], contract: Contract
) -> npt.NDArray[np.int64]:
    """The context slot of each row: the declared one, or the nearest centre (row 0 where a centre feature is missing).

    The graph computes the same from the same values: distance in range-scaled units, ties to the first centre.
    Args: values: shape (n, F); declared: shape (n,).
    """
    context = contract.context
    if context is None:
        return np.zeros(len(values), np.int64)
    if context.kind == "declared":
        return declared
    columns = [contract.feature_names.index(name) for name in context.features]
    low = np.array([contract.features[c].minimum for c in columns])
    high = np.array([contract.features[c].maximum for c in columns])
    centres = (np.array(context.centres) - low) / (high - low)  # (C, k)
    point = scale(values, contract)[:, columns]  # (n, k)
    distance = np.square(point[:, None, :] - centres[None]).sum(axis=2)  # (n, C)
    nearest = np.argmin(np.where(np.isnan(distance), np.inf, distance), axis=1) + 1
    return np.where(np.isnan(distance).any(axis=1), 0, nearest).astype(np.int64)


def cells(
    values: npt.NDArray[np.float32], slots: npt.NDArray[np.int64], contract: Contract, minimum: int = MIN_CELL
) -> dict[int, dict[str, Moments]]:
    """Moments by context slot and feature; slot 0 pools all rows; cells under `minimum` rows are left out.

    Where fewer rows than that would be left of slot 0 without the other cells, the smallest of those is left out too.
    Args: values: shape (n, F), raw units, NaN = missing; slots: shape (n,), from `context_slots`.
    """
    scaled = scale(values, contract)
    found: dict[int, dict[str, Moments]] = {}
    for slot in sorted({0, *np.unique(slots).tolist()}):
        chosen = scaled if slot == 0 else scaled[slots == slot]
        present = ~np.isnan(chosen)
        n, zeros = present.sum(axis=0), np.where(present, chosen, 0.0)
        total, squares = zeros.sum(axis=0), np.square(zeros).sum(axis=0)
        found[slot] = {
            name: Moments(n=int(n[i]), sum=float(total[i]), sum_squares=float(squares[i]))
            for i, name in enumerate(contract.feature_names)
            if n[i] >= minimum
        }
    for name in contract.feature_names:
        told = sorted((by_feature[name].n, slot) for slot, by_feature in found.items() if slot and name in by_feature)
        if told and not is_hidden(found[0][name].n - sum(n for n, _ in told), minimum):
            del found[told[0][1]][name]
    return {slot: by_feature for slot, by_feature in found.items() if by_feature}


def is_hidden(rest: int, minimum: int = MIN_CELL) -> bool:
    """Whether what is left of a total is no cell of a few rows. Args: rest: rows that only the total tells of."""
    return rest == 0 or rest >= minimum


def pool(participants: Iterable[Cells], cap: float = PARTICIPANT_CAP) -> dict[int, dict[str, Moments]]:
    """Sum cells over participants; in each cell one participant weighs at most `cap` of the rows.

    With a single participant there is nobody to be capped against. The order of participants does not matter beyond
    float rounding: callers pass them in participant order.
    """
    by_cell: dict[tuple[int, str], list[Moments]] = {}
    for participant in participants:
        for slot, features in participant.items():
            for name, moments in features.items():
                by_cell.setdefault((slot, name), []).append(moments)
    pooled: dict[int, dict[str, Moments]] = {}
    for (slot, name), parts in sorted(by_cell.items()):
        shares = capped_shares([moments.n for moments in parts], cap)
        kept = [m if share == 1 else m.scaled(share) for m, share in zip(parts, shares, strict=True)]
        pooled.setdefault(slot, {})[name] = sum(kept[1:], start=kept[0])
    return pooled


def capped_shares(rows: Sequence[int], cap: float = PARTICIPANT_CAP) -> list[float]:
    """What part of each participant's rows counts, so that none has more than `cap` of all; alone, all of them."""
    total = sum(rows)
    limits = [(total - n) * cap / (1 - cap) for n in rows]
    return [limit / n if 0 < limit < n else 1.0 for n, limit in zip(rows, limits, strict=True)]


def fill_standardisation(
    vector: Vector, table: TensorTable, contract: Contract, pooled: Cells, kept: Collection[str] = ()
) -> Vector:
    """A copy of `vector` with its standardisation tables (slots, F) filled.

    A slot without statistics takes slot 0's; a feature without any takes the middle and a quarter of its range. What is
    in `kept` stays as it is.
    """
    filled = vector.copy()
    mean = table.view(filled, MEAN_TENSOR)
    deviation = table.view(filled, DEVIATION_TENSOR)
    for column, name in enumerate(contract.feature_names):
        if name in kept:
            continue
        whole = pooled.get(0, {}).get(name)
        for slot in range(contract.slots):
            moments = pooled.get(slot, {}).get(name, whole)
            mean[slot, column] = moments.mean if moments else 0.5
            deviation[slot, column] = max(MIN_DEVIATION, moments.deviation) if moments else 0.25
    return filled


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weight per class, inverse to its share, the most frequent class at 1, clipped to 1-20; absent classes too.

    Args: counts: federated label counts in the contract's class order.
    """
    most = max(counts, default=0)
    if most == 0:
        return tuple(1.0 for _ in counts)
    low, high = CLASS_WEIGHT_RANGE
    return tuple(float(np.clip(most / max(1, n), low, high)) for n in counts)
