"""What a plan lets a report name, and sums that rows could have given.

A declared model bounds the types of a payload; the plan bounds its names: features, classes, context slots, encodings.
Without this a list of names is a place where anything could be written.
"""

from __future__ import annotations

from collections.abc import Iterable

from uns_topics.contract import ClassLabel, Contract, Feature
from uns_topics.encodings import ENCODINGS
from uns_topics.model import Value
from uns_topics.plan import Plan
from uns_topics.presence import ParticipantStatus
from uns_topics.reports import HISTOGRAM_BINS, DataQuality, Evaluation, FeatureCell, ModelScores, PartScores, Statistics
from uns_topics.sketch import grid_of
from uns_topics.standardisation import MIN_CELL, Moments, is_hidden

_ROUNDING = 1e-6
"""Relative slack for sums in float64: a sum of squares of values in [0, 1] is never above their sum."""


def needs_plan(body: Value) -> bool:
    """Whether only a plan can say what this report may name."""
    if isinstance(body, ParticipantStatus):
        return bool(body.missing)
    return isinstance(body, Statistics | Evaluation | DataQuality)


def report_problem(body: Value, plan: Plan | None) -> str | None:
    """Why a report names what nobody declared, in words that repeat nothing of it; None where it doesn't.

    Args: plan: None only where `needs_plan` says no.
    """
    if isinstance(body, ParticipantStatus):
        return _status_problem(body, plan)
    if plan is None:
        return None
    contract = plan.contract
    match body:
        case Statistics():
            return statistics_problem(body, contract)
        case Evaluation():
            return _evaluation_problem(body, contract)
        case DataQuality():
            return _quality_problem(body, contract)
    return None


def _status_problem(body: ParticipantStatus, plan: Plan | None) -> str | None:
    if not set(body.encodings) <= set(ENCODINGS):
        return "an encoding that this side doesn't know"
    if body.missing and (plan is None or not set(body.missing) <= set(plan.contract.feature_names)):
        return "a missing feature that the plan's contract doesn't have"
    return None


def number_of_classes(contract: Contract) -> int:
    """Classes that `label_counts` speak of; 0 where the label is not one of classes."""
    return len(contract.label.classes) if isinstance(contract.label, ClassLabel) else 0


def statistics_problem(statistics: Statistics, contract: Contract) -> str | None:
    """Why these statistics can't be used, in words; None where they can."""
    if len(statistics.label_counts) != number_of_classes(contract):
        return (
            f"{len(statistics.label_counts)} label counts where the contract has {number_of_classes(contract)} classes"
        )
    features = {feature.name: feature for feature in contract.features}
    seen: set[tuple[int, str]] = set()
    for cell in statistics.cells:
        key = (cell.slot, cell.feature)
        if cell.feature not in features or cell.slot >= contract.slots:
            return f"a cell at slot {cell.slot} of a feature or slot that the contract doesn't have"
        if key in seen:
            return f"two cells of feature {cell.feature} at slot {cell.slot}"
        seen.add(key)
        if (wrong := _moments_problem(cell.moments) or _sketch_problem(cell, features[cell.feature])) is not None:
            return f"feature {cell.feature} at slot {cell.slot}: {wrong}"
    return _difference_problem(statistics.cells)


def _sketch_problem(cell: FeatureCell, feature: Feature) -> str | None:
    sketch = cell.sketch
    if sketch is None:
        return None
    if cell.slot:
        return "a sketch of one operating point"
    if not sketch.fits(grid_of(feature)):
        return "a bin that the contract's range doesn't have"
    if sketch.n != cell.moments.n:
        return f"a sketch of {sketch.n} rows beside moments of {cell.moments.n}"
    return None


def _difference_problem(cells: tuple[FeatureCell, ...]) -> str | None:
    """All rows without those that are told by operating point are a cell as well."""
    rest = {cell.feature: cell.moments.n for cell in cells if cell.slot == 0}
    for cell in cells:
        if cell.slot and cell.feature in rest:
            rest[cell.feature] -= cell.moments.n
    for feature, rows in rest.items():
        if not is_hidden(rows):
            return f"feature {feature}: {rows} rows follow from the difference between cells"
    return None


def _moments_problem(moments: Moments) -> str | None:
    """Values are clipped and scaled to [0, 1], which bounds their sums."""
    n, total, squares = moments.n, moments.sum, moments.sum_squares
    slack = _ROUNDING * max(1, n)
    if n < MIN_CELL:
        return f"{n} rows, fewer than {MIN_CELL}"
    if not -slack <= total <= n + slack or squares > total + slack:
        return "sums that values between 0 and 1 can't have"
    if total * total > n * squares + slack * n:
        return "a negative variance"
    return None


def _evaluation_problem(body: Evaluation, contract: Contract) -> str | None:
    if body.metric is not contract.metric:
        return f"the metric {body.metric.value} where the contract has {contract.metric.value}"
    classes = set(contract.label.classes) if isinstance(contract.label, ClassLabel) else set()
    for scores in _all_scores(body):
        if not set(scores.histograms) <= classes:
            return "a histogram of a class that the contract doesn't have"
        for bins in scores.histograms.values():
            ends = [end for end, _ in bins]
            if ends != sorted(set(ends)) or not all(0 < end <= HISTOGRAM_BINS for end in ends):
                return f"histogram bins that are not rising within 1 to {HISTOGRAM_BINS}"
            if any(rows < MIN_CELL for _, rows in bins):
                return f"a histogram bin of fewer than {MIN_CELL} rows"
    return None


def _all_scores(body: Evaluation) -> Iterable[ModelScores]:
    parts: tuple[PartScores | None, ...] = (body.select, body.report, body.report_capped)
    return (scores for part in parts if part is not None for scores in part.models.values())


def _quality_problem(body: DataQuality, contract: Contract) -> str | None:
    names = [seen.feature for seen in body.features]
    if len(set(names)) != len(names) or not set(names) <= set(contract.feature_names):
        return "a feature that the contract doesn't have, or one that stands twice"
    if not {found.feature for found in body.findings} - {None} <= set(contract.feature_names):
        return "a finding about a feature that the contract doesn't have"
    return None
