"""What each strategy loses to participants that lie: 10 participants, a tabular task, eight attacks, 3 seeds.

Accuracy in points (percent of a balanced test set) after 40 rounds. All attacks pass the gate: they are finite, not
zero, no copies and of an admissible norm. Attackers claim as many examples as the largest participant. `most lost` is
against FedAvg with all ten honest, over the attacks of its line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregator.strategies import STRATEGIES, carries_control, make_strategy
from aggregator.strategies.base import CONTROL, StrategyState
from aggregator.updates import ArrayUpdates
from uns_topics.plan import Strategy
from uns_topics.tensors import Role, Tensor, TensorTable

Array = npt.NDArray[np.float32]
PARTICIPANTS, FEATURES, HIDDEN, CLASSES = 10, 20, 32, 4
ROUNDS, STEPS, BATCH, RATE = 40, 20, 32, 0.1
SEEDS = (0, 1, 2)
SHAPES = ((FEATURES, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
SIZE = sum(int(np.prod(shape)) for shape in SHAPES)
TABLE = TensorTable(tensors=(Tensor(name="w", shape=(SIZE,), role=Role.WEIGHT, offset=0, file_offset=0),))
OPTIONS: Mapping[str, dict[str, Any]] = {  # where 3 of 10 are to be borne
    "multi-krum": {"byzantine": 3},
    "trimmed-mean": {"beta": 0.3},
    "fedavgm": {"momentum": 0.5},
    "scaffold": {"population": PARTICIPANTS},
}


@dataclass(frozen=True)
class Task:
    """Each participant's rows, and a balanced test set."""

    features: list[Array]
    labels: list[npt.NDArray[np.int64]]
    test_features: Array
    test_labels: npt.NDArray[np.int64]


def make_task(seed: int, alpha: float | None) -> Task:
    """Four classes, each a mixture of three clusters. Args: alpha: Dirichlet label skew; None: all alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1.0, (CLASSES, 3, FEATURES))

    def draw(labels: npt.NDArray[np.int64]) -> Array:
        noise = rng.normal(0, 1.3, (len(labels), FEATURES))
        return (centres[labels, rng.integers(0, 3, len(labels))] + noise).astype(np.float32)

    labels = np.repeat(np.arange(CLASSES), 750)
    owner = np.empty(len(labels), np.int64)
    for label in range(CLASSES):
        shares = np.full(PARTICIPANTS, 0.1) if alpha is None else rng.dirichlet(np.full(PARTICIPANTS, alpha))
        owner[labels == label] = rng.choice(PARTICIPANTS, 750, p=shares)
    for participant in range(PARTICIPANTS):  # nobody is left without data
        owner[rng.choice(len(labels), 10, replace=False)] = participant
    parts = [labels[owner == participant] for participant in range(PARTICIPANTS)]
    test = np.repeat(np.arange(CLASSES), 1000)
    return Task([draw(part) for part in parts], parts, draw(test), test)


def split(vectors: Array) -> list[Array]:
    """Views of the layers. Args: vectors: shape (p, SIZE)."""
    layers, start = [], 0
    for shape in SHAPES:
        stop = start + int(np.prod(shape))
        layers.append(vectors[:, start:stop].reshape(-1, *(shape if len(shape) == 2 else (1, *shape))))
        start = stop
    return layers


def train(
    base: Array,
    task: Task,
    flipped: npt.NDArray[np.bool_],
    mu: float,
    correction: Array,
    rng: np.random.Generator,
) -> Array:
    """Local steps of all participants side by side.

    Args: correction: SCAFFOLD's c - c_k, shape (p, SIZE), or one zero.
    Returns: deltas, shape (p, SIZE).
    """
    local = np.tile(base, (PARTICIPANTS, 1))  # (p, SIZE)
    gradient = np.empty_like(local)
    w1, b1, w2, b2 = split(local)
    g1, gb1, g2, gb2 = split(gradient)
    for _ in range(STEPS):
        rows = [rng.integers(0, len(labels), BATCH) for labels in task.labels]
        x = np.stack([task.features[p][r] for p, r in enumerate(rows)])  # (p, B, F)
        y = np.stack([task.labels[p][r] for p, r in enumerate(rows)])  # (p, B)
        y = np.where(flipped[:, None], CLASSES - 1 - y, y)
        hidden = np.maximum(x @ w1 + b1, 0)  # (p, B, H)
        logits = hidden @ w2 + b2  # (p, B, C)
        logits -= logits.max(axis=2, keepdims=True)
        wrong = np.exp(logits)
        wrong /= wrong.sum(axis=2, keepdims=True)
        np.put_along_axis(wrong, y[..., None], np.take_along_axis(wrong, y[..., None], 2) - 1, 2)
        wrong /= BATCH
        back = (wrong @ w2.transpose(0, 2, 1)) * (hidden > 0)
        g1[:], gb1[:] = x.transpose(0, 2, 1) @ back, back.sum(axis=1, keepdims=True)
        g2[:], gb2[:] = hidden.transpose(0, 2, 1) @ wrong, wrong.sum(axis=1, keepdims=True)
        local -= np.float32(RATE) * (gradient + np.float32(mu) * (local - base) + correction)
    return local - base


def accuracy(vector: Array, task: Task) -> float:
    """Percent of the test set."""
    w1, b1, w2, b2 = split(vector[None].astype(np.float64))
    logits = np.maximum(task.test_features @ w1[0] + b1[0], 0) @ w2[0] + b2[0]
    return float(100 * np.mean(logits.argmax(axis=1) == task.test_labels))


def change_of(control: Array, deltas: Array) -> Array:
    """SCAFFOLD's c_k^+ - c_k by option II. Args: control: c; deltas: shape (p, SIZE)."""
    return -control - deltas / np.float32(STEPS * RATE)


