"""The registry, and the conformance suite on every strategy."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.fold import ZeroWeight
from aggregator.strategies import StrategyError, make_strategy
from aggregator.updates import ArrayUpdates
from tests.aggregator.check_strategy import NAMES, all_names, check_strategy, deltas
from tests.support.tiny_template import tiny_template
from uns_topics.plan import Strategy

CHOICES = {
    "fedavg": [
        Strategy(name="fedavg"),
        Strategy(name="fedavg", options={"weighting": "uniform"}),
        Strategy(name="fedavg", options={"max_share": 0.3}),
    ]
}


def test_every_strategy_is_checked() -> None:
    assert all_names() == sorted(CHOICES)


@pytest.mark.parametrize("choice", [c for choices in CHOICES.values() for c in choices], ids=str)
def test_conformance(choice: Strategy) -> None:
    check_strategy(choice)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Strategy(name="fedsgd"), "known: fedavg"),
        (Strategy(options={"momentum": 0.9}), "it has: weighting, max_share"),
        (Strategy(options={"max_share": 2.0}), "max_share"),
        (Strategy(options={"weighting": "loudest"}), "weighting"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(choice: Strategy, said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        make_strategy(choice)


def test_fedavg_is_algorithm_1() -> None:
    table = tiny_template().table
    rows = deltas(table, 3)
    step = make_strategy(Strategy()).apply({}, ArrayUpdates(NAMES[:3], [10, 30, 60], rows), table).step
    expected = 0.1 * rows[0].astype(np.float64) + 0.3 * rows[1] + 0.6 * rows[2]
    np.testing.assert_allclose(step, expected, rtol=1e-6)


def test_fedavg_names_a_round_that_weighs_nothing() -> None:
    table = tiny_template().table
    with pytest.raises(ZeroWeight):
        make_strategy(Strategy()).apply({}, ArrayUpdates(NAMES[:2], [0, 0], deltas(table, 2)), table)
