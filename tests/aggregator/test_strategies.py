"""The registry, what a plan may name, and the conformance suite on every strategy."""

from __future__ import annotations

import pytest

from aggregator.strategies import (
    STRATEGIES,
    StrategyError,
    buffer_of,
    carries_control,
    local_training,
    make_strategy,
    strategy_problems,
)
from tests.aggregator.check_strategy import all_names, check_strategy
from uns_topics.plan import Strategy, Tolerances, Training

AVERAGING = {
    "centered-clipping": [{}, {"iterations": 3}, {"weighting": "examples", "max_share": 0.4}],
    "fedavg": [{}, {"weighting": "uniform"}, {"max_share": 0.3}],
    "fedavgm": [{}, {"momentum": 0.0, "weighting": "uniform"}],
    "fedbuff": [{}],
    "fednova": [{}, {"weighting": "uniform"}],
    "fedprox": [{}, {"mu": 0.5, "max_share": 0.3}],
    "median": [{}],
    "norm-clipping": [{}, {"weighting": "examples"}],
    "scaffold": [{}, {"population": 20}],
}
OTHERS = {
    "fedadagrad": [{}, {"beta_1": 0.5}],
    "fedadam": [{}, {"bias_correction": True}],
    "fedyogi": [{}, {"tau": 0.01}],
    "multi-krum": [{}, {"byzantine": 2}, {"keep": 1, "weighting": "examples"}],
    "trimmed-mean": [{}, {"beta": 0.45}],
}
CHOICES = [
    (Strategy(name=name, options=options), averages)  # type: ignore[arg-type]
    for group, averages in ((AVERAGING, True), (OTHERS, False))
    for name, choices in group.items()
    for options in choices
]


def weighs(choice: Strategy) -> bool:
    """Whether a participant's examples count."""
    field = STRATEGIES[choice.name].options.model_fields.get("weighting")
    return field is not None and choice.options.get("weighting", field.default) == "examples"


def test_every_strategy_is_checked() -> None:
    assert all_names() == sorted({**AVERAGING, **OTHERS})


@pytest.mark.parametrize(("choice", "averages"), CHOICES, ids=str)
def test_conformance(choice: Strategy, averages: bool) -> None:
    check_strategy(choice, averages=averages, weighs=weighs(choice))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Strategy(name="fedsgd"), "known: centered-clipping, fedadagrad, fedadam, fedavg, "),
        (Strategy(options={"momentum": 0.9}), "it has: weighting, max_share"),
        (Strategy(options={"max_share": 2.0}), "max_share"),
        (Strategy(options={"weighting": "loudest"}), "weighting"),
        (Strategy(name="trimmed-mean", options={"beta": 0.5}), "beta"),
        (Strategy(name="multi-krum", options={"max_share": 0.5}), "it has: weighting, byzantine, keep"),
        (Strategy(name="median", options={"weighting": "examples"}), "it has: none"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(choice: Strategy, said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        make_strategy(choice)


@pytest.mark.parametrize(
    ("choice", "least"),
    [
        (Strategy(name="trimmed-mean"), 5),
        (Strategy(name="trimmed-mean", options={"beta": 0.1}), 10),
        (Strategy(name="multi-krum"), 5),
        (Strategy(name="multi-krum", options={"byzantine": 2}), 7),
        (Strategy(name="median"), 1),
    ],
)
def test_a_quorum_below_what_the_rule_needs_is_refused(choice: Strategy, least: int) -> None:
    assert strategy_problems(choice, Training(), Tolerances(quorum=least)) == []
    if least > 1:
        (problem,) = strategy_problems(choice, Training(), Tolerances(quorum=least - 1))
        assert f"at least {least} updates" in problem
        assert "tolerances.quorum" in problem


def test_fedbuff_needs_a_staleness_and_a_buffer_of_at_least_quorum() -> None:
    choice = Strategy(name="fedbuff", options={"buffer": 4})
    assert buffer_of(choice) == 4
    assert buffer_of(Strategy()) is None
    assert strategy_problems(choice, Training(), Tolerances(quorum=4, max_staleness=1)) == []
    for unfit in (0, 64):
        (problem,) = strategy_problems(choice, Training(), Tolerances(max_staleness=unfit))
        assert f"set tolerances.max_staleness, which is {unfit}, " in problem
    (problem,) = strategy_problems(choice, Training(), Tolerances(quorum=5, max_staleness=1))
    assert "below tolerances.quorum 5" in problem


def test_fedprox_sets_the_local_objective() -> None:
    assert local_training(Strategy(name="fedprox", options={"mu": 0.1}), Training()).proximal_mu == 0.1
    same = Training(proximal_mu=0.1, steps=7)
    assert local_training(Strategy(name="fedprox", options={"mu": 0.1}), same) == same
    assert local_training(Strategy(), same) == same
    with pytest.raises(StrategyError, match=r"proximal_mu is 0\.2 and strategy\.options\.mu is 0\.1"):
        local_training(Strategy(name="fedprox", options={"mu": 0.1}), Training(proximal_mu=0.2))
    (problem,) = strategy_problems(Strategy(name="fedprox"), Training(proximal_mu=0.2), Tolerances())
    assert "leave the former out" in problem


def test_scaffold_takes_plain_sgd_alone() -> None:
    choice = Strategy(name="scaffold", options={"population": 4})
    (problem,) = strategy_problems(choice, Training(), Tolerances())
    assert "set training.optimizer: sgd" in problem
    (problem,) = strategy_problems(choice, Training(optimizer="sgd", momentum=0.9), Tolerances())
    assert problem == "strategy scaffold: training.momentum is 0.9 and must be 0: leave it out"
    assert strategy_problems(choice, Training(optimizer="sgd"), Tolerances()) == []
    assert local_training(choice, Training(optimizer="sgd", steps=7)) == Training(optimizer="sgd", steps=7, momentum=0)
    assert [name for name in STRATEGIES if carries_control(Strategy(name=name))] == ["scaffold"]
