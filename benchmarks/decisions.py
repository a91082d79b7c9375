"""What calibration and a site's cost rule are worth on the report part, beside the score's plain threshold of one half.

    python -m benchmarks.decisions [--data DIR] [--seeds 5] [--miss 50]

Simulated solder lines, and with --data the AI4I 2020 records (its three grades as sites, in the order of the file).
FedAvg with the services' own trainer, statistics and class weights; then each site fits on its select part what an edge
fits before a swap. Figures are of the report part, which nothing was fitted on, each seed counting alike; a site that
would be on probation is left out and counted. Cost is per 1000 samples, a false alarm costs 1.
"""

from __future__ import annotations

import argparse
import csv
import lzma
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from benchmarks.turbofan import Site, fold, moments, predict, read_plant
from edge.dataset import Dataset, Part
from edge.decision import decide
from edge.metrics import row_losses
from edge.models import open_own
from edge.probation import evidence
from edge.rules import CostRule, Probation
from edge.splits import split
from edge.threshold import Rows, cost, fit
from edge.training.export import make_model
from headgate.demo.solder import solder_scenario
from uns_topics.contract import Contract, Split
from uns_topics.standardisation import class_weights, fill_standardisation, pool
from uns_topics.template import Network
from uns_topics.tensors import Role, Vector

SETTINGS = {
    "proximal_mu": 0.0, "optimizer": "adam", "steps": 100, "batch_size": 64, "learning_rate": 0.001,
}  # fmt: skip
ROUNDS = 8
AI4I = (
    ("air", "Air temperature [K]", 290.0, 310.0),
    ("process", "Process temperature [K]", 300.0, 320.0),
    ("speed", "Rotational speed [rpm]", 1000.0, 3000.0),
    ("torque", "Torque [Nm]", 0.0, 80.0),
    ("wear", "Tool wear [min]", 0.0, 260.0),
)


@dataclass(frozen=True)
class Result:
    """One site and seed. Attributes: costs: by way of deciding, per 1000 samples; losses: log loss before, after."""

    costs: dict[str, float]
    losses: tuple[float, float]
    calibrated: bool


def solder(seed: int, folder: Path) -> tuple[Contract, dict[str, Dataset]]:
    """The four default plants."""
    scenario = solder_scenario(seed)
    contract = Contract.model_validate(scenario.contract)
    return contract, {p.participant: read_plant(p, contract, folder) for p in scenario.plants}


def ai4i(data: Path) -> tuple[Contract, dict[str, Dataset]]:
    """The grades L, M and H as sites; split by time, which is the order of the file."""
    path = next(p for p in (data / "ai4i2020" / "ai4i2020.csv.xz", data / "ai4i2020.csv.xz") if p.exists())
    features = [{"name": n, "unit": "", "minimum": low, "maximum": high} for n, _, low, high in AI4I]
    label = {"kind": "classes", "name": "machine", "classes": ["fine", "failure"], "positive": "failure"}
    contract = Contract.model_validate(
        {"federation": "ai4i", "features": features, "label": label, "sample": {"kind": "event", "key": "udi"},
         "metric": "average_precision"}
    )  # fmt: skip
    with lzma.open(path, "rt", encoding="utf-8-sig") as file:
        records = list(csv.DictReader(file))
    return contract, {f"grade {grade}": _site(records, grade) for grade in "LMH"}


def _site(records: list[dict[str, str]], grade: str) -> Dataset:
    chosen = [record for record in records if record["Type"] == grade]
    n = len(chosen)
    times = np.array([60.0 * int(record["UDI"]) for record in chosen])
    groups = np.full(n, -1)
    return Dataset(
        rows=np.array([[float(record[column]) for _, column, _, _ in AI4I] for record in chosen], np.float32),
        windows=np.stack([np.arange(n), np.arange(n) + 1], axis=1),
        labels=np.array([float(record["Machine failure"]) for record in chosen], np.float32),
        contexts=np.zeros(n, np.int64),
        parts=split(times, groups, np.zeros(n, np.uint8), Split()),
        times=times,
        instances=np.zeros(n, np.int64),
        groups=groups,
    )


