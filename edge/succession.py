"""When a new generation's version may take the place of the old one's in a plant. Pure, apart from onnxruntime.

The old version means something that the plant knows; the new one is about other inputs, or says something else. So the
old one runs on until the federation has trained the new one at all, and this plant has seen on its own matured samples
that it is of use: at least as good there as always giving the same answer. A plant that has no labels can't look, and
follows the federation.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.dataset import Part
from edge.models import Model
from edge.scoring import Snapshot
from uns_topics.contract import NoLabel
from uns_topics.standardisation import MIN_CELL
from uns_topics.template import Lineage

MIN_ROWS = MIN_CELL
"""Matured samples of the select part that a first look needs."""
LOOK_AGAIN_AT = 1.2
"""Matured samples from one look to the next, as a factor: reading them all costs, and few more say little more."""


@dataclass(frozen=True)
class Look:
    """A version on this plant's select part. Attributes: constant: loss of the best single answer; None: no label."""

    rows: int
    loss: float
    constant: float | None


def look(model: Model, snapshot: Snapshot, weights: tuple[float, ...]) -> Look:
    """Args: weights: of the classes, of the round; empty: this plant's own."""
    weights = weights or snapshot.class_weights()
    outputs = snapshot.predict(Part.SELECT, {"new": model})["new"]
    loss = snapshot.loss(Part.SELECT, outputs, weights)
    if isinstance(snapshot.contract.label, NoLabel) or not len(outputs):
        return Look(len(outputs), loss, None)
    constant = snapshot.baselines(Part.SELECT)["constant"]
    return Look(len(outputs), loss, snapshot.loss(Part.SELECT, constant, weights))


def is_trained(lineage: Lineage) -> bool:
    """Whether a version is more than a generation's first ones, which nobody has trained yet."""
    return lineage.origin in ("round", "imported")


def why_not_yet(seen: Look) -> str | None:
    """Why a version may not run here yet; None where it may."""
    if seen.rows < MIN_ROWS:
        return f"it was evaluated on {seen.rows} matured samples of {MIN_ROWS}"
    if seen.constant is not None and not seen.loss <= seen.constant:
        return f"its loss on {seen.rows} samples is {seen.loss:.4g}, and {seen.constant:.4g} for always the same answer"
    return None
