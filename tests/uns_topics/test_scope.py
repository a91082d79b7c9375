"""Names in a report: only those that the plan declares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contracts.examples import BODIES, SCORES
from uns_topics.contract import Contract
from uns_topics.model import Value
from uns_topics.plan import Plan
from uns_topics.reports import Statistics
from uns_topics.scope import needs_plan, report_problem, statistics_problem
from uns_topics.standardisation import MIN_CELL
from uns_topics.topics import Kind

PLAN = BODIES[Kind.PLAN]
assert isinstance(PLAN, Plan)
REPORTS = (Kind.STATUS, Kind.STATISTICS, Kind.EVALUATION, Kind.DATA_QUALITY, Kind.LAST_UPDATE)


def changed(kind: Kind, **fields: Any) -> Value:
    """The example with some fields changed, as it would be read from the wire."""
    body = BODIES[kind]
    content = {**body.model_dump(mode="json"), **fields}

    return type(body).model_validate_json(json.dumps(content))


@pytest.mark.parametrize(("told", "passes"), [(720, True), (711, False), (710, True), (721, False)])
def test_a_few_rows_that_follow_from_a_difference(told: int, passes: bool) -> None:
    context = {"kind": "declared", "name": "product", "values": ["A"]}
    contract = Contract.model_validate({**PLAN.contract.model_dump(mode="json"), "context": context})
    cells = [CELL, {**CELL, "slot": 1, "moments": {**CELL["moments"], "n": told}}]
    body = changed(Kind.STATISTICS, cells=cells)
    assert isinstance(body, Statistics)
    assert (statistics_problem(body, contract) is None) is passes


def test_a_sketch_is_of_all_rows() -> None:
    context = {"kind": "declared", "name": "product", "values": ["A"]}
    contract = Contract.model_validate({**PLAN.contract.model_dump(mode="json"), "context": context})
    sketch = {"steps": [1, 381], "rows": [20, 700]}
    whole, part = (changed(Kind.STATISTICS, cells=[{**CELL, "slot": slot, "sketch": sketch}]) for slot in (0, 1))
    assert isinstance(whole, Statistics)
    assert isinstance(part, Statistics)
    assert statistics_problem(whole, contract) is None
    assert statistics_problem(part, contract) is not None


@pytest.mark.parametrize("kind", REPORTS)
def test_an_honest_report_names_what_the_plan_declares(kind: Kind) -> None:
    assert report_problem(BODIES[kind], PLAN) is None


def test_which_reports_only_a_plan_can_judge() -> None:
    assert {kind for kind in REPORTS if needs_plan(BODIES[kind])} == {
        Kind.STATISTICS,
        Kind.EVALUATION,
        Kind.DATA_QUALITY,
    }
    assert report_problem(BODIES[Kind.STATUS], None) is None
    behind = changed(Kind.STATUS, missing=["humidity"])
    assert needs_plan(behind)  # which names feature names
    assert report_problem(behind, PLAN) is None


CELL: dict[str, Any] = {"slot": 0, "feature": "paste_volume", "moments": {"n": 720, "sum": 288.0, "sum_squares": 120.5}}
SECRET = "serial_4711"


def with_histogram(name: str, bins: list[list[int]]) -> Value:
    scores = {**SCORES.model_dump(mode="json"), "histograms": {name: bins}}
    return changed(Kind.EVALUATION, select={"n": 40, "models": {"candidate": scores}})


@pytest.mark.parametrize(
    "body",
    [
        changed(Kind.STATUS, encodings=["f32", SECRET]),
        changed(Kind.STATUS, missing=[SECRET]),
        changed(Kind.STATISTICS, cells=[{**CELL, "feature": SECRET}]),
        changed(Kind.STATISTICS, cells=[{**CELL, "slot": 7}]),
        changed(Kind.STATISTICS, cells=[CELL, CELL]),
        changed(Kind.STATISTICS, cells=[{**CELL, "moments": {"n": MIN_CELL - 1, "sum": 1.0, "sum_squares": 1.0}}]),
        changed(Kind.STATISTICS, cells=[{**CELL, "moments": {"n": 20, "sum": 4711.0, "sum_squares": 1.0}}]),
        changed(Kind.STATISTICS, cells=[{**CELL, "moments": {"n": 20, "sum": 10.0, "sum_squares": 1.0}}]),
        changed(Kind.STATISTICS, label_counts=[1, 2, 3]),
        changed(Kind.STATISTICS, cells=[{**CELL, "sketch": {"steps": [383], "rows": [720]}}]),
        changed(Kind.STATISTICS, cells=[{**CELL, "sketch": {"steps": [382], "rows": [719]}}]),
        changed(Kind.EVALUATION, metric="rmse"),
        with_histogram(SECRET, [[64, 40]]),
        with_histogram("good", [[32, 20], [32, 20]]),
        with_histogram("good", [[64, MIN_CELL - 1]]),
        changed(Kind.DATA_QUALITY, features=[{"feature": SECRET, "missing": 0.0, "out_of_range": 0.0}]),
        changed(Kind.DATA_QUALITY, features=[{"feature": "humidity", "missing": 0.0, "out_of_range": 0.0}] * 2),
    ],
)
def test_what_nobody_declared_is_named_without_being_repeated(body: Value) -> None:
    problem = report_problem(body, PLAN)
    assert problem
    assert SECRET not in problem
