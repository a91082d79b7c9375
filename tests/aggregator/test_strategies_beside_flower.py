"""The same updates through Flower's strategies and ours, round after round."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.strategies import make_strategy
from aggregator.updates import ArrayUpdates
from tests.support.flower_environment import ROOT, flower_python
from tests.support.tiny_template import tiny_template
from uns_topics.plan import Strategy

COUNT, SIZE, ROUNDS = 12, 500, 5
ADAPTIVE = {"learning_rate": 0.05, "tau": 1e-4}
OURS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"learning_rate": 0.5, "momentum": 0.7},
    "fedadam": {**ADAPTIVE, "beta_1": 0.8, "beta_2": 0.9, "bias_correction": True},
    "fedyogi": {**ADAPTIVE, "beta_1": 0.8, "beta_2": 0.9},
    "fedadagrad": ADAPTIVE,
    "median": {},
    "trimmed-mean": {"beta": 0.25},
    "multi-krum": {"byzantine": 2, "keep": 5, "weighting": "examples"},
}
WEIGHTS = np.random.default_rng(1).integers(1, 1000, COUNT)
DELTAS = np.random.default_rng(2).normal(0.02, 0.1, (ROUNDS, COUNT, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Flower's steps by strategy, shape (rounds, d), computed in float64."""
    python = flower_python()
    if python is None:
        pytest.skip("Flower is not there; `make test` or scripts/setup-flower sets it up")
    folder: Path = tmp_path_factory.mktemp("flower")
    base = np.random.default_rng(3).normal(0, 1, SIZE)
    np.savez(folder / "in.npz", deltas=DELTAS.astype(np.float64), weights=WEIGHTS, base=base)
    program = ROOT / "tests" / "support" / "flower_strategies.py"
    command = [python, program, folder / "in.npz", folder / "out.npz"]
    subprocess.run(command, check=True, timeout=50, cwd=folder, env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"})
    with np.load(folder / "out.npz") as found:
        return {name: np.diff(found[name], axis=0, prepend=base[None]) for name in found.files}


@pytest.mark.parametrize("name", OURS)
def test_the_same_steps_as_flower(name: str, theirs: dict[str, np.ndarray]) -> None:
    strategy = make_strategy(Strategy(name=name, options=OURS[name]))
    state, table = strategy.init(SIZE), tiny_template().table
    if "second_moment" in state:  # the paper starts it at tau^2, Flower at 0
        state = {**state, "second_moment": np.zeros(SIZE, np.float32)}
    for rows, expected in zip(DELTAS, theirs[name], strict=True):
        updates = ArrayUpdates([f"plant-{i:02}" for i in range(COUNT)], WEIGHTS.tolist(), rows)
        step = strategy.apply(state, updates, table)
        state = step.state
        # near 0 the adaptive ones divide the rounding of a float32 mean (about 3e-9 here) by tau
        bound = 5e-5 if "tau" in OURS[name] else 2e-6
        np.testing.assert_allclose(step.step, expected, rtol=2e-5, atol=bound * float(np.abs(expected).max()))
