"""Flower's own aggregation, for comparison. Runs in Flower's environment (`scripts/setup-flower`), not in ours.

    python tests/support/flower_strategies.py IN.npz OUT.npz

IN: deltas, shape (rounds, n, d), float64; weights, shape (n,); base, shape (d,). OUT: for each strategy the model after
each round, shape (rounds, d).
"""

from __future__ import annotations

import logging
import sys

import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

STRATEGIES = {
    "fedavg": lambda: flower.FedAvg(),
    "fedavgm": lambda: flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.7),
    "fedadam": lambda: flower.FedAdam(eta=0.05, beta_1=0.8, beta_2=0.9, tau=1e-4),
    "fedyogi": lambda: flower.FedYogi(eta=0.05, beta_1=0.8, beta_2=0.9, tau=1e-4),
    "fedadagrad": lambda: flower.FedAdagrad(eta=0.05, tau=1e-4),
    "median": lambda: flower.FedMedian(),
    "trimmed-mean": lambda: flower.FedTrimmedAvg(beta=0.25),
    "multi-krum": lambda: flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=5),
}


def reply(values: np.ndarray, weight: int, node: int = 1) -> Message:
    """What a Flower node answers: its parameters and how many examples it trained on."""
    content = RecordDict({
        "arrays": ArrayRecord({"w": Array(values)}),
        "metrics": MetricRecord({"num-examples": int(weight)}),
    })  # fmt: skip
    described = Metadata(1, "", node, 0, "1", "1", 1.7e9, 60.0, "train")
    return Message(metadata=described, content=content)


def main() -> None:
    """Each strategy through all rounds."""
    logging.disable()
    given = np.load(sys.argv[1])
    found = {}
    for name, make in STRATEGIES.items():
        strategy = make()
        current, models = given["base"], []
        for index, deltas in enumerate(given["deltas"]):
            # what `configure_train` would have kept: FedAvgM a record, the adaptive ones bare arrays
            is_record = isinstance(strategy, flower.FedAvgM)
            strategy.current_arrays = ArrayRecord({"w": Array(current)}) if is_record else {"w": current}
            replies = [reply(current + d, w) for d, w in zip(deltas, given["weights"], strict=True)]
            # FedAdam counts round r as the (r + 1)-th where Kingma and Ba count from 1
            arrays, _ = strategy.aggregate_train(index, replies)
            assert arrays is not None
            current = arrays["w"].numpy()
            models.append(current)
        found[name] = np.array(models)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