def federate(contract: Contract, datasets: dict[str, Dataset], folder: Path, seed: int) -> tuple[list[Site], Vector]:
    """Rounds in which all sites take part. Returns: sites, and the last version's vector."""
    template, initial = make_model(contract, Network(kind="mlp", hidden=(32, 32)), seed)
    sites = [Site(name, dataset, template, folder) for name, dataset in datasets.items()]
    counts = [np.bincount(d.labels[d.of(Part.TRAIN)].astype(int), minlength=2) for d in datasets.values()]
    weights = class_weights(tuple(int(n) for n in sum(counts)))
    current = fill_standardisation(
        initial, template.table, contract, pool([moments(s.dataset, contract) for s in sites])
    )
    strategy = FedAvg(FedAvgOptions())
    state = strategy.init(template.table.elements(Role.WEIGHT))
    for number in range(ROUNDS):
        updates = [site.delta(current, SETTINGS, seed * 1000 + number, weights) for site in sites]
        made = fold(sites, updates, current, strategy, state)
        current, state = made.vector, made.state
    return sites, current


def judge(site: Site, vector: Vector, contract: Contract, rule: CostRule) -> Result | None:
    """What each way of deciding costs on the report part; None where the site would be on probation."""
    model, data = open_own(site.template, vector), site.dataset
    found = evidence(data, contract, Probation())
    if found.problem is not None:
        return None
    on_select = predict(model, data, Part.SELECT).astype(np.float64)
    decided = decide(on_select, found, data, ["site"], contract, rule)
    plain = decide(on_select, found, data, ["site"], contract, None)
    assert decided.trip is not None
    raw = predict(model, data, Part.REPORT).astype(np.float64)
    positive = data.labels[data.of(Part.REPORT)] == 1
    scores = plain.calibration.apply(raw)
    uncalibrated = _threshold(on_select, data, rule)
    ways = {
        "alarm on all": (raw, 0.0),
        "alarm on none": (raw, 2.0),
        "score, 0.5": (raw, 0.5),
        "calibrated, 0.5": (scores, 0.5),
        "score, cost rule": (raw, uncalibrated),
        "calibrated, cost rule (an edge)": (scores, decided.trip.threshold),
        "calibrated, f / (f + m)": (scores, rule.false_alarm / (rule.false_alarm + rule.miss)),
    }
    per = 1000 / len(positive)
    costs = {name: per * cost(rule, outputs, positive, at) for name, (outputs, at) in ways.items()}
    losses = [float(row_losses(contract.metric, positive.astype(float), s).mean()) for s in (raw, scores)]
    return Result(costs, (losses[0], losses[1]), decided.calibration.reason is None)


def _threshold(outputs: np.ndarray, data: Dataset, rule: CostRule) -> float:
    """The cost rule on scores as they are."""
    index = data.of(Part.SELECT)
    found = fit(rule, Rows(outputs, data.labels[index] == 1, data.times[index], data.instances[index]))
    assert found is not None
    return found


def results(args: argparse.Namespace) -> Iterator[tuple[str, str, Result | None]]:
    """Scenario, site and what came of it, for each seed."""
    rule = CostRule(rule="cost", miss=args.miss, false_alarm=1.0)
    for seed in range(1, args.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            cases = {"solder": solder(seed, Path(name))}
            if args.data is not None:
                cases["ai4i"] = ai4i(args.data)
            for scenario, (contract, datasets) in cases.items():
                sites, vector = federate(contract, datasets, Path(name), seed)
                for site in sites:
                    yield scenario, site.name, judge(site, vector, contract, rule)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with ai4i2020/ai4i2020.csv.xz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--miss", type=float, default=50.0, help="cost of a miss; a false alarm costs 1")
    args = parser.parse_args()
    known: dict[tuple[str, str], list[Result | None]] = {}
    for scenario, site, found in results(args):
        known.setdefault((scenario, site), []).append(found)
    for scenario in dict.fromkeys(scenario for scenario, _ in known):
        print(f"{scenario}, a miss costs {args.miss:g}, {args.seeds} seeds; mean cost per 1000 samples (each seed)")
        for (of, site), every in known.items():
            if of == scenario:
                show(site, [found for found in every if found is not None], len(every))


def show(site: str, found: list[Result], runs: int) -> None:
    """One site's rows."""
    print(f"  {site}: {runs - len(found)} of {runs} on probation, {sum(r.calibrated for r in found)} calibrated")
    if not found:
        return
    before, after = (statistics.mean(r.losses[i] for r in found) for i in (0, 1))
    print(f"    log loss on report: {before:.3f} as it is, {after:.3f} calibrated")
    for way in found[0].costs:
        costs = [r.costs[way] for r in found]
        print(f"    {way:32} {statistics.mean(costs):8.0f}   ({', '.join(f'{c:.0f}' for c in costs)})")


if __name__ == "__main__":
    main()
