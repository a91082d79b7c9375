"""NVFlare's aggregation, timed in NVFlare's environment: prints best seconds and torch's threads as one JSON line.

python benchmarks/nvflare_aggregation.py COUNT SIZE
"""

from __future__ import annotations

import json
import sys
import time

import torch
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

THREADS = 2
TIMES = 4  # the first one warms up


def main() -> None:
    """One measurement: float32 tensors that are there already, added one after the other."""
    count, size = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(THREADS)
    base = torch.randn(size, generator=torch.Generator().manual_seed(0))
    updates = [{"w": torch.roll(base, 7919 * index)} for index in range(count)]
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        helper = WeightedAggregationHelper()
        for index, update in enumerate(updates):
            helper.add(update, 10 + index, f"{index:03}", 0)
        helper.get_result()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": min(seconds[1:]), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