@dataclass(frozen=True)
class Seen:
    """What attackers know: everybody's honest delta of this round, their own of the first, and the last step."""

    honest: Array
    own: Array
    first: Array
    last_step: Array
    rng: np.random.Generator


def noise(seen: Seen) -> Array:
    """Five times as long as what it stands for."""
    drawn = seen.rng.normal(0, 1, seen.own.shape)
    lengths = np.linalg.norm(seen.own, axis=1, keepdims=True) / np.linalg.norm(drawn, axis=1, keepdims=True)
    return (5 * drawn * lengths).astype(np.float32)


def a_little(seen: Seen) -> Array:
    """ALIE (Baruch et al. 2019, arXiv:1902.06635): the honest mean less 1.5 deviations, each a trifle apart."""
    lie = seen.honest.mean(axis=0) - np.float32(1.5) * seen.honest.std(axis=0)
    return np.tile(lie, (len(seen.own), 1)) + trifle(seen)


def trifle(seen: Seen) -> Array:
    """What keeps attackers from being copies of each other."""
    return seen.rng.normal(0, 1e-4, seen.own.shape).astype(np.float32)


ATTACKS: Mapping[str, Callable[[Seen], Array]] = {
    "sign-flip": lambda seen: -seen.own,
    "scale -10": lambda seen: np.float32(-10) * seen.own,
    "gaussian": noise,
    "label-flip": lambda seen: seen.own,  # trained on flipped labels
    "ALIE": a_little,
    # Xie et al. 2020, arXiv:1903.03936, epsilon = 0.5
    "inner-prod": lambda seen: np.tile(np.float32(-0.5) * seen.honest.mean(axis=0), (len(seen.own), 1)) + trifle(seen),
    "free-rider": lambda seen: np.tile(seen.last_step, (len(seen.own), 1)) + trifle(seen),
    "replay": lambda seen: seen.first + trifle(seen),
}


ABSENT = "absent"
"""No attack: attackers' updates weigh nothing, which is the best that a defence could make of them."""


def play(name: str, task: Task, seed: int, attackers: int, attack: str | None) -> float:
    """Accuracy after all rounds."""
    rng = np.random.default_rng(1000 + seed)
    choice = Strategy(name=name, options=OPTIONS.get(name, {}))
    strategy, has_control = make_strategy(choice), carries_control(choice)
    state: StrategyState = strategy.init(SIZE)
    vector = np.concatenate([rng.normal(0, 1 / np.sqrt(s[0]), s).ravel() for s in SHAPES]).astype(np.float32)
    vector[FEATURES * HIDDEN : FEATURES * HIDDEN + HIDDEN] = 0
    flipped = np.zeros(PARTICIPANTS, np.bool_)
    flipped[:attackers] = attack == "label-flip"
    mu = 0.01 if name == "fedprox" else 0.0
    names, weights = [f"plant-{p}" for p in range(PARTICIPANTS)], [len(labels) for labels in task.labels]
    weights[:attackers] = [0 if attack == ABSENT else max(weights)] * attackers
    first: Array | None = None
    last_step = np.zeros(SIZE, np.float32)
    own_controls = np.zeros((PARTICIPANTS, SIZE), np.float32)
    for _ in range(ROUNDS):
        correction = state[CONTROL] - own_controls if has_control else np.zeros(1, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a model that was thrown far enough
            trained = np.nan_to_num(train(vector, task, flipped, mu, correction, rng))
        deltas = trained.copy()
        if attack in ATTACKS:
            own = deltas[:attackers].copy()
            first = own if first is None else first
            deltas[:attackers] = ATTACKS[attack](Seen(deltas[attackers:], own, first, last_step, rng))
        controls = None
        if has_control:  # what attackers send goes with their lie; what they train with stays their own
            controls = ArrayUpdates(names, weights, change_of(state[CONTROL], deltas))
        updates = ArrayUpdates(names, weights, deltas, steps=[STEPS] * PARTICIPANTS, controls=controls)
        step = strategy.apply(state, updates, TABLE)
        if np.isfinite(moved := vector + step.step).all():  # else the aggregator makes no version of it
            if has_control:
                own_controls += change_of(state[CONTROL], trained)
            state, last_step, vector = step.state, step.step, moved
    return accuracy(vector, task)


def main() -> None:
    """The tables; names of strategies as arguments restrict them."""
    chosen = [name for name in sys.argv[1:] if name in STRATEGIES] or sorted(STRATEGIES)
    for title, alpha in (("all alike", None), ("Dirichlet 0.5", 0.5)):
        tasks = [make_task(seed, alpha) for seed in SEEDS]

        def mean(name: str, attackers: int, attack: str | None, tasks: list[Task] = tasks) -> float:
            return float(np.mean([play(name, t, s, attackers, attack) for s, t in zip(SEEDS, tasks, strict=True)]))

        reference = mean("fedavg", 0, None)
        alone = ", ".join(f"{mean('fedavg', n, ABSENT):.1f} of the {PARTICIPANTS - n} honest alone" for n in (2, 3))
        print(f"\n{title}: FedAvg {reference:.1f} of all ten if honest, {alone}")
        print(
            f"{'':18} {'none':>6} {'n':>2} " + " ".join(f"{a:>10}" for a in ATTACKS) + f" {'most lost':>10}", flush=True
        )
        for name in chosen:
            unharmed = mean(name, 0, None)
            for attackers in (2, 3):
                found = [mean(name, attackers, attack) for attack in ATTACKS]
                cells = " ".join(f"{value:10.1f}" for value in found)
                print(f"{name:18} {unharmed:6.1f} {attackers:2} {cells} {reference - min(found):10.1f}", flush=True)


if __name__ == "__main__":
    main()
