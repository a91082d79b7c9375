"""Memory of a round's end, counted at the allocator: numpy reports to tracemalloc whatever it takes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from aggregator import kept
from aggregator.combine import combine
from aggregator.strategies import make_strategy
from aggregator.updates import decoded
from uns_topics.plan import Strategy
from uns_topics.tensors import Role, Tensor, TensorTable
from uns_topics.update import UpdateHeader, encode_update, pack_groups

SIZE = 2_000_000
MODEL_BYTES = 4 * SIZE
BLOCKS_BYTES = 3 * 1024 * 1024
"""What is worked on at a time, beside whole models."""
TABLE = TensorTable(tensors=(Tensor(name="w", shape=(SIZE,), role=Role.WEIGHT, offset=0, file_offset=0),))


def stored_update(name: str, *, control: bool = False) -> bytes:
    delta = np.random.default_rng(sum(name.encode())).normal(0, 1, SIZE).astype(np.float32)
    groups, body = pack_groups(delta, TABLE, "f32", np.float32(0.5) * delta if control else None)
    header = UpdateHeader(
        federation="tiny",
        participant=name,
        round_number=1,
        attempt=1,
        base="0" * 64,
        generation=1,
        num_examples=1,
        num_steps=1,
        groups=groups,
    )
    return encode_update(header, body)


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize(
    ("name", "models"),
    [
        # a stored update, its decoded delta and one copy of it; then base, step and new vector
        ("fedavg", 3),
        ("median", 3),
        ("trimmed-mean", 3),
        ("norm-clipping", 3),
        # and the reference, old (before) and moved
        ("centered-clipping", 4),
        # and the control variate, old and new
        ("scaffold", 5),
    ],
)
def test_a_few_models_whatever_the_cohort(
    name: str, models: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SPOOL_ABOVE_BYTES", 0)
    control = name == "scaffold"
    names = [f"plant-{i:02}" for i in range(count)]
    strategy = make_strategy(Strategy(name=name, options={"beta": 0.4} if name == "trimmed-mean" else {}))
    for n in names:
        (tmp_path / n).write_bytes(stored_update(n, control=control))
    tracemalloc.start()
    try:
        before = strategy.init(SIZE)
        load = lambda i: (tmp_path / names[i]).read_bytes()  # noqa: E731
        with decoded(names, [1] * count, load, TABLE, ("f32",), tmp_path, control=control) as (weights, buffers):
            combine(np.zeros(SIZE, np.float32), strategy, before, weights, buffers, TABLE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < models * MODEL_BYTES + BLOCKS_BYTES
