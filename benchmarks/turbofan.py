"""C-MAPSS FD001-FD004 as four plants: federated beside local-only, centralised, linear and constant; several seeds.

    python -m benchmarks.turbofan --data DIR [--seeds 5] [--rounds 15]

Everything but the network between the processes is the services' own code: the plants' messages go through signal map,
samples and splits; the trainer answers the same requests; statistics are pooled, updates folded and candidates promoted
or refused as the aggregator does it. Centralised is one participant that holds all four plants' samples, with as many
steps as the four together. Every choice (promotion, best checkpoint) is made on select splits; the official test file
of each subset is scored once, for the final parameters, on the last window of each engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aggregator.combine import Combined, combine
from aggregator.evaluation import decide
from aggregator.state import Scores
from aggregator.strategies.base import Strategy, StrategyState
from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from aggregator.updates import ArrayUpdates
from edge.baselines import constant_predictions, linear_predictions
from edge.binding import bind
from edge.dataset import Dataset, Part
from edge.effects import Effect
from edge.ingest import Ingest
from edge.metrics import rmse, row_losses
from edge.models import BATCH_ROWS, Model, open_own
from edge.signal_map import SignalMap
from edge.store import SampleStore
from edge.training.export import make_model
from edge.training.worker import Trainer
from headgate.demo.scenario import PlantScript, Scenario
from headgate.demo.turbofan import turbofan_scenario
from uns_topics.contract import Contract
from uns_topics.plan import Tolerances
from uns_topics.reports import Sums
from uns_topics.standardisation import Moments, cells, context_slots, fill_standardisation, pool
from uns_topics.template import Network, Template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes

MODELS = ("constant", "linear", "local only", "federated", "centralised")


def read_plant(plant: PlantScript, contract: Contract, folder: Path) -> Dataset:
    """A plant's messages as its edge turns them into samples."""
    ingest = Ingest(bind(SignalMap.model_validate(plant.signal_map), contract), contract)
    store = SampleStore(folder / f"{plant.participant}.sqlite", max_samples=10**6)
    store.use(contract)
    effects: list[Effect] = []
    for emission in plant.history():
        effects += ingest.feed(emission.topic, emission.payload, arrival_s=emission.time_s)
        if len(effects) > 5000:
            store.add(effects)
            effects = []
    store.add(effects)
    dataset = store.dataset(contract)
    store.close()
    return dataset


def pooled(datasets: Iterable[Dataset]) -> Dataset:
    """All plants' samples in one place: what no federation ever has."""
    parts = list(datasets)
    offsets = np.cumsum([0, *(len(d.rows) for d in parts)])
    groups = np.cumsum([0, *(int(d.groups.max()) + 1 for d in parts)])
    joined = {
        name: np.concatenate([getattr(d, name) for d in parts])
        for name in ("rows", "labels", "contexts", "parts", "times", "instances")
    }
    return Dataset(
        **joined,
        windows=np.concatenate([d.windows + o for d, o in zip(parts, offsets, strict=False)]),
        groups=np.concatenate([d.groups + g for d, g in zip(parts, groups, strict=False)]),
        length=parts[0].length,
    )


def moments(dataset: Dataset, contract: Contract) -> dict[int, dict[str, Moments]]:
    """What a participant publishes as statistics."""
    rows = dataset.rows[np.unique(dataset.windows[dataset.of(Part.TRAIN), 1] - 1)]
    return cells(rows, context_slots(rows, np.zeros(len(rows), np.int64), contract), contract)


