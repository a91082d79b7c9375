"""What a model needs beside itself to decide in a plant: calibration, thresholds, and leave to do so. Pure numpy.

Fitted anew before each swap, on samples that the model wasn't trained on. Until there are enough of them it is on
probation: its answers are uncertain and no alarm comes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from edge import calibration, threshold
from edge.alarm import Trip
from edge.calibration import Calibration, neutral
from edge.dataset import Dataset
from edge.evaluation import truth_of
from edge.probation import Evidence
from edge.rules import AboveRule, AlarmRule, BelowRule, CostRule
from edge.threshold import Rows
from uns_topics.contract import ClassLabel, Contract

OWN_ROWS = 200
"""Evaluated samples from which on an instance has a threshold of its own; below, it shares that of all of them."""
OWN_POSITIVES = 20
"""The same of the positive class, for the cost rule."""
PSEUDO_ALARMS = 5.0
"""Added to both sides before rates are compared: three alarms instead of one are no change of a rate."""
MIN_COMPARED = 100
"""Samples below which rates are not compared."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """Attributes:
    trip: when an alarm comes and goes; None without a rule, or on probation.
    own: of instances that have one of their own, by path.
    problem: why it is on probation; None where it isn't.
    rows, positives: what it was evaluated on.
    """

    calibration: Calibration = field(default_factory=Calibration)
    trip: Trip | None = None
    own: Mapping[str, Trip] = field(default_factory=dict)
    problem: str | None = "not evaluated yet"
    rows: int = 0
    positives: int | None = None

    def trip_of(self, instance: str) -> Trip | None:
        """An instance's alarm; None where nothing is decided."""
        return self.own.get(instance, self.trip)

    def flagged(self, outputs: Floats, instances: Sequence[str]) -> int:
        """How many samples are past their threshold. Args: outputs: calibrated, shape (n,); instances: paths."""
        trips = {path: self.trip_of(path) for path in set(instances)}
        found = 0
        for path, trip in trips.items():
            if trip is not None:
                of = np.fromiter((other == path for other in instances), bool, len(instances))
                found += int(trip.flags(outputs[of]).sum())
        return found

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Decision:
        """What `dump` wrote. Raises: ValueError, KeyError, TypeError: it is something else."""
        found = json.loads(text)
        return cls(
            Calibration(**found["calibration"]),
            Trip(**found["trip"]) if found["trip"] is not None else None,
            {str(path): Trip(**trip) for path, trip in found["own"].items()},
            found["problem"],
            int(found["rows"]),
            found["positives"],
        )


def decide(
    outputs: Floats,
    found: Evidence,
    dataset: Dataset,
    instances: Sequence[str],
    contract: Contract,
    rule: AlarmRule | None,
) -> Decision:
    """Fit what a model needs.

    Args: outputs: of the evidence's samples, uncalibrated, shape (n,); instances: path of each instance's number.
    """
    if found.problem is not None:
        return Decision(neutral(found.problem), problem=found.problem, rows=found.rows, positives=found.positives)
    positive = np.zeros(found.rows, bool)
    fitted = neutral("only scores of classes are calibrated")
    if isinstance(contract.label, ClassLabel):
        positive = truth_of(dataset.labels[found.index], contract) == 1
        fitted = calibration.fit(outputs, positive)
    rows = Rows(fitted.apply(outputs), positive, dataset.times[found.index], dataset.instances[found.index])
    decided = Decision(fitted, None, {}, None, found.rows, found.positives)
    if rule is None:
        return decided
    shared = threshold.fit(rule, rows)
    if shared is None:
        return Decision(fitted, None, {}, "no threshold can be fitted to the site's rule", found.rows, found.positives)
    own = {instances[number]: threshold.trip_at(rule, value) for number, value in _own_thresholds(rule, rows)}
    return Decision(fitted, threshold.trip_at(rule, shared), own, None, found.rows, found.positives)


def _own_thresholds(rule: AlarmRule, rows: Rows) -> list[tuple[int, float]]:
    """Instances that have enough samples by themselves; one that is alone has the shared threshold anyway."""
    numbers = np.unique(rows.instances)
    if isinstance(rule, BelowRule | AboveRule) or len(numbers) < 2:
        return []
    found = []
    for number in numbers.tolist():
        of = rows.of(rows.instances == number)
        if len(of) < OWN_ROWS or (isinstance(rule, CostRule) and of.positive.sum() < OWN_POSITIVES):
            continue
        value = threshold.fit(rule, of)
        if value is not None:
            found.append((number, value))
    return found


@dataclass(frozen=True)
class RateChange:
    """Alarms on the same samples, before a swap and after it. Attributes: rows: samples; before, after: flagged."""

    rows: int
    before: int
    after: int

    @property
    def factor(self) -> float:
        """How many times more, or fewer: 1 and above."""
        ratio = (self.after + PSEUDO_ALARMS) / (self.before + PSEUDO_ALARMS)
        return max(ratio, 1 / ratio)

    def exceeds(self, most: float) -> bool:
        """Whether it is more than a site lets pass by itself."""
        return self.rows >= MIN_COMPARED and self.factor > most
