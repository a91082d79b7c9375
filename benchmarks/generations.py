"""A new generation from the last one's version, and from nothing: rounds until the same loss.

    python -m benchmarks.generations [--plants 4] [--rounds 16] [--steps 25] [--seeds 2]

Simulated solder lines and the services' own code without the network. Generation 1 learns its rounds; then the contract
changes, and generation 2 learns as many, once cold and once warm, with the same batches. A version is promoted unless
it is worse by more than the default margin. Told is the mean log loss over plants on their select splits: of generation
1's last version, of both first versions with the standardisation that statistics give, and after that many rounds.
The last two columns are the rounds that the cold one needs for the loss that the warm one has before its first, and
those that the warm one needs for the loss that the cold one has at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from benchmarks.turbofan import Site, fold, moments, predict, read_plant
from edge.dataset import Dataset, Part
from edge.evaluation import truth_of
from edge.metrics import row_losses
from edge.models import open_own
from edge.training.export import make_model
from headgate.demo.solder import solder_scenario
from uns_topics.contract import Contract
from uns_topics.standardisation import fill_standardisation, pool
from uns_topics.template import Network, Template
from uns_topics.tensors import Role, Vector
from uns_topics.warm_start import take_over

NETWORK = Network(kind="mlp", hidden=(64, 32))
ADDED = "paste_volume"
MARGIN = 0.01
COLUMNS = (
    "change", "seed", "generation 1", "cold: first, 1, 4, last", "warm: first, 1, 4, last",
    "cold until warm's first", "warm until cold's last",
)  # fmt: skip
CHANGES = ("a feature is added", "a feature is removed", "a feature has another unit", "features in another order")


def contracts(whole: Contract, change: str) -> tuple[Contract, Contract]:
    """Of generation 1 and of generation 2."""
    fewer = whole.model_copy(update={"features": tuple(f for f in whole.features if f.name != ADDED)})
    if change == CHANGES[0]:
        return fewer, whole
    if change == CHANGES[1]:
        return whole, fewer
    if change == CHANGES[2]:
        features = (
            f.model_copy(update={"unit": "", "minimum": f.minimum / 100, "maximum": f.maximum / 100})
            if f.name == ADDED
            else f
            for f in whole.features
        )
        return whole, whole.model_copy(update={"features": tuple(features)})
    return whole, whole.model_copy(update={"features": whole.features[::-1]})


def under(dataset: Dataset, whole: Contract, contract: Contract) -> Dataset:
    """The same samples as another contract has them."""
    known = {feature.name: (place, feature) for place, feature in enumerate(whole.features)}
    columns = []
    for feature in contract.features:
        place, before = known[feature.name]
        columns.append(dataset.rows[:, place] * np.float32(feature.maximum / before.maximum))
    return replace(dataset, rows=np.stack(columns, axis=1))


def loss(sites: list[Site], contract: Contract, vector: Vector) -> float:
    """Mean over plants of the log loss on their select splits."""
    found = []
    for site in sites:
        outputs = predict(open_own(site.template, vector), site.dataset, Part.SELECT)
        truth = truth_of(site.dataset.labels[site.dataset.of(Part.SELECT)], contract)
        found.append(float(row_losses(contract.metric, truth, outputs).mean()))
    return statistics.mean(found)


def learn(
    sites: list[Site], contract: Contract, start: Vector, settings: dict[str, Any], args: argparse.Namespace
) -> tuple[Vector, list[float]]:
    """Rounds of FedAvg. Returns: the last version, and the losses of all of them, the first one's too."""
    table, strategy = sites[0].template.table, FedAvg(FedAvgOptions())
    current, state, losses = start, strategy.init(table.elements(Role.WEIGHT)), [loss(sites, contract, start)]
    for number in range(args.rounds):
        updates = [site.delta(current, settings, number) for site in sites]
        made = fold(sites, updates, current, strategy, state)
        found = loss(sites, contract, made.vector)
        if found <= losses[-1] * (1 + MARGIN):  # as the aggregator promotes
            current, state = made.vector, made.state
        losses.append(found if current is made.vector else losses[-1])
    return current, losses


def ready(
    datasets: dict[str, Dataset], whole: Contract, contract: Contract, work: Path, seed: int
) -> tuple[Template, Vector, list[Site]]:
    """A model file's template and vector, and who learns by it."""
    template, vector = make_model(contract, NETWORK, seed)
    sites = [Site(name, under(dataset, whole, contract), template, work) for name, dataset in datasets.items()]
    return template, vector, sites


def one(
    change: str,
    datasets: dict[str, Dataset],
    whole: Contract,
    settings: dict[str, Any],
    seed: int,
    args: argparse.Namespace,
    work: Path,
) -> tuple[list[float], list[float], list[float]]:
    """Losses of generation 1, of a cold and of a warm generation 2."""
    old, new = contracts(whole, change)
    template, vector, sites = ready(datasets, whole, old, work, seed)
    start = fill_standardisation(vector, template.table, old, pool([moments(s.dataset, old) for s in sites]))
    last, first_losses = learn(sites, old, start, settings, args)
    fresh, drawn, sites = ready(datasets, whole, new, work, seed + 100)
    pooled = pool([moments(s.dataset, new) for s in sites])
    cold = fill_standardisation(drawn, fresh.table, new, pooled)
    taken = take_over(template.info, last, fresh.info, drawn)
    warm = fill_standardisation(taken.vector, fresh.table, new, pooled, taken.standardised)
    return first_losses, learn(sites, new, cold, settings, args)[1], learn(sites, new, warm, settings, args)[1]


def rounds_until(losses: list[float], wanted: float) -> str:
    """The first round whose version is at least as good."""
    return next((str(number) for number, value in enumerate(losses) if value <= wanted), "never")


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generations")
    parser.add_argument("--plants", type=int, default=4, metavar="N")
    parser.add_argument("--rounds", type=int, default=16, metavar="N")
    parser.add_argument("--steps", type=int, default=25, metavar="N")
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    args = parser.parse_args(given)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for seed in range(1, args.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            scenario = solder_scenario(seed, args.plants)
            whole = Contract.model_validate(scenario.contract)
            datasets = {p.participant: read_plant(p, whole, Path(name)) for p in scenario.plants}
            settings = {"proximal_mu": 0.0, "optimizer": "adam", **scenario.training, "steps": args.steps}
            for change in CHANGES:
                first, cold, warm = one(change, datasets, whole, settings, seed, args, Path(name))
                told = (
                    ", ".join(f"{losses[at]:.4f}" for at in (0, 1, min(4, args.rounds), -1)) for losses in (cold, warm)
                )
                until = f"{rounds_until(cold, warm[0])} | {rounds_until(warm, cold[-1])}"
                print(f"| {change} | {seed} | {first[-1]:.4f} | {' | '.join(told)} | {until} |", flush=True)


if __name__ == "__main__":
    main()
