"""Each strategy against its paper's formula, written out in float64 over all updates at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.strategies import make_strategy
from aggregator.strategies.base import Step, StrategyState
from aggregator.strategies.fednova import NoSteps
from aggregator.strategies.scaffold import NoControl
from aggregator.updates import ArrayUpdates
from tests.support.tiny_template import tiny_template
from uns_topics.plan import Strategy

TABLE = tiny_template().table
SIZE = 40_000  # more than one block of any kind
COUNT = 9
NAMES = [f"plant-{i}" for i in range(COUNT)]
WEIGHTS = [10, 30, 60, 5, 1, 80, 7, 7, 100]
SHARES = np.array(WEIGHTS) / sum(WEIGHTS)
ROUNDS = [np.random.default_rng(seed).normal(0.02, 0.1, (COUNT, SIZE)).astype(np.float32) for seed in range(4)]


def run(name: str, rounds: list[np.ndarray] = ROUNDS, **options: Any) -> list[Step]:
    """The steps of several rounds, each with the state of the one before."""
    strategy = make_strategy(Strategy(name=name, options=options))
    state: StrategyState = strategy.init(rounds[0].shape[1])
    steps = []
    for rows in rounds:
        steps.append(strategy.apply(state, ArrayUpdates(NAMES[: len(rows)], WEIGHTS[: len(rows)], rows), TABLE))
        state = steps[-1].state
    return steps


def close(step: Step, expected: np.ndarray) -> None:
    np.testing.assert_allclose(step.step, expected, rtol=2e-5, atol=1e-7)


def means() -> list[np.ndarray]:
    return [SHARES @ rows.astype(np.float64) for rows in ROUNDS]


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_fedavg_is_the_weighted_mean(name: str) -> None:
    for step, mean in zip(run(name), means(), strict=True):
        close(step, mean)


def test_fedavgm_keeps_its_velocity() -> None:
    velocity = np.zeros(SIZE)
    for step, mean in zip(run("fedavgm", momentum=0.7, learning_rate=0.5), means(), strict=True):
        velocity = 0.7 * velocity + mean
        close(step, 0.5 * velocity)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_the_adaptive_ones_are_algorithm_2(name: str) -> None:
    m, v = np.zeros(SIZE), np.full(SIZE, 0.01**2)
    options = {"learning_rate": 0.05, "beta_1": 0.8, "tau": 0.01}
    second = {} if name == "fedadagrad" else {"beta_2": 0.9}
    for step, mean in zip(run(name, **options, **second), means(), strict=True):
        m = 0.8 * m + 0.2 * mean
        square = mean**2
        if name == "fedadam":
            v = 0.9 * v + 0.1 * square
        elif name == "fedyogi":
            v = v - 0.1 * square * np.sign(v - square)
        else:
            v = v + square
        close(step, 0.05 * m / (np.sqrt(v) + 0.01))


def test_fedadam_can_correct_its_first_rounds() -> None:
    plain = run("fedadam", beta_1=0.9, beta_2=0.99)
    corrected = run("fedadam", beta_1=0.9, beta_2=0.99, bias_correction=True)
    for rounds, (a, b) in enumerate(zip(plain, corrected, strict=True), 1):
        close(b, a.step * np.sqrt(1 - 0.99**rounds) / (1 - 0.9**rounds))


def test_fednova_normalises_by_local_steps() -> None:
    steps = np.array([1, 5, 100, 20, 20, 7, 3, 50, 10])
    rows = ROUNDS[0]
    updates = ArrayUpdates(NAMES, WEIGHTS, rows, steps=steps.tolist())
    step = make_strategy(Strategy(name="fednova")).apply({}, updates, TABLE)
    close(step, (SHARES @ steps) * (SHARES @ (rows.astype(np.float64) / steps[:, None])))
    none = ArrayUpdates(NAMES, WEIGHTS, rows, steps=[1] * (COUNT - 1) + [0])
    with pytest.raises(NoSteps, match="plant-8"):
        make_strategy(Strategy(name="fednova")).apply({}, none, TABLE)


def test_scaffold_moves_model_and_control() -> None:
    strategy = make_strategy(Strategy(name="scaffold", options={"population": 30, "learning_rate": 0.5}))
    before = {"control": np.full(SIZE, 0.25, np.float32)}
    controls = ArrayUpdates(NAMES, WEIGHTS, ROUNDS[1])
    step = strategy.apply(before, ArrayUpdates(NAMES, WEIGHTS, ROUNDS[0], controls=controls), TABLE)
    close(step, 0.5 * ROUNDS[0].mean(axis=0, dtype=np.float64))
    expected = 0.25 + COUNT / 30 * ROUNDS[1].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(step.state["control"], expected, rtol=1e-5)


def test_scaffold_names_what_is_missing() -> None:
    strategy = make_strategy(Strategy(name="scaffold"))
    others = ArrayUpdates(NAMES[1:], WEIGHTS[1:], ROUNDS[1][1:])
    for controls in (None, others):
        updates = ArrayUpdates(NAMES, WEIGHTS, ROUNDS[0], controls=controls)
        with pytest.raises(NoControl, match="every participant"):
            strategy.apply(strategy.init(SIZE), updates, TABLE)


def test_fedbuff_counts_the_stale_less() -> None:
    staleness = [0, 3, 8, 0, 1, 2, 0, 15, 0]
    updates = ArrayUpdates(NAMES, WEIGHTS, ROUNDS[0], staleness=staleness)
    step = make_strategy(Strategy(name="fedbuff", options={"learning_rate": 2.0})).apply({}, updates, TABLE)
    factors = 1 / np.sqrt(1 + np.array(staleness))
    close(step, 2.0 * factors @ ROUNDS[0].astype(np.float64) / COUNT)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9])
def test_median(count: int) -> None:
    rows = ROUNDS[0][:count]
    close(run("median", [rows])[0], np.median(rows.astype(np.float64), axis=0))


@pytest.mark.parametrize(("beta", "cut"), [(0.12, 1), (0.25, 2), (0.45, 4)])
def test_trimmed_mean(beta: float, cut: int) -> None:
    (step,) = run("trimmed-mean", ROUNDS[:1], beta=beta)
    close(step, np.sort(ROUNDS[0].astype(np.float64), axis=0)[cut : COUNT - cut].mean(axis=0))
    assert step.diagnostics["cut_per_end"] == cut


def test_a_share_that_floats_cannot_hold_still_cuts() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (100, 3)).astype(np.float32)
    updates = ArrayUpdates([f"{i:03}" for i in range(100)], [1] * 100, rows)
    step = make_strategy(Strategy(name="trimmed-mean", options={"beta": 0.29})).apply({}, updates, TABLE)
    assert step.diagnostics["cut_per_end"] == 29


def test_the_sign_of_zero_does_not_depend_on_a_sort() -> None:
    rows = np.array([[-0.0], [0.0], [-0.0], [0.0], [-0.0]], np.float32)
    for name in ("median", "trimmed-mean"):
        assert not np.signbit(run(name, [rows])[0].step[0])


def test_norm_clipping_bounds_by_the_median_norm() -> None:
    rows = ROUNDS[0] * np.array([1, 1, 1, 1, 1, 3, 30, 100, 0.1], np.float32)[:, None]
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    factors = np.minimum(1, np.median(norms) / norms) / COUNT
    (step,) = run("norm-clipping", [rows])
    close(step, factors @ rows.astype(np.float64))
    assert step.diagnostics["clipped"] == 4


@pytest.mark.parametrize("iterations", [1, 4])
def test_centered_clipping_starts_from_the_previous_aggregate(iterations: int) -> None:
    centre = np.zeros(SIZE)
    for step, rows in zip(run("centered-clipping", iterations=iterations), ROUNDS, strict=True):
        for _ in range(iterations):
            apart = rows.astype(np.float64) - centre
            away = np.linalg.norm(apart, axis=1)
            centre = centre + (np.minimum(1, np.median(away) / away) / COUNT) @ apart
        close(step, centre)
        assert step.state["reference"].tobytes() == step.step.tobytes()


def test_multi_krum_keeps_those_that_lie_closest() -> None:
    rows = ROUNDS[0] + np.array([0, 0, 0, 0, 0, 0, 0, 2, -3], np.float32)[:, None]
    byzantine, keep = 2, 4
    apart = np.square(np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2))
    scores = [sum(sorted(np.delete(apart[i], i))[: COUNT - byzantine - 2]) for i in range(COUNT)]
    best = sorted(range(COUNT), key=lambda i: scores[i])[:keep]
    (step,) = run("multi-krum", [rows], byzantine=byzantine, keep=keep)
    close(step, rows[best].astype(np.float64).mean(axis=0))
    (weighted,) = run("multi-krum", [rows], byzantine=byzantine, weighting="examples")
    best = sorted(range(COUNT), key=lambda i: scores[i])[: COUNT - byzantine]
    assert not {7, 8} & set(best)
    close(weighted, np.average(rows[best].astype(np.float64), axis=0, weights=np.array(WEIGHTS)[best]))


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "norm-clipping", "centered-clipping", "multi-krum"])
def test_one_in_nine_cannot_throw_a_robust_rule(name: str) -> None:
    rows = ROUNDS[0].copy()
    honest = rows[1:].mean(axis=0)
    rows[0] = -1e4
    options = {"byzantine": 1} if name == "multi-krum" else {}
    step = run(name, [rows], **options)[0].step
    assert np.linalg.norm(step - honest) < np.linalg.norm(rows[1])


@pytest.mark.parametrize("left_out", [0, COUNT - 1])
def test_an_update_of_factor_zero_leaves_the_bits_alone(left_out: int) -> None:
    strategy = make_strategy(Strategy())
    weights = [0 if i == left_out else w for i, w in enumerate(WEIGHTS)]
    there = strategy.apply({}, ArrayUpdates(NAMES, weights, ROUNDS[0]), TABLE)
    kept = [i for i in range(COUNT) if i != left_out]
    without = ArrayUpdates([NAMES[i] for i in kept], [WEIGHTS[i] for i in kept], ROUNDS[0][kept])
    assert there.step.tobytes() == strategy.apply({}, without, TABLE).step.tobytes()
