"""Accuracy against bytes: each encoding, up and down, with partial participation, on the simulated solder lines.

    python -m benchmarks.compression [--plants 8] [--rounds 10] [--share 0.3] [--seeds 3]

The services' own code without the network: samples, trainer, packed updates with their residual, fold, versions down as
steps with the aggregator's residual. Every round draws the same participants for each encoding. The figure is the mean
over plants of the average precision on their report splits, of the last version; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aggregator.combine import combine
from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from aggregator.updates import ArrayUpdates
from benchmarks.turbofan import Site, moments, predict, read_plant
from edge.dataset import Dataset, Part
from edge.metrics import average_precision
from edge.models import open_own
from edge.residual import Fate, Residual, after, due
from edge.training.export import make_model
from headgate.demo.solder import solder_scenario
from uns_topics.contract import Contract
from uns_topics.encodings import encoding
from uns_topics.standardisation import fill_standardisation, pool
from uns_topics.steps import make_step
from uns_topics.template import Network
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes
from uns_topics.update import UpdateHeader, pack_groups, pack_update

ENCODINGS = ("f32", "int8", "ternary", "topk-int8", "topk-sign")


@dataclass
class Outcome:
    """Mean average precision of the last version, and bytes per update and per version."""

    precision: float
    up: float
    down: float


def federate(sites: list[Site], start: Vector, settings: Mapping[str, Any], name: str, args: Any, seed: int) -> Outcome:
    """Rounds with some participants each; every step up and down goes through its encoding."""
    table, strategy = sites[0].template.table, FedAvg(FedAvgOptions())
    state, current = strategy.init(table.elements(Role.WEIGHT)), start
    rng = np.random.default_rng(seed)
    kept: dict[str, Residual | None] = {site.name: None for site in sites}
    left: Vector | None = None
    up, down = [], []
    for number in range(args.rounds):
        drawn = sorted(rng.choice(len(sites), max(1, round(args.share * len(sites))), replace=False).tolist())
        names, examples, deltas, buffers = [], [], [], []
        for site in (sites[index] for index in drawn):
            delta, count = site.delta(current, settings, seed * 1000 + number)
            sent, size = send(delta, table, name, kept, site.name, number, count)
            up.append(size)
            names.append(site.name)
            examples.append(count)
            deltas.append(sent)
            buffers.append(table.gather(delta, Role.BUFFER))
        weights, rest = (ArrayUpdates(names, examples, arrays) for arrays in (deltas, buffers))
        made = combine(current, strategy, state, weights, rest, table)
        state = made.state
        if name == "f32":
            current = made.vector
            down.append(len(vector_bytes(current)))
        else:
            step = make_step(number + 1, current, made.vector, left, table, name)
            current, left = step.vector, step.residual
            down.append(len(step.content))
    scores = [score(site, current) for site in sites]
    return Outcome(statistics.mean(scores), statistics.mean(up), statistics.mean(down))


def send(
    delta: Vector, table: TensorTable, name: str, kept: dict[str, Residual | None], who: str, number: int, count: int
) -> tuple[Vector, int]:
    """What arrives of a delta, and the bytes of its update."""
    weights = table.gather(delta, Role.WEIGHT)
    before = kept[who] if name not in ("f32", "f16") else None
    wanted = due(before, weights)
    way = encoding(name)
    arrived = way.decode(way.encode(wanted), wanted.size)
    kept[who] = after(before, weights, arrived, number, Fate.COMMIT)
    whole = delta.copy()
    table.scatter(whole, Role.WEIGHT, wanted)
    groups, body = pack_groups(whole, table, name)
    header = UpdateHeader(
        federation="solder-defect", participant=who, round_number=number + 1, attempt=1, base="a" * 64, generation=1,
        num_examples=count, num_steps=100, metrics={"loss": 0.5}, groups=groups,
    )  # fmt: skip
    return arrived, len(pack_update(header, body))


def score(site: Site, vector: Vector) -> float:
    """Average precision on the report split."""
    predictions = predict(open_own(site.template, vector), site.dataset, Part.REPORT)
    return average_precision(site.dataset.labels[site.dataset.of(Part.REPORT)], predictions)


def one_seed(seed: int, args: Any) -> dict[str, Outcome]:
    """All encodings on the same plants and the same draws."""
    scenario = solder_scenario(seed, args.plants)
    contract = Contract.model_validate(scenario.contract)
    network = Network(kind="mlp", hidden=args.hidden)
    template, initial = make_model(contract, network, seed)
    settings = {"proximal_mu": 0.0, "optimizer": "adam", **scenario.training}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        datasets = {p.participant: read_plant(p, contract, work) for p in scenario.plants}
        sites = [Site(plant, dataset, template, work) for plant, dataset in datasets.items() if _is_scorable(dataset)]
        pooled = pool([moments(site.dataset, contract) for site in sites])
        start = fill_standardisation(initial, template.table, contract, pooled)
        return {name: federate(sites, start, settings, name, args, seed) for name in ENCODINGS}


def _is_scorable(dataset: Dataset) -> bool:
    """Both classes in the report split."""
    return len(np.unique(dataset.labels[dataset.of(Part.REPORT)])) == 2


def line(name: str, results: list[dict[str, Outcome]]) -> str:
    """One encoding's row: means over seeds, and each seed's difference."""
    cells = [name]
    for way in ("up", "down"):
        size, plain = (statistics.mean(getattr(r[one], way) for r in results) for one in (name, "f32"))
        cells += [f"{size:,.0f}", f"{plain / size:.1f}"]
    lost = [100 * (r[name].precision - r["f32"].precision) for r in results]
    cells.append(f"{statistics.mean(r[name].precision for r in results):.3f}")
    cells.append(f"{statistics.mean(lost):+.2f} ({', '.join(f'{one:+.1f}' for one in lost)})")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row per encoding: bytes, times fewer than float32, and what it costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.3, help="of the participants in each round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hidden", type=lambda text: tuple(int(w) for w in text.split(",")), default=(64, 64))
    args = parser.parse_args()
    started = time.monotonic()
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        jobs = [workers.submit(one_seed, seed, args) for seed in range(1, args.seeds + 1)]
        results = [job.result() for job in jobs]
    seconds = time.monotonic() - started
    setting = f"{args.plants} plants, {args.share:.0%} of them in each of {args.rounds} rounds"
    print(f"{setting}, {args.seeds} seeds, {seconds:.0f} s")
    print("| encoding | bytes up | times fewer | bytes down | times fewer | average precision | against f32 (points) |")
    print("|---|---|---|---|---|---|---|")
    for name in ENCODINGS:
        print(line(name, results))


if __name__ == "__main__":
    main()
