"""Thresholds by the site's rule: on what they are fitted on, cost is least and the rate is never exceeded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alarm import activations, course
from edge.rules import AboveRule, BelowRule, CostRule, QuantileRule, RateRule, rule_problem
from edge.threshold import Rows, cost, fit, trip_at
from tests.edge.examples import engine_contract, solder_contract


def rows(outputs: list[float], positive: list[bool] | None = None, every_s: float = 600.0, instances: int = 1) -> Rows:
    n = len(outputs)
    truth = np.zeros(n, bool) if positive is None else np.array(positive)
    return Rows(np.array(outputs, np.float64), truth, np.arange(n) * every_s, np.arange(n) % instances)


scores = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 0.50001, 1.0]), st.floats(0, 1, width=32))


@given(
    st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=60),
    st.floats(0.1, 100),
    st.floats(0.1, 100),
)
def test_no_threshold_costs_less_on_the_select_part(
    samples: list[tuple[float, bool]], miss: float, false_alarm: float
) -> None:
    rule = CostRule(rule="cost", miss=miss, false_alarm=false_alarm)
    outputs, positive = [s for s, _ in samples], [y for _, y in samples]
    made = rows(outputs, positive)
    threshold = fit(rule, made)
    if not any(positive):
        assert threshold is None
        return
    assert threshold is not None
    found = cost(rule, made.outputs, made.positive, threshold)
    for other in (*outputs, 0.0, 2.0):
        assert found <= cost(rule, made.outputs, made.positive, other) * (1 + 1e-12)


def test_of_equal_costs_the_fewest_alarms_win_and_the_cut_lies_between() -> None:
    rule = CostRule(rule="cost", miss=1, false_alarm=1)
    assert fit(rule, rows([0.1, 0.2, 0.3, 0.8], [False, True, False, True])) == pytest.approx(0.55)
    assert fit(rule.model_copy(update={"miss": 50.0}), rows([0.1, 0.2, 0.3], [False, True, False])) == pytest.approx(
        0.15
    )


@settings(deadline=None)
@given(
    st.lists(scores, min_size=1, max_size=80),
    st.integers(0, 4),
    st.floats(0.2, 30),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_no_window_of_a_shift_holds_more_alarms_than_the_rule(
    outputs: list[float], at_most: int, shift_hours: float, instances: int, clear_samples: int
) -> None:
    rule = RateRule(rule="rate", at_most=at_most, shift_hours=shift_hours, clear_samples=clear_samples)
    made = rows(outputs, instances=instances)
    threshold = fit(rule, made)
    assert threshold is not None
    for instance in range(instances):
        of = made.instances == instance
        times = made.times[of]
        on = times[activations(course(trip_at(rule, threshold), made.outputs[of]))]
        for start in on:
            assert ((on >= start) & (on < start + shift_hours * 3600)).sum() <= at_most


def test_the_rate_rule_allows_what_it_allows() -> None:
    spikes = [0.9 if n % 48 == 5 else 0.8 if n % 48 == 20 else 0.1 for n in range(480)]  # every 8 hours two of them
    assert fit(RateRule(rule="rate", at_most=2), rows(spikes)) == pytest.approx(0.45)
    assert fit(RateRule(rule="rate", at_most=1), rows(spikes)) == pytest.approx(0.85)
    assert fit(RateRule(rule="rate", at_most=0), rows(spikes)) == pytest.approx(0.92)  # above all, and below 1


def test_a_long_excursion_is_one_alarm() -> None:
    """A gauge that stays high is one event for an operator, however many samples it takes."""
    excursion = [*[0.1] * 100, *[0.9] * 40, *[0.1] * 100]
    threshold = fit(RateRule(rule="rate", at_most=1), rows(excursion))
    assert threshold is not None
    assert 0.1 < threshold < 0.9


def test_a_history_shorter_than_a_shift_may_have_its_share() -> None:
    spikes = [0.9 if n % 6 == 3 else 0.1 for n in range(24)]  # four in four hours
    assert fit(RateRule(rule="rate", at_most=4), rows(spikes)) == pytest.approx(0.92)  # one would be too few for them
    assert fit(RateRule(rule="rate", at_most=9), rows(spikes)) == pytest.approx(0.5)


def test_a_quantile_of_errors_and_fixed_values() -> None:
    made = rows([float(n) for n in range(100)])
    assert fit(QuantileRule(rule="quantile", share=0.05), made) == pytest.approx(94.5)
    assert fit(QuantileRule(rule="quantile", share=0.001), made) == pytest.approx(99 + 0.025 * 99)
    assert fit(BelowRule(rule="below", value=30), rows([])) == 30
    assert fit(AboveRule(rule="above", value=3), made) == 3
    assert not trip_at(BelowRule(rule="below", value=30), 30).above


@pytest.mark.parametrize("outputs", [[], [0.5, float("nan")]])
def test_rows_that_say_nothing_give_no_threshold(outputs: list[float]) -> None:
    for rule in (CostRule(rule="cost", miss=1, false_alarm=1), RateRule(rule="rate", at_most=1)):
        assert fit(rule, rows(outputs, [True] * len(outputs))) is None


def test_a_rule_that_a_contract_can_not_follow_is_said() -> None:
    classes, life, error = solder_contract(), engine_contract(), solder_contract(label={"kind": "none"}, metric="rmse")
    by_cost, by_rate = CostRule(rule="cost", miss=1, false_alarm=1), RateRule(rule="rate", at_most=1)
    below, quantile = BelowRule(rule="below", value=1), QuantileRule(rule="quantile", share=0.1)
    works = {(r.rule, c.label.kind) for r in (by_cost, by_rate, below, quantile) for c in (classes, life, error)
             if rule_problem(r, c) is None}  # fmt: skip
    assert works == {
        ("cost", "classes"), ("rate", "classes"), ("quantile", "classes"), ("below", "run_to_failure"),
        ("rate", "none"), ("quantile", "none"),
    }  # fmt: skip
    assert rule_problem(by_cost, error) == (
        "rule cost needs a label of classes, and there are no labels: a miss is not defined"
    )
