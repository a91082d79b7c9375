"""Which retained leaves an inference has, and what type each is: said once, for publishing, clearing and exports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

OUTPUT_SEGMENT = "/_inference/"
"""Beneath an instance's path, before the federation's name."""


class ValueKind(StrEnum):
    """The type of a leaf's value, in every profile."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """One leaf of each instance. `about` says in a sentence what it is, for the people who meet the tag."""

    name: str
    kind: ValueKind
    about: str


def leaf_specs(output: str, *, alarms: bool) -> tuple[LeafSpec, ...]:
    """The retained leaves in the order of their publication; the value comes last.

    Args: output: the model's output, which is the value's own leaf. alarms: the site has a rule.
    """
    decision = (
        LeafSpec("threshold", ValueKind.FLOAT, "What the alarm is decided by, fitted to the site's rule"),
        LeafSpec("alarm", ValueKind.BOOLEAN, "The decision by the site's rule, with hysteresis"),
    )
    return (
        LeafSpec("quality", ValueKind.INTEGER, "192 good, 203 replayed, 256 uncertain, 512 bad, 516 stale"),
        LeafSpec("model_version", ValueKind.INTEGER, "The federation's version that made the value"),
        LeafSpec("variant", ValueKind.TEXT, "Which model made it: global, personalised, local or last-good"),
        *(decision if alarms else ()),
        LeafSpec(output, ValueKind.FLOAT, "The model's output for the newest sample"),
    )
