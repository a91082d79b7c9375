"""What every strategy must hold, in the manner of an estimator check: call it with each one that is registered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from aggregator.combine import decode_state, encode_state
from aggregator.fold import EmptyCohort, TooFew, ZeroWeight
from aggregator.strategies import STRATEGIES, make_strategy
from aggregator.strategies.base import Strategy
from aggregator.updates import ArrayUpdates
from tests.support.tiny_template import tiny_template
from uns_topics.plan import Strategy as StrategyChoice
from uns_topics.tensors import Role, TensorTable

NAMES = ("ams", "ber", "lyon", "oslo", "prag", "rom", "wien")


def deltas(table: TensorTable, count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.1, table.elements(Role.WEIGHT)).astype(np.float32) for _ in range(count)]


def a_set(
    names: Sequence[str], weights: Sequence[int], rows: Sequence[np.ndarray], order: Sequence[int] | None = None
) -> ArrayUpdates:
    """Updates that arrive in this order, with all that any strategy looks at, each depending on its participant."""
    order = range(len(names)) if order is None else order

    def made(given: Sequence[np.ndarray], controls: ArrayUpdates | None) -> ArrayUpdates:
        return ArrayUpdates(
            [names[i] for i in order],
            [weights[i] for i in order],
            [given[i] for i in order],
            steps=[10 + 3 * i for i in order],
            staleness=[i % 3 for i in order],
            controls=controls,
        )

    return made(rows, made([np.float32(0.5) * row for row in rows], None))


def check_strategy(choice: StrategyChoice, *, averages: bool = True, weighs: bool = True) -> None:
    """Args: averages: a lone participant gets its own delta back; weighs: by the examples that each claims."""
    strategy, table = make_strategy(choice), tiny_template().table
    assert strategy.needs in ("individual", "sum")
    _check_shapes_and_purity(strategy, table)
    _check_order(strategy, table)
    _check_state_survives_the_store(strategy, table)
    if averages:
        _check_lone_participant(strategy, table)
    state = strategy.init(table.elements(Role.WEIGHT))
    with pytest.raises(EmptyCohort):
        strategy.apply(state, ArrayUpdates((), (), []), table)
    if weighs:
        with pytest.raises(ZeroWeight):
            strategy.apply(state, a_set(NAMES, [0] * len(NAMES), deltas(table, len(NAMES))), table)
    if strategy.least > 1:
        few = strategy.least - 1
        with pytest.raises(TooFew):
            strategy.apply(state, a_set(NAMES[:few], [1] * few, deltas(table, few)), table)


def _check_shapes_and_purity(strategy: Strategy, table: TensorTable) -> None:
    count = max(3, strategy.least)
    rows = deltas(table, count)
    before = [row.copy() for row in rows]
    state = strategy.init(table.elements(Role.WEIGHT))
    frozen = {name: np.array(value) for name, value in state.items()}
    updates = a_set(NAMES[:count], range(1, count + 1), rows)
    step = strategy.apply(state, updates, table)
    again = strategy.apply(state, updates, table)
    assert step.step.shape == (table.elements(Role.WEIGHT),)
    assert step.step.dtype == np.float32
    assert np.isfinite(step.step).all()
    assert step.step.tobytes() == again.step.tobytes(), "the same inputs give the same bits"
    assert all(np.array_equal(a, b) for a, b in zip(rows, before, strict=True)), "inputs stay untouched"
    assert state.keys() == frozen.keys() == step.state.keys()
    assert all(np.array_equal(state[name], frozen[name]) for name in frozen), "the state passed in stays untouched"
    assert all(step.state[name].dtype == frozen[name].dtype for name in frozen)
    assert all(np.isfinite(value) for value in step.diagnostics.values())


def _check_order(strategy: Strategy, table: TensorTable) -> None:
    rows = deltas(table, len(NAMES))
    weights = [3, 1, 4, 1, 5, 9, 2]
    results = set()
    for seed in range(5):
        updates = a_set(NAMES, weights, rows, np.random.default_rng(seed).permutation(len(NAMES)).tolist())
        made = strategy.apply(strategy.init(table.elements(Role.WEIGHT)), updates, table)
        results.add((made.step.tobytes(), encode_state(made.state)))
    assert len(results) == 1, "the order of arrival doesn't matter, to the bit"


def _check_state_survives_the_store(strategy: Strategy, table: TensorTable) -> None:
    first, second = (a_set(NAMES, [1] * len(NAMES), deltas(table, len(NAMES), seed)) for seed in (1, 2))
    state = strategy.apply(strategy.init(table.elements(Role.WEIGHT)), first, table).state
    stored = decode_state(encode_state(state))
    direct = strategy.apply(state, second, table)
    restored = strategy.apply(stored, second, table)
    assert direct.step.tobytes() == restored.step.tobytes()
    assert encode_state(direct.state) == encode_state(restored.state)


def _check_lone_participant(strategy: Strategy, table: TensorTable) -> None:
    rows = deltas(table, 1)
    step = strategy.apply(strategy.init(rows[0].size), a_set(["ams"], [17], rows), table).step
    assert step.tobytes() == rows[0].tobytes()


def all_names() -> list[str]:
    """Every registered strategy, so that a new one can't be left out."""
    return sorted(STRATEGIES)