class Site:
    """One trainer with its data: a plant, or all of them together."""

    def __init__(self, name: str, dataset: Dataset, template: Template, folder: Path) -> None:
        self.name = name
        self.dataset = dataset
        self.template = template
        self.trainer = Trainer()
        path = folder / f"{name}.npz"
        dataset.save(path)
        self._ask({"op": "template", "skeleton": template.skeleton})
        self._ask({"op": "dataset", "path": str(path)})

    def delta(
        self, base: Vector, settings: Mapping[str, Any], seed: int, class_weights: Sequence[float] = ()
    ) -> tuple[Vector, int]:
        """One round's update and its number of examples."""
        answer = self._ask({**_order("train", base, settings, seed), "class_weights": list(class_weights)})
        return vector_from_bytes(answer["delta"], self.template.table.size), int(answer["num_examples"])

    def alone(self, base: Vector, settings: Mapping[str, Any], seed: int) -> Vector:
        """The same steps on this site alone: its best parameters so far, by its select split."""
        return vector_from_bytes(
            self._ask(_order("train_local", base, settings, seed))["vector"], self.template.table.size
        )

    def initial(self, seed: int) -> Vector:
        """Fresh parameters."""
        return vector_from_bytes(self._ask({"op": "initial", "seed": seed})["vector"], self.template.table.size)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.trainer.answer(request)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer


