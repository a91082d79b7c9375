"""Which model runs: what it takes to change it, and what is remembered of the choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.metrics import Figure
from edge.variants import Served, Serving, choose, gains
from tests.edge.versions import model_of
from uns_topics.contract import Metric
from uns_topics.presence import Variant

GLOBAL, PERSONALISED, LOCAL, LAST_GOOD = Variant
SURELY, PERHAPS = Figure(0.1, 0.02, 0.18, 200, decided=True), Figure(0.1, -0.01, 0.21, 200, decided=True)
SURELY_WORSE, PERHAPS_WORSE = Figure(-0.1, -0.18, -0.02, 200, decided=True), Figure(-0.1, -0.2, 0.01, 200, decided=True)
TOO_FEW = Figure(0.3, float("nan"), float("nan"), 20, decided=False)


@pytest.mark.parametrize(
    ("running", "gained", "chosen"),
    [
        (GLOBAL, {}, None),
        (GLOBAL, {LOCAL: PERHAPS, PERSONALISED: TOO_FEW, LAST_GOOD: SURELY_WORSE}, None),
        (GLOBAL, {LOCAL: SURELY, PERSONALISED: PERHAPS}, LOCAL),
        (GLOBAL, {LOCAL: SURELY, PERSONALISED: replace(SURELY, value=0.11)}, PERSONALISED),
        (GLOBAL, {LAST_GOOD: SURELY}, LAST_GOOD),
        (PERSONALISED, {GLOBAL: PERHAPS, LOCAL: TOO_FEW}, None),
        (PERSONALISED, {GLOBAL: SURELY}, GLOBAL),
        (PERSONALISED, {GLOBAL: SURELY, PERSONALISED: replace(SURELY, value=0.2)}, GLOBAL),
        (PERSONALISED, {PERSONALISED: PERHAPS_WORSE}, PERSONALISED),
        (PERSONALISED, {PERSONALISED: SURELY_WORSE}, None),
        (LOCAL, {GLOBAL: TOO_FEW, LOCAL: TOO_FEW}, LOCAL),
        (LAST_GOOD, {GLOBAL: SURELY_WORSE}, None),
        (LAST_GOOD, {GLOBAL: PERHAPS_WORSE}, GLOBAL),
        (LAST_GOOD, {GLOBAL: TOO_FEW}, GLOBAL),
        (LAST_GOOD, {GLOBAL: SURELY_WORSE, PERSONALISED: SURELY}, PERSONALISED),
    ],
)
def test_only_what_is_surely_better_takes_over(
    running: Variant, gained: dict[Variant, Figure], chosen: Variant | None
) -> None:
    assert choose(running, gained) is chosen


@pytest.mark.parametrize("metric", [Metric.AVERAGE_PRECISION, Metric.ROC_AUC, Metric.RMSE])
def test_a_gain_is_positive_where_the_other_one_is_better(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.3).astype(np.float32)
    good = np.clip(0.8 * labels + 0.1 + 0.1 * rng.random(400), 0, 1).astype(np.float32)
    poor = rng.random(400).astype(np.float32)
    groups = np.full(400, -1)
    assert gains(metric, labels, poor, {LOCAL: good}, groups)[LOCAL].low > 0
    assert gains(metric, labels, good, {GLOBAL: poor}, groups)[GLOBAL].high < 0
    broken = np.where(np.arange(400) % 7 == 0, np.nan, good).astype(np.float32)
    for running, other in ((poor, broken), (broken, good)):
        assert not gains(metric, labels, running, {LOCAL: other}, groups)[LOCAL].decided


def test_equally_good_models_hardly_ever_change_places() -> None:
    """40 evaluations of three others that differ from what runs by chance alone."""
    changes = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = (rng.random(300) < 0.2).astype(np.float32)
        truth = labels + rng.normal(0, 0.5, 300)
        outputs = {v: (truth + rng.normal(0, 0.5, 300)).astype(np.float32) for v in Variant}
        running = outputs.pop(GLOBAL)
        gained = gains(Metric.AVERAGE_PRECISION, labels, running, outputs, np.full(300, -1))
        changes += choose(GLOBAL, gained) is not None
    assert changes <= 1


def served(version: int, variant: Variant = GLOBAL) -> Served:
    return Served(model_of(version), version, variant)


def enter(serving: Serving, current: Served) -> Served | None:
    """A new version, ready without further ado. Returns: what runs."""
    return serving.enter(current, serving.offer(current))


def test_a_new_version_runs_at_once_unless_something_else_was_chosen() -> None:
    serving = Serving()
    one, two, three = served(1), served(2), served(3)
    assert enter(serving, one) is one
    assert serving.settle(one, one) is one
    assert enter(serving, two) is two
    assert serving.last_good is not None
    assert (serving.last_good.version, serving.last_good.variant) == (1, LAST_GOOD)
    own = served(2, PERSONALISED)
    assert serving.settle(two, own) is own
    assert enter(serving, three) is own
    assert serving.chosen is PERSONALISED
    assert serving.settle(three, three) is three
    assert enter(serving, served(4)) is not three


def test_a_last_good_version_stays_what_it_is_compared_with() -> None:
    serving = Serving()
    one, two = served(1), served(2)
    enter(serving, one)
    serving.settle(one, one)
    enter(serving, two)
    refuge = serving.last_good
    assert refuge is not None
    assert serving.settle(two, refuge) is refuge
    assert enter(serving, served(3)) is refuge
    assert serving.last_good is refuge


def test_a_review_that_comes_too_late_changes_nothing() -> None:
    serving = Serving()
    one, two = served(1), served(2)
    enter(serving, one)
    enter(serving, two)
    assert serving.settle(one, served(1, LOCAL)) is None
    assert serving.served is two
    assert serving.chosen is GLOBAL


def test_a_restart_goes_on_with_the_own_model_and_not_for_long_with_a_global_one() -> None:
    serving = Serving()
    own, version = served(1, LOCAL), served(1, LAST_GOOD)
    serving.restore(own, version)
    assert enter(serving, served(2)) is own
    assert serving.incumbent is own
    serving = Serving()
    serving.restore(version, version)
    two = served(2)
    assert enter(serving, two) is two
    assert serving.incumbent is None
    assert serving.last_good is not None
    assert serving.last_good.version == 1


def test_the_global_model_may_always_run() -> None:
    assert Serving(()).allowed == {GLOBAL}
    assert Serving((LOCAL,)).allowed == {GLOBAL, LOCAL}
