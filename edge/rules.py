"""When a site wants an alarm: the part of its configuration that turns a score into a decision. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uns_topics.contract import ClassLabel, Contract, NoLabel
from uns_topics.model import FileValue


class _Rule(FileValue):
    hysteresis: float = Field(
        default=0.1, ge=0, lt=1, description="an alarm ends this part of the threshold beyond it, not at it"
    )
    clear_samples: int = Field(default=1, ge=1, le=10_000, description="in a row that must be clear before it ends")

    @property
    def above(self) -> bool:
        """High values are bad."""
        return True


class CostRule(_Rule):
    """The threshold with the least cost on the select part."""

    rule: Literal["cost"]
    miss: float = Field(gt=0, le=1e9, description="cost of a positive sample without an alarm")
    false_alarm: float = Field(gt=0, le=1e9, description="cost of an alarm on a negative one")


class RateRule(_Rule):
    """The lowest threshold that gave no instance more alarms than this in any shift of the select part."""

    rule: Literal["rate"]
    at_most: int = Field(ge=0, le=1_000_000, description="alarms that come on, for each instance")
    per: Literal["shift"] = "shift"
    shift_hours: float = Field(default=8.0, gt=0, le=1000)


class QuantileRule(_Rule):
    """The threshold that this share of the select part lies above: for what has no label, such as an autoencoder."""

    rule: Literal["quantile"]
    share: float = Field(gt=0, lt=1, description="of the samples of the select part")


class BelowRule(_Rule):
    """A threshold in the output's unit, where low values are bad, such as remaining life."""

    rule: Literal["below"]
    value: float

    @property
    def above(self) -> bool:
        return False


class AboveRule(_Rule):
    """A threshold in the output's unit, where high values are bad."""

    rule: Literal["above"]
    value: float


AlarmRule = Annotated[CostRule | RateRule | QuantileRule | BelowRule | AboveRule, Field(discriminator="rule")]


class Probation(FileValue):
    """How many matured local labels a model must have been evaluated on before it decides anything."""

    rows: int = Field(default=50, ge=0, le=2**31)
    positives: int = Field(default=5, ge=0, le=2**31, description="of the positive class, where there are classes")


def rule_problem(rule: AlarmRule, contract: Contract) -> str | None:
    """Why a rule can't be followed under a contract; None where it can."""
    label = contract.label
    if isinstance(label, ClassLabel):
        return None if rule.rule != "below" else "rule below: a score of classes is bad where it is high"
    if isinstance(rule, CostRule):
        what = "there are no labels" if isinstance(label, NoLabel) else "the label is a number"
        return f"rule cost needs a label of classes, and {what}: a miss is not defined"
    if isinstance(label, NoLabel):
        return None if rule.rule != "below" else "rule below: an error of reconstruction is bad where it is high"
    if isinstance(rule, RateRule | QuantileRule):
        return f"rule {rule.rule}: low values of {label.name} are bad; use rule below with a value in its unit"
    return None
