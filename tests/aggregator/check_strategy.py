"""What every strategy must hold, in the manner of an estimator check: call it with each one that is registered."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.combine import decode_state, encode_state
from aggregator.fold import EmptyCohort, FoldError
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


def check_strategy(choice: StrategyChoice, *, averages: bool = True, least: int = 1) -> None:
    """Args: averages: a lone participant gets its own delta back; least: fewest updates that the rule can take."""
    strategy, table = make_strategy(choice), tiny_template().table
    _check_shapes_and_purity(strategy, table, least)
    _check_order(strategy, table)
    _check_state_survives_the_store(strategy, table)
    if averages:
        _check_lone_participant(strategy, table)
    with pytest.raises(EmptyCohort):
        strategy.apply(strategy.init(table.elements(Role.WEIGHT)), ArrayUpdates((), (), []), table)
    if least > 1:
        few = ArrayUpdates(NAMES[: least - 1], [1] * (least - 1), deltas(table, least - 1))
        with pytest.raises(FoldError):
            strategy.apply(strategy.init(table.elements(Role.WEIGHT)), few, table)


def _check_shapes_and_purity(strategy: Strategy, table: TensorTable, least: int) -> None:
    count = max(3, least)
    rows = deltas(table, count)
    before = [row.copy() for row in rows]
    state = strategy.init(table.elements(Role.WEIGHT))
    frozen = {name: np.array(value) for name, value in state.items()}
    updates = ArrayUpdates(NAMES[:count], range(1, count + 1), rows)
    step = strategy.apply(state, updates, table)
    again = strategy.apply(state, updates, table)
    assert step.step.shape == (table.elements(Role.WEIGHT),)
    assert step.step.dtype == np.float32
    assert np.isfinite(step.step).all()
    assert step.step.tobytes() == again.step.tobytes(), "the same inputs give the same bits"
    assert all(np.array_equal(a, b) for a, b in zip(rows, before, strict=True)), "inputs stay untouched"
    assert state.keys() == frozen.keys()
    assert all(np.array_equal(state[name], frozen[name]) for name in frozen), "the state passed in stays untouched"
    assert all(np.isfinite(value) for value in step.diagnostics.values())


def _check_order(strategy: Strategy, table: TensorTable) -> None:
    rows = deltas(table, len(NAMES))
    weights = [3, 1, 4, 1, 5, 9, 2]
    results = set()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(NAMES))
        updates = ArrayUpdates([NAMES[i] for i in order], [weights[i] for i in order], [rows[i] for i in order])
        results.add(strategy.apply(strategy.init(table.elements(Role.WEIGHT)), updates, table).step.tobytes())
    assert len(results) == 1, "the order of arrival doesn't matter, to the bit"


def _check_state_survives_the_store(strategy: Strategy, table: TensorTable) -> None:
    first = ArrayUpdates(NAMES, [1] * len(NAMES), deltas(table, len(NAMES), 1))
    second = ArrayUpdates(NAMES, [1] * len(NAMES), deltas(table, len(NAMES), 2))
    state = strategy.apply(strategy.init(table.elements(Role.WEIGHT)), first, table).state
    stored = decode_state(encode_state(state))
    direct = strategy.apply(state, second, table).step
    assert direct.tobytes() == strategy.apply(stored, second, table).step.tobytes()


def _check_lone_participant(strategy: Strategy, table: TensorTable) -> None:
    row = deltas(table, 1)[0]
    step = strategy.apply(strategy.init(row.size), ArrayUpdates(["ams"], [17], [row]), table).step
    assert step.tobytes() == row.tobytes()


def all_names() -> list[str]:
    """Every registered strategy, so that a new one can't be left out."""
    return sorted(STRATEGIES)
