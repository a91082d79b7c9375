"""Error feedback: what a lossy update left unsent is added to the next one (Seide et al. 2014; Karimireddy et al. 2019,
arXiv:1901.09847, Algorithm 1). Pure.

What becomes of it depends on the receipt (PROTOCOL section 4): an update that was accepted leaves its own remainder
behind; one that never counted leaves its whole delta; one that was refused for what it held leaves nothing, since a
participant whose delta is too large would otherwise grow until it never passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np

from uns_topics.codes import Code
from uns_topics.sums import l2_norm
from uns_topics.tensors import Vector

MAX_AGE_VERSIONS = 20
"""A remainder of models that far back points somewhere else by now."""
MAX_GROWTH = 2.0
"""Times the norm of the last accepted delta: the most that one update that never counted may add."""
_NEVER_COUNTED = frozenset({Code.LATE, Code.WRONG_ROUND, Code.WRONG_BASE, Code.STALE, Code.POLICY, Code.BUDGET})


class Fate(Enum):
    """What an update's end means for the residual."""

    COMMIT = "commit"
    """It counts: what it left unsent is the new residual."""
    ADD = "add"
    """It never counted, through no fault of its content: its delta is sent later."""
    DROP = "drop"
    """Its content was refused: the delta is forgotten and the residual stays as it was."""


@dataclass(frozen=True)
class Residual:
    """Weights that are still to be sent.

    Attributes:
        values: shape (elements of role weight,), float32.
        since: the version whose round it comes from; of several, the oldest.
        norm: L2 norm of the last accepted delta; None where none was accepted yet.
    """

    values: Vector = field(repr=False)
    since: int
    norm: float | None = None


def fate(result: Literal["accepted", "rejected"] | None, code: Code | None) -> Fate:
    """Args: result: the receipt's; None where the update was lost or gave way to a newer one."""
    if result == "accepted":
        return Fate.COMMIT
    return Fate.ADD if result is None or code in _NEVER_COUNTED else Fate.DROP


def fresh(residual: Residual | None, version: int) -> Residual | None:
    """The residual, unless it is older than `MAX_AGE_VERSIONS`. Args: version: the base of the round at hand."""
    return residual if residual is not None and version - residual.since <= MAX_AGE_VERSIONS else None


def due(residual: Residual | None, delta: Vector) -> Vector:
    """What is to be sent: the delta and what earlier updates left."""
    return delta.copy() if residual is None else np.add(residual.values, delta)


def after(before: Residual | None, delta: Vector, sent: Vector, version: int, fate: Fate) -> Residual | None:
    """The residual after an update's end.

    Args:
        before: the residual that was added to it.
        delta: what training gave; sent: what the receiver decoded; both of shape (elements of role weight,).
        version: the base of its round.
    """
    if fate is Fate.COMMIT:
        return Residual(np.subtract(due(before, delta), sent), version, l2_norm(delta))
    if fate is Fate.DROP:
        return before
    if before is None:
        return Residual(delta.copy(), version)
    return Residual(np.add(before.values, _capped(delta, before.norm)), before.since, before.norm)


def _capped(delta: Vector, norm: float | None) -> Vector:
    """Scaled down to `MAX_GROWTH` times the norm where it is longer."""
    length = l2_norm(delta)
    if norm is None or length <= MAX_GROWTH * norm:
        return delta
    return np.multiply(delta, np.float32(MAX_GROWTH * norm / length))
