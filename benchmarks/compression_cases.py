"""What encodings are measured on: the simulated solder lines, and C-MAPSS, its engines dealt out to test beds."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turbofan import Site, moments, predict, read_plant
from edge.dataset import Dataset, Part
from edge.metrics import average_precision, rmse
from edge.models import open_own
from edge.training.export import make_model
from headgate.demo.solder import solder_scenario
from headgate.demo.turbofan import RUL_CAP, turbofan_scenario
from headgate.plants.cmapss import SUBSETS
from uns_topics.contract import Contract
from uns_topics.standardisation import fill_standardisation, pool
from uns_topics.template import Network
from uns_topics.tensors import Vector


@dataclass(frozen=True)
class Case:
    """One seed's participants, where they start, and the figure of a vector on data that none of them trained on."""

    sites: list[Site]
    contract: Contract
    start: Vector
    settings: dict[str, Any]
    score: Callable[[Vector], float]


class Solder:
    """Simulated lines; the mean over plants of the average precision on their report splits."""

    metric, unit, digits = "average precision", "points", 3
    plants, rounds, hidden = 8, 10, (64, 64)

    def __init__(self, args: argparse.Namespace, _: Path) -> None:
        self._args = args

    def case(self, seed: int, work: Path) -> Case:
        """A seed's plants; those without both classes in their report split are left out."""
        scenario = solder_scenario(seed, self._args.plants)
        contract = Contract.model_validate(scenario.contract)
        datasets = {p.participant: read_plant(p, contract, work) for p in scenario.plants}
        scorable = {name: dataset for name, dataset in datasets.items() if _is_scorable(dataset)}
        sites, start = _ready(contract, scorable, self._args.hidden, work, seed)

        def score(vector: Vector) -> float:
            return statistics.mean(_precision(site, vector) for site in sites)

        return Case(sites, contract, start, _settings(scenario.training, self._args), score)

    @staticmethod
    def difference(figure: float, plain: float) -> float:
        """In points of average precision."""
        return 100 * (figure - plain)


class Turbofan:
    """C-MAPSS, each subset on a few test beds; the mean over subsets of the RMSE on the official test file."""

    metric, unit, digits = "RMSE, capped", "%, above 0 is worse", 2
    plants, rounds, hidden = 12, 15, (100, 50)

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        if args.data is None or args.plants % len(SUBSETS):
            sys.exit(f"turbofan needs --data DIR, and plants for {len(SUBSETS)} subsets alike")
        inner = args.data / "cmapss"
        scenario = turbofan_scenario(inner if inner.is_dir() else args.data)
        self._contract = Contract.model_validate(scenario.contract)
        self._settings, self._args, self._folder = _settings(scenario.training, args), args, folder
        for plant in scenario.plants:
            read_plant(plant, self._contract, folder).save(folder / f"{plant.participant}.npz")

    def case(self, seed: int, work: Path) -> Case:
        """A seed's test beds."""
        rng = np.random.default_rng(seed)
        beds: dict[str, dict[str, Dataset]] = {}
        for name in (subset.lower() for subset in SUBSETS):
            parts = deal(Dataset.load(self._folder / f"{name}.npz"), self._args.plants // len(SUBSETS), rng)
            beds[name] = {f"{name}-{number}": part for number, part in enumerate(parts, start=1)}
        datasets = {bed: part for parts in beds.values() for bed, part in parts.items()}
        sites, start = _ready(self._contract, datasets, self._args.hidden, work, seed)

        def score(vector: Vector) -> float:
            return statistics.mean(
                _subset_rmse([s for s in sites if s.name in names], vector) for names in beds.values()
            )

        return Case(sites, self._contract, start, self._settings, score)

    @staticmethod
    def difference(figure: float, plain: float) -> float:
        """In per cent of float32's RMSE."""
        return 100 * (figure / plain - 1)


SCENARIOS: dict[str, type[Solder | Turbofan]] = {"solder": Solder, "turbofan": Turbofan}


def _is_scorable(dataset: Dataset) -> bool:
    return len(np.unique(dataset.labels[dataset.of(Part.REPORT)])) == 2


def _precision(site: Site, vector: Vector) -> float:
    predictions = predict(open_own(site.template, vector), site.dataset, Part.REPORT)
    return average_precision(site.dataset.labels[site.dataset.of(Part.REPORT)], predictions)


def _subset_rmse(sites: list[Site], vector: Vector) -> float:
    """Capped RMSE on the last window of every test engine of these beds together."""
    predictions = [predict(open_own(site.template, vector), site.dataset, Part.REPORT) for site in sites]
    labels = [site.dataset.labels[site.dataset.of(Part.REPORT)] for site in sites]
    return rmse(np.minimum(np.concatenate(labels), RUL_CAP), np.concatenate(predictions))


def deal(dataset: Dataset, count: int, rng: np.random.Generator) -> list[Dataset]:
    """Engines dealt out at random, none cut through, those of each part evenly: each bed trains and is tested."""
    owner = np.empty(int(dataset.groups.max()) + 1, np.int64)
    dealt = 0
    for part in (Part.TRAIN, Part.SELECT, Part.REPORT):
        engines = rng.permutation(np.unique(dataset.groups[dataset.parts == part]))
        owner[engines] = (dealt + np.arange(len(engines))) % count
        dealt += len(engines)
    return [_chosen(dataset, owner[dataset.groups] == bed) for bed in range(count)]


def _chosen(dataset: Dataset, mask: np.ndarray) -> Dataset:
    whole = ("rows", "length")  # windows point into the rows
    return Dataset(
        **{
            f.name: getattr(dataset, f.name) if f.name in whole else getattr(dataset, f.name)[mask]
            for f in fields(dataset)
        }
    )


def _settings(training: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    return {"proximal_mu": 0.0, "optimizer": "adam", **training, **({"steps": args.steps} if args.steps else {})}


def _ready(
    contract: Contract, datasets: dict[str, Dataset], hidden: tuple[int, ...], work: Path, seed: int
) -> tuple[list[Site], Vector]:
    """Participants with their trainers, and the first version with the statistics of all."""
    template, initial = make_model(contract, Network(kind="mlp", hidden=hidden), seed)
    sites = [Site(name, dataset, template, work) for name, dataset in datasets.items()]
    pooled = pool([moments(site.dataset, contract) for site in sites])
    return sites, fill_standardisation(initial, template.table, contract, pooled)
