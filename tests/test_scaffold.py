"""SCAFFOLD's participants and server together, against Algorithm 1 written out (Karimireddy et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aggregator.combine import combine
from aggregator.strategies import make_strategy
from aggregator.strategies.base import CONTROL, StrategyState
from aggregator.updates import decoded
from edge.control import Controls
from edge.outbox import Belonging, Outbox, Waiting
from edge.store import SampleStore
from tests.support.tiny_template import tiny_template, tiny_vector
from uns_topics.controls import join_full, split_full
from uns_topics.plan import Strategy
from uns_topics.steps import make_step, take_step
from uns_topics.template import Lineage
from uns_topics.tensors import Role, Vector, vector_sha256
from uns_topics.transfers import transfer_id
from uns_topics.update import UpdateHeader, pack_groups, pack_update

TEMPLATE = tiny_template()
TABLE = TEMPLATE.table
SIZE = TABLE.elements(Role.WEIGHT)
BELONGS = Belonging(generation=1, template=TEMPLATE.sha256)
STEPS, RATE, GLOBAL_RATE, POPULATION = 10, 0.05, 0.8, 4
NAMES = ("berlin", "gdansk", "lyon", "porto")
RNG = np.random.default_rng(0)
CURVATURE = RNG.uniform(0.5, 4.0, (POPULATION, SIZE))
OPTIMUM = RNG.normal(0, 1, (POPULATION, SIZE))
"""f_k(x) = 1/2 * sum of CURVATURE_k * (x - OPTIMUM_k)^2."""
TOGETHER = (CURVATURE * OPTIMUM).sum(axis=0) / CURVATURE.sum(axis=0)
"""Where the mean of all f_k is least."""

Array = npt.NDArray[np.float64]


def gradient(k: int, y: Vector | Array) -> Array:
    return CURVATURE[k] * (y - OPTIMUM[k])


@dataclass
class Reference:
    """Algorithm 1 line by line, option II, in float64."""

    x: Array
    c: Array = field(default_factory=lambda: np.zeros(SIZE))
    own: Array = field(default_factory=lambda: np.zeros((POPULATION, SIZE)))

    def round(self, sampled: Sequence[int]) -> None:
        dy, dc = [], []
        for k in sampled:
            y = self.x.copy()
            for _ in range(STEPS):
                y = y - RATE * (gradient(k, y) - self.own[k] + self.c)
            after = self.own[k] - self.c + (self.x - y) / (STEPS * RATE)
            dy.append(y - self.x)
            dc.append(after - self.own[k])
            self.own[k] = after
        self.x = self.x + GLOBAL_RATE * np.mean(dy, axis=0)
        self.c = self.c + len(sampled) / POPULATION * np.mean(dc, axis=0)


class Federation:
    """Our pieces in their order: transfer or step down, training, update up, fold; each participant with its disk."""

    def __init__(self, folder: Path, stack: ExitStack, name: str = "scaffold") -> None:
        self.folder = folder
        options: dict[str, float | int | str | bool] = {"population": POPULATION, "learning_rate": GLOBAL_RATE}
        self.strategy = make_strategy(Strategy(name=name, options=options if name == "scaffold" else {}))
        self.has_control = name == "scaffold"
        self.state: StrategyState = self.strategy.init(SIZE)
        self.vector, self.version, self.lineage = tiny_vector(TEMPLATE, 1), 1, Lineage(origin="statistics", parent=0)
        self.rounds = 0
        self.boxes = [Outbox(stack.enter_context(SampleStore(folder / f"{n}.sqlite")), BELONGS, TABLE) for n in NAMES]
        self.held = [(self.vector, self._control()) for _ in NAMES]

    @property
    def x(self) -> Vector:
        return TABLE.gather(self.vector, Role.WEIGHT)

    def own(self, k: int) -> Vector:
        return self.boxes[k].control(self.version, self.lineage)

    def _control(self) -> Vector | None:
        return self.state[CONTROL] if self.has_control else None

    def round(self, sampled: Sequence[int], encoding: str = "f32", *, refused: bool = False) -> None:
        """A round whose version is promoted, or made and then refused."""
        self.rounds += 1
        contents = {NAMES[k]: self.train(k, encoding) for k in sampled}
        for k in sampled:
            self.boxes[k].settle(transfer_id(contents[NAMES[k]]), "accepted", None)
        names = sorted(contents)
        with decoded(
            names,
            [1] * len(names),
            lambda i: contents[names[i]],
            TABLE,
            (encoding,),
            self.folder,
            control=self.has_control,
        ) as (deltas, buffers):
            made = combine(self.vector, self.strategy, self.state, deltas, buffers, TABLE)
        if refused:
            return
        control = made.state[CONTROL] if self.has_control else None
        step = make_step(self.version + 1, self.vector, made.vector, None, TABLE, "f32", control)
        for k, (vector, _) in enumerate(self.held):
            self.held[k] = take_step(vector, step.content, TABLE, control=self.has_control)
        self.held[0] = split_full(join_full(step.vector, control), TABLE, control=self.has_control)  # as a late joiner
        self.lineage = Lineage(origin="round", parent=self.version, round_number=self.rounds, contributors=len(names))
        self.version, self.vector, self.state = self.version + 1, step.vector, made.state

    def train(self, k: int, encoding: str) -> bytes:
        vector, server = self.held[k]
        x = TABLE.gather(vector, Role.WEIGHT)
        controls = Controls(server, self.own(k)) if server is not None else None
        correction = controls.correction if controls is not None else np.zeros(SIZE, np.float32)
        y = x.copy()
        for _ in range(STEPS):
            y = y - np.float32(RATE) * (gradient(k, y).astype(np.float32) + correction)
        moved = y - x
        change = controls.change(controls.own, moved, STEPS, RATE) if controls is not None else None
        delta = np.zeros(TABLE.size, np.float32)
        TABLE.scatter(delta, Role.WEIGHT, moved)
        groups, body = pack_groups(delta, TABLE, encoding, change)
        header = UpdateHeader(
            federation="tiny", participant=NAMES[k], round_number=self.rounds, attempt=1, base=vector_sha256(vector),
            generation=1, num_examples=10, num_steps=STEPS, groups=groups,
        )  # fmt: skip
        content = pack_update(header, body)
        waiting = Waiting(
            belongs=BELONGS, transfer=transfer_id(content), version=self.version, base=header.base,
            round_number=self.rounds, attempt=1, num_examples=10, num_steps=STEPS, seconds=0.1, elements=0,
            control_elements=SIZE if controls is not None else 0,
        )  # fmt: skip
        self.boxes[k].send(waiting, np.empty(0, np.float32), content, controls.own if controls is not None else None)
        return content


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def check(ours: Federation, reference: Reference) -> None:
    np.testing.assert_allclose(ours.x, reference.x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.state[CONTROL], reference.c, rtol=1e-4, atol=1e-5)
    for k in range(POPULATION):
        np.testing.assert_allclose(ours.own(k), reference.own[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "cohorts", [[(0, 1, 2, 3)] * 3, [(0, 1, 2), (1, 3), (0, 1, 2, 3)], [(3,), (3,), (0, 2)]], ids=str
)
def test_three_rounds_are_those_of_algorithm_1(
    cohorts: list[tuple[int, ...]], tmp_path: Path, stack: ExitStack
) -> None:
    ours = Federation(tmp_path, stack)
    reference = Reference(ours.x.astype(np.float64))
    for sampled in cohorts:
        ours.round(sampled)
        reference.round(sampled)
        check(ours, reference)
        assert len({(v.tobytes(), c.tobytes()) for v, c in ours.held if c is not None}) == 1, "full and step holders"


def test_a_refused_version_leaves_no_trace(tmp_path: Path, stack: ExitStack) -> None:
    ours = Federation(tmp_path, stack)
    reference = Reference(ours.x.astype(np.float64))
    for sampled, refused in (((0, 1, 2), False), ((1, 2, 3), True), ((0, 3), True), ((0, 1, 2, 3), False)):
        ours.round(sampled, refused=refused)
        if not refused:
            reference.round(sampled)
        check(ours, reference)


@pytest.mark.parametrize("encoding", ["f32", "int8"])
def test_it_finds_the_common_optimum_where_averaging_settles_beside_it(
    encoding: str, tmp_path: Path, stack: ExitStack
) -> None:
    """Refused rounds on the way: a c that drifts from the mean of all c_k would shift what it settles at."""
    distance = {}
    for name in ("scaffold", "fedavg"):
        (tmp_path / name).mkdir()
        ours = Federation(tmp_path / name, stack, name)
        for number in range(60):
            ours.round(range(POPULATION), encoding, refused=number in (3, 4, 9))
        distance[name] = float(np.linalg.norm(ours.x - TOGETHER))
    assert distance["scaffold"] < 0.02 < 0.1 < distance["fedavg"]
