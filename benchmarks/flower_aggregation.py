"""Flower's aggregation, timed in Flower's environment: prints best seconds and most bytes taken as one JSON line.

python benchmarks/flower_aggregation.py WHAT COUNT SIZE
"""

from __future__ import annotations

import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.server.strategy.aggregate import aggregate, aggregate_median
from flwr.serverapp import strategy as flower

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.flower_strategies import reply

TIMES = 4  # the last one counts memory


def main() -> None:
    """One measurement."""
    logging.disable()
    what, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    base = np.random.default_rng(0).standard_normal(size, np.float32)
    rows = [np.roll(base, 7919 * i) for i in range(count)]
    if what in ("aggregate", "aggregate_median"):
        given = [([row], 10 + i) for i, row in enumerate(rows)]
        function = aggregate if what == "aggregate" else aggregate_median
        works: list[Callable[[], object]] = [lambda: function(given)] * TIMES
    else:
        make = {"fedavg": flower.FedAvg, "median": flower.FedMedian, "trimmed": flower.FedTrimmedAvg}[what]

        def work(replies: list[Message]) -> Callable[[], object]:
            return lambda: make().aggregate_train(1, replies)

        # messages anew each time, not timed: some strategies take the arrays out of them
        times = 2 if count * size > 10**8 else TIMES
        works = [work([reply(row, 10 + i) for i, row in enumerate(rows)]) for _ in range(times)]
    best = float("inf")
    for one in works[:-1]:
        started = time.perf_counter()
        one()
        best = min(best, time.perf_counter() - started)
    tracemalloc.start()
    works[-1]()
    print(json.dumps({"seconds": best, "peak_bytes": tracemalloc.get_traced_memory()[1]}))


if __name__ == "__main__":
    main()
