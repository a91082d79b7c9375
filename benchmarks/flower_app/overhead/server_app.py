"""FedAvg with its defaults; when each round ended goes to the file that the run names."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    given, times = context.run_config, []

    def note(_: int, __: ArrayRecord) -> None:
        times.append(time.monotonic())

    nodes = int(given["nodes"])
    strategy = FedAvg(
        fraction_evaluate=float(given["fraction-evaluate"]),
        min_train_nodes=nodes,
        min_available_nodes=nodes,
        min_evaluate_nodes=nodes if given["fraction-evaluate"] else 0,
    )
    values = np.random.default_rng(0).normal(0, 0.1, int(given["elements"])).astype(np.float32)
    strategy.start(grid, ArrayRecord({"w": Array(values)}), num_rounds=int(given["rounds"]), evaluate_fn=note)
    Path(str(given["times"])).write_text(json.dumps(times))
