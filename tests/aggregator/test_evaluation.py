"""Promote or refuse, on sums."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.evaluation import decide
from aggregator.intake import scores_of, scores_problem
from aggregator.state import Scores
from tests.support.reducer_world import sums
from uns_topics.contract import Metric
from uns_topics.plan import Tolerances
from uns_topics.reports import Evaluation, Figure, ModelScores, PartScores, Sums


def site(candidate: float, current: float, n: int = 100, spread: float = 0.0) -> Scores:
    """Losses of one site; `spread` is the standard deviation of the paired differences."""
    mean = candidate - current
    difference = Sums(n=n, sum=mean * n, sum_squares=(mean**2 + spread**2) * n)
    return Scores(candidate=sums(candidate, n), current=sums(current, n), difference=difference)


def test_losses_are_pooled_over_rows_and_not_over_sites() -> None:
    scores = {"big": site(1.0, 1.1, n=1000), "small": site(1.5, 1.0, n=10, spread=5.0)}
    decision = decide(scores, Tolerances())
    assert decision.promote  # the mean of the sites' means would say 1.25 against 1.05
    assert decision.candidate_loss == pytest.approx((1000 + 15) / 1010)


@pytest.mark.parametrize(("loss", "promote"), [(0.9, True), (1.0, True), (1.0099, True), (1.0101, False)])
def test_the_margin_is_relative(loss: float, promote: bool) -> None:
    assert decide({"a": site(loss, 1.0)}, Tolerances(promotion_margin=0.01)).promote is promote


def test_a_decided_site_that_is_harmed_refuses() -> None:
    scores = {"big": site(0.5, 1.0, n=1000), "harmed": site(1.6, 1.0, n=100, spread=1.0)}
    decision = decide(scores, Tolerances(site_limit=0.5))
    assert not decision.promote
    assert "harmed" in decision.reason


def test_an_undecided_site_decides_nothing() -> None:
    scores = {"big": site(0.5, 1.0, n=1000), "noisy": site(1.6, 1.0, n=100, spread=10.0)}
    assert decide(scores, Tolerances(site_limit=0.5)).promote


def test_a_site_within_its_limit_decides_nothing() -> None:
    scores = {"big": site(0.5, 1.0, n=1000), "a bit": site(1.4, 1.0, n=100)}
    assert decide(scores, Tolerances(site_limit=0.5)).promote


@pytest.mark.parametrize("choice", ["promote", "refuse"])
@pytest.mark.parametrize("scores", [{}, {"a": Scores(candidate=sums(1.0, 5))}, {"a": site(1.0, 1.0, n=0)}])
def test_nothing_to_compare(choice: Any, scores: dict[str, Scores]) -> None:
    decision = decide(scores, Tolerances(on_no_evaluation=choice))
    assert decision.promote is (choice == "promote")
    assert decision.candidate_loss is None


def test_the_order_of_sites_gives_the_same_bits() -> None:
    scores = {name: site(0.1 * i + 0.01, 0.3, n=i + 1) for i, name in enumerate("fbdeac")}
    mixed = dict(sorted(scores.items()))
    assert decide(scores, Tolerances()) == decide(mixed, Tolerances())


def evaluation(**models: ModelScores) -> Evaluation:
    return Evaluation(
        generation=1,
        candidate=2,
        current=1,
        metric=Metric.RMSE,
        select=PartScores(n=5, models=models, candidate_minus_current=None),  # type: ignore[arg-type]
    )


def test_a_participant_without_rows_has_answered() -> None:
    scores = scores_of(evaluation())
    assert scores.candidate.n == 0
    assert scores.current is None
    assert scores_problem(scores, 100) is None


def test_scores_are_the_select_part() -> None:
    figure = Figure(value=1.0, n=5)
    scores = scores_of(
        evaluation(
            candidate=ModelScores(loss=sums(1.0, 5), metric=figure),
            current=ModelScores(loss=sums(2.0, 5), metric=figure),
        )
    )
    assert scores == Scores(candidate=sums(1.0, 5), current=sums(2.0, 5))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Scores(candidate=sums(1.0, 101)), "more than"),
        (Scores(candidate=Sums(n=4, sum=8.0, sum_squares=1.0)), "too small"),
        (Scores(candidate=Sums(n=0, sum=1.0, sum_squares=0.0)), "too small"),
        (Scores(candidate=Sums(n=4, sum=1e200, sum_squares=1e300)), "beyond"),
        (Scores(candidate=sums(1.0, 5), current=sums(1.0, 6)), "different rows"),
    ],
)
def test_sums_that_no_rows_give(bad: Scores, why: str) -> None:
    assert why in str(scores_problem(bad, 100))