def _order(op: str, base: Vector, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {"op": op, "base": vector_bytes(base), "settings": dict(settings), "class_weights": [], "seed": seed}


def predict(model: Model, dataset: Dataset, part: Part) -> np.ndarray:
    """A model's outputs on one part."""
    index = dataset.of(part)
    runs = [index[start : start + BATCH_ROWS] for start in range(0, len(index), BATCH_ROWS)]
    return np.concatenate([model.run(dataset.features(rows), dataset.contexts[rows]) for rows in runs])


def federate(
    sites: list[Site], start: Vector, settings: Mapping[str, Any], rounds: int, seed: int, contract: Contract
) -> tuple[Vector, int]:
    """The aggregator's rounds: fold, compare on the select splits, promote or refuse. Returns vector and promotions."""
    strategy = FedAvg(FedAvgOptions())
    current, state, promoted = start, strategy.init(sites[0].template.table.elements(Role.WEIGHT)), 0
    for number in range(rounds):
        updates = [site.delta(current, settings, seed * 1000 + number) for site in sites]
        made = fold(sites, updates, current, strategy, state)
        scores = {site.name: compare(site, made.vector, current, contract) for site in sites}
        if decide(scores, Tolerances()).promote:
            current, state, promoted = made.vector, made.state, promoted + 1
    return current, promoted


def fold(
    sites: Sequence[Site],
    updates: Sequence[tuple[Vector, int]],
    current: Vector,
    strategy: Strategy,
    state: StrategyState,
) -> Combined:
    """What a round makes of all sites' updates. Args: updates: in their order, as `Site.delta` gives them."""
    table, names, examples = sites[0].template.table, [site.name for site in sites], [n for _, n in updates]
    weights, buffers = (
        ArrayUpdates(names, examples, [table.gather(delta, role) for delta, _ in updates])
        for role in (Role.WEIGHT, Role.BUFFER)
    )
    return combine(current, strategy, state, weights, buffers, table)


def compare(site: Site, candidate: Vector, current: Vector, contract: Contract) -> Scores:
    """What a participant reports of a candidate."""
    index = site.dataset.of(Part.SELECT)
    cap = contract.label.cap  # type: ignore[union-attr] # the scenario's label is run_to_failure
    truth = np.minimum(site.dataset.labels[index], cap)
    candidate_losses, current_losses = (
        row_losses(contract.metric, truth, predict(open_own(site.template, vector), site.dataset, Part.SELECT)) / cap**2
        for vector in (candidate, current)
    )
    return Scores(
        candidate=Sums.of(candidate_losses),
        current=Sums.of(current_losses),
        difference=Sums.of(candidate_losses - current_losses),
    )


def one_seed(folder: Path, scenario: Scenario, seed: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """RMSE by plant and model: [capped, uncapped]."""
    contract = Contract.model_validate(scenario.contract)
    kind, hidden = scenario.network
    network = Network(kind=kind, hidden=tuple(int(w) for w in hidden.split(",")))
    template, initial = make_model(contract, network, seed)
    settings = {"proximal_mu": 0.0, "optimizer": "adam", **scenario.training}
    datasets = {p.participant: Dataset.load(folder / f"{p.participant}.npz") for p in scenario.plants}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sites = [Site(plant, dataset, template, work) for plant, dataset in datasets.items()]
        statistics_of = {site.name: moments(site.dataset, contract) for site in sites}
        start = fill_standardisation(initial, template.table, contract, pool(statistics_of.values()))
        federated, promoted = federate(sites, start, settings, rounds, seed, contract)
        print(f"seed {seed}: {promoted} of {rounds} candidates promoted", flush=True)
        local: dict[str, Vector] = {}
        for site in sites:
            base = fill_standardisation(site.initial(seed), template.table, contract, statistics_of[site.name])
            for number in range(rounds):
                local[site.name] = site.alone(base, settings, seed * 1000 + number)
        everything = Site("all", pooled(datasets.values()), template, work)
        own = moments(everything.dataset, contract)
        base = fill_standardisation(everything.initial(seed), template.table, contract, own)
        more = {**settings, "steps": settings["steps"] * len(sites)}
        for number in range(rounds):
            central = everything.alone(base, more, seed * 1000 + number)
    return {
        site.name: _test_scores(
            site, contract, {"local only": local[site.name], "federated": federated, "centralised": central}
        )
        for site in sites
    }


def _test_scores(site: Site, contract: Contract, vectors: Mapping[str, Vector]) -> dict[str, list[float]]:
    dataset = site.dataset
    index = dataset.of(Part.REPORT)
    predictions = {
        name: predict(open_own(site.template, vector), dataset, Part.REPORT) for name, vector in vectors.items()
    }
    predictions["constant"] = constant_predictions(dataset, contract, index)
    predictions["linear"] = linear_predictions(dataset, contract, index)
    labels = dataset.labels[index]
    capped = np.minimum(labels, contract.label.cap)  # type: ignore[union-attr]
    return {name: [rmse(capped, p), rmse(labels, p)] for name, p in predictions.items()}


def table(results: list[dict[str, dict[str, list[float]]]], plants: list[str]) -> str:
    """The README's table: mean and 95 % interval of the mean over seeds, capped; means of uncapped below."""
    lines = ["| RMSE, labels capped at 125 | " + " | ".join(MODELS) + " |", "|---|" + "---|" * len(MODELS)]
    for plant in [*plants, "mean"]:
        chosen = plants if plant == "mean" else [plant]
        cells_ = [_interval([statistics.mean(r[p][m][0] for p in chosen) for r in results]) for m in MODELS]
        lines.append(f"| {plant.upper() if plant != 'mean' else 'mean of the four'} | " + " | ".join(cells_) + " |")
    uncapped = [_interval([statistics.mean(r[p][m][1] for p in plants) for r in results]) for m in MODELS]
    lines.append("| mean of the four, labels uncapped | " + " | ".join(uncapped) + " |")
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    student = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
    half = student.get(len(values), 2.0) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} ± {half:.2f}"


def main() -> None:
    """Run the seeds on as many processes as there are cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the C-MAPSS files as distributed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="default: the scenario's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every figure to this file too")
    arguments = parser.parse_args()
    scenario = turbofan_scenario(arguments.data)
    contract = Contract.model_validate(scenario.contract)
    rounds = arguments.rounds or scenario.rounds
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for plant in scenario.plants:
            dataset = read_plant(plant, contract, folder)
            dataset.save(folder / f"{plant.participant}.npz")
            sizes = ", ".join(f"{len(dataset.of(part)):,} {part.name.lower()}" for part in list(Part)[:3])
            print(f"{plant.participant}: {sizes}", flush=True)
        # What crosses to the worker processes holds no data: they read the folder.
        bare = replace(scenario, plants=tuple(replace(p, history=_no_history, live=None) for p in scenario.plants))
        with ProcessPoolExecutor(arguments.workers, initializer=torch.set_num_threads, initargs=(1,)) as workers:
            futures = [workers.submit(one_seed, folder, bare, seed, rounds) for seed in range(1, arguments.seeds + 1)]
            results = [future.result() for future in futures]
    print(f"\n{arguments.seeds} seeds, {rounds} rounds, {time.monotonic() - started:.0f} s")
    print(table(results, [p.participant for p in scenario.plants]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results))


def _no_history() -> Any:
    return iter(())


if __name__ == "__main__":
    main()
