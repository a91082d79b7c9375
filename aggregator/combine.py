"""A round's new vector: the strategy steps the weights, buffers take the plain mean, everything else stays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aggregator.fold import BLOCK, weighted_mean
from aggregator.strategies.base import CONTROL, Strategy, StrategyState
from aggregator.updates import UpdateSet
from uns_topics.tensors import Role, TensorTable, Vector

_VARIANCE = "running_var"


class CombineError(ValueError):
    """The result can't be a version: NaN or infinity in it, or in the strategy's state."""


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
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        step = strategy.apply(state, weights, table)
        vector = base.copy()
        table.add(vector, Role.WEIGHT, step.step)
    if table.elements(Role.BUFFER):
        table.add(vector, Role.BUFFER, weighted_mean(buffers, [1] * len(buffers)))
        for tensor in table.tensors:
            if tensor.role is Role.BUFFER and tensor.name.endswith(_VARIANCE):
                values = table.view(vector, tensor.name)
                np.maximum(values, 0.0, out=values)
    if not _is_finite(vector):
        raise CombineError("the combined vector holds NaN or infinity")
    if not all(_is_finite(np.ravel(array)) for array in step.state.values()):
        raise CombineError("the strategy's state holds NaN or infinity")
    return Combined(vector, step.state, step.diagnostics)


def _is_finite(values: np.ndarray) -> bool:
    """Block by block: an answer per element is a quarter of a model."""
    return all(np.isfinite(values[start : start + BLOCK]).all() for start in range(0, values.size, BLOCK))


def encode_state(state: StrategyState) -> bytes:
    """A strategy's state as bytes (npz; nothing is pickled)."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(state[name]) for name in sorted(state)})
    return buffer.getvalue()


def control_of(raw: bytes | None) -> Vector:
    """The control variate of a version, from the strategy's state that is stored with it.

    Returns: shape (elements of role weight,), float32. Raises: ValueError: there is none.
    """
    control = decode_state(raw).get(CONTROL) if raw is not None else None
    if control is None:
        raise ValueError("no control variate is stored with the version")
    return control


def decode_state(raw: bytes) -> StrategyState:
    """The inverse of `encode_state`."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
