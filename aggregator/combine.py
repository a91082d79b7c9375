"""A round's new vector: the strategy steps the weights, buffers take the plain mean, everything else stays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aggregator.fold import weighted_mean
from aggregator.strategies.base import Strategy, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.tensors import Role, TensorTable, Vector

_VARIANCE = "running_var"


class CombineError(ValueError):
    """The result can't be a version: NaN or infinity in it."""


@dataclass(frozen=True)
class Combined:
    """The vector of the next version and what belongs to it."""

    vector: Vector
    state: StrategyState
    diagnostics: Mapping[str, float]


def combine(
    base: Vector,
    strategy: Strategy,
    state: StrategyState,
    weights: UpdateSet,
    buffers: UpdateSet,
    table: TensorTable,
) -> Combined:
    """Base plus step.

    Args: base: shape (table.size,), float32, left as it is; weights, buffers: the deltas of these two roles.
    Raises: FoldError: nothing to combine. CombineError: the result is not finite.
    """
    step = strategy.apply(state, weights, table)
    vector = base.copy()
    with np.errstate(over="ignore"):  # what overflows is refused below
        table.scatter(vector, Role.WEIGHT, np.add(table.gather(base, Role.WEIGHT), step.step))
    if table.elements(Role.BUFFER):
        mean = weighted_mean(buffers, [1] * len(buffers))
        table.scatter(vector, Role.BUFFER, np.add(table.gather(base, Role.BUFFER), mean))
        for tensor in table.tensors:
            if tensor.role is Role.BUFFER and tensor.name.endswith(_VARIANCE):
                values = table.view(vector, tensor.name)
                np.maximum(values, 0.0, out=values)
    if not np.isfinite(vector).all():
        raise CombineError("the combined vector holds NaN or infinity")
    return Combined(vector, step.state, step.diagnostics)


def encode_state(state: StrategyState) -> bytes:
    """A strategy's state as bytes (npz; nothing is pickled)."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(state[name]) for name in sorted(state)})
    return buffer.getvalue()


def decode_state(raw: bytes) -> StrategyState:
    """The inverse of `encode_state`."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
