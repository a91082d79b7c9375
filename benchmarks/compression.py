"""Accuracy against bytes: each encoding, up and down, with partial participation.

    python -m benchmarks.compression [--plants 8] [--rounds 10] [--share 0.3] [--seeds 3]
    python -m benchmarks.compression --scenario turbofan --data DIR [--plants 12] [--rounds 15]

The services' own code without the network: samples, trainer, packed updates with their residual, fold, versions down as
steps with the aggregator's residual. Every round draws the same participants for each encoding. The figure is that of
the last version on what nobody trained on; nothing is chosen by it. The row `other batches` is float32 once more with
other mini-batches: a difference of that size says nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aggregator.combine import combine
from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from aggregator.updates import ArrayUpdates
from benchmarks.compression_cases import SCENARIOS, Case, Solder, Turbofan
from edge.residual import Fate, Residual, after, due
from uns_topics.encodings import encoding
from uns_topics.steps import make_step
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes
from uns_topics.update import UpdateHeader, pack_groups, pack_update

ENCODINGS = ("f32", "int8", "ternary", "topk-int8", "topk-sign")
YARDSTICK = "f32, other batches"


@dataclass
class Outcome:
    """The last version's figure, and bytes per update and per version."""

    figure: float
    up: float
    down: float


def federate(case: Case, name: str, args: argparse.Namespace, seed: int, batches: int) -> Outcome:
    """Rounds with some participants each; every step up and down goes through its encoding.

    Args: seed: of the draws; batches: of the participants' mini-batches.
    """
    sites, current = case.sites, case.start
    table, strategy = sites[0].template.table, FedAvg(FedAvgOptions())
    state = strategy.init(table.elements(Role.WEIGHT))
    rng = np.random.default_rng(seed)
    kept: dict[str, Residual | None] = {site.name: None for site in sites}
    left: Vector | None = None
    up, down = [], []
    for number in range(args.rounds):
        drawn = sorted(rng.choice(len(sites), max(1, round(args.share * len(sites))), replace=False).tolist())
        names, examples, deltas, buffers = [], [], [], []
        for site in (sites[index] for index in drawn):
            delta, count = site.delta(current, case.settings, batches * 1000 + number)
            sent, size = send(delta, table, name, kept, site.name, number, count, case)
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
    return Outcome(case.score(current), statistics.mean(up), statistics.mean(down))


def send(
    delta: Vector,
    table: TensorTable,
    name: str,
    kept: dict[str, Residual | None],
    who: str,
    number: int,
    count: int,
    case: Case,
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
        federation=case.contract.federation, participant=who, round_number=number + 1, attempt=1, base="a" * 64,
        generation=1, num_examples=count, num_steps=case.settings["steps"], metrics={"loss": 0.5}, groups=groups,
    )  # fmt: skip
    return arrived, len(pack_update(header, body))


def one_seed(seed: int, args: argparse.Namespace, scenario: Solder | Turbofan) -> dict[str, Outcome]:
    """All encodings on the same plants and the same draws."""
    with tempfile.TemporaryDirectory() as name:
        case = scenario.case(seed, Path(name))
        results = {encoding: federate(case, encoding, args, seed, seed) for encoding in args.encodings}
        return {**results, YARDSTICK: federate(case, "f32", args, seed, seed + 1_000)}


def line(name: str, results: list[dict[str, Outcome]], scenario: Solder | Turbofan) -> str:
    """One row: means over seeds, and each seed's difference."""
    cells = [name]
    for way in ("up", "down"):
        size, plain = (statistics.mean(getattr(r[one], way) for r in results) for one in (name, "f32"))
        cells += [f"{size:,.0f}", f"{plain / size:.1f}"]
    cells.append(f"{statistics.mean(r[name].figure for r in results):.{scenario.digits}f}")
    differences = [scenario.difference(r[name].figure, r["f32"].figure) for r in results]
    each = ", ".join(f"{one:+.1f}" for one in differences)
    cells.append(f"{statistics.mean(differences):+.2f} ({each})" if name != "f32" else "")
    return f"| {' | '.join(cells)} |"


def _encodings(text: str) -> tuple[str, ...]:
    return tuple(name for name in ENCODINGS if name == "f32" or name in text.split(","))


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line; what isn't given is the scenario's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, default="solder")
    parser.add_argument("--data", type=Path, help="folder that holds the public data sets, or the C-MAPSS files")
    parser.add_argument("--plants", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, help="of each participant in a round")
    parser.add_argument("--share", type=float, default=0.3, help="of the participants in each round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encodings", type=_encodings, default=ENCODINGS, help="f32 is always one")
    parser.add_argument("--hidden", type=lambda text: tuple(int(w) for w in text.split(",")))
    args = parser.parse_args(given)
    for name in ("plants", "rounds", "hidden"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(SCENARIOS[args.scenario], name))
    return args


def main(given: list[str] | None = None) -> None:
    """Print a row per encoding: bytes, times fewer than float32, and what it costs."""
    args = arguments(given)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scenario = SCENARIOS[args.scenario](args, Path(folder))
        with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as workers:
            jobs = [workers.submit(one_seed, seed, args, scenario) for seed in range(1, args.seeds + 1)]
            results = [job.result() for job in jobs]
    setting = f"{args.plants} plants, {args.share:.0%} of them in each of {args.rounds} rounds"
    print(f"{setting}, {args.seeds} seeds, {time.monotonic() - started:.0f} s")
    headings = ("encoding", "bytes up", "times fewer", "bytes down", "times fewer", scenario.metric)
    print(f"| {' | '.join(headings)} | against f32 ({scenario.unit}) |")
    print("|---|---|---|---|---|---|---|")
    for name in (*args.encodings, YARDSTICK):
        print(line(name, results, scenario))


if __name__ == "__main__":
    main()
