"""One aggregator and several participants under faults that a seed draws: the whole federation, on one virtual clock.

    python -m tests.faults.simulate --seeds 0:2000 --jobs 2
    python -m tests.faults.simulate --seeds 4711 --log

What runs is the product: the aggregator's service with its SQLite store, the federation shell of the edges with their
outboxes, links and uploads. What is simulated is around them: the broker, time, disks that may end a process at a
write, and models that are dice. While the weather is bad, messages are lost, repeated (up to ten times), delayed by
rounds and reordered; links are cut; the broker dies with everything that it retained; processes are killed at any
write and at any time; the wall clock jumps by a day. Then it is calm, and everything has to come to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.config import AggregatorConfig
from edge.residual import Fate, fate
from tests.faults import virtual_loop
from tests.faults.aggregator_process import AggregatorProcess
from tests.faults.broker import FaultyBroker, Weather
from tests.faults.edge_process import EdgeProcess, served_bytes
from tests.faults.truth import Broken, Truth
from tests.support.tiny_template import tiny_model, tiny_template, tiny_vector
from uns_topics.codes import Code
from uns_topics.encodings import encoding
from uns_topics.payloads import read
from uns_topics.plan import Plan, Strategy, Tolerances
from uns_topics.rounds import History
from uns_topics.tensors import Role, vector_bytes
from uns_topics.topics import FlTopic, Kind

CALM_S = 7200.0
"""The longest that a federation may take to come to its end once it is calm."""
REST_S = 60.0
"""Of the storm, after the last round."""
SUM_TOLERANCE = 1e-4
TEMPLATE = tiny_template()
STRATEGIES = (Strategy(name="fedavg"), Strategy(name="fedadam"), Strategy(name="median"))


@dataclass(frozen=True)
class Schedule:
    """What a seed draws.

    Attributes:
        storm_s: how long the faults go on.
        mortality: chance of a process to die at a write; of the aggregator and of an edge.
        kills, wipes, cuts, broker_deaths, full_disks: how many of each, at random times.
    """

    participants: tuple[str, ...]
    rounds: int
    strategy: Strategy
    encoding: str
    downlink: str | None
    weather: Weather
    storm_s: float
    mortality: tuple[float, float]
    kills: int
    wipes: int
    cuts: int
    broker_deaths: int
    full_disks: int
    jumps: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Schedule:
        """From mild to wild."""
        wildness = rng.random()
        weather = Weather(
            lost=rng.choice((0.0, 0.02, 0.2)) * wildness,
            repeated=rng.choice((0.0, 0.1, 0.5)) * wildness,
            late=rng.choice((0.0, 0.05, 0.2)) * wildness,
            late_s=rng.choice((5.0, 60.0, 300.0)),
        )
        return cls(
            participants=tuple(f"p{i}" for i in range(rng.randint(2, 4))),
            rounds=rng.randint(2, 4),
            strategy=rng.choice(STRATEGIES),
            encoding=rng.choice(("f32", "int8", "ternary")),
            downlink=rng.choice((None, "int8")),
            weather=weather,
            storm_s=rng.uniform(60.0, 600.0),
            mortality=(rng.choice((0.0, 0.02)) * wildness, rng.choice((0.0, 0.05)) * wildness),
            kills=rng.choice((0, 0, 1, 3)),
            wipes=rng.choice((0, 0, 0, 2)),
            cuts=rng.choice((0, 0, 1, 3)),
            broker_deaths=rng.choice((0, 0, 1, 2)),
            full_disks=rng.choice((0, 0, 0, 1)),
            jumps=rng.random() < 0.3,
        )


@dataclass(frozen=True)
class Outcome:
    """Attributes: sha256: of the last current version; virtual_s: how long it took; duplicates: refused as such."""

    sha256: str
    virtual_s: float
    commits: int
    writes: int
    deaths: int
    accepted: int
    duplicates: int


class Simulation:
    """Args: kill_at: the aggregator's store write at which it dies, whatever the schedule says."""

    def __init__(
        self, seed: int, folder: Path, schedule: Schedule | None = None, *, kill_at: int | None = None
    ) -> None:
        self._rng = random.Random(seed)
        drawn = Schedule.draw(self._rng)
        self.schedule = schedule or drawn
        self._folder = folder
        self._kill_at = kill_at

    async def run(self) -> Outcome:
        """Raises: AssertionError: an invariant that doesn't hold, or no end within `CALM_S` of calm."""
        plan, loop = self.schedule, asyncio.get_running_loop()
        self._now = loop.time
        model = self._folder / "model.onnx"
        model.write_bytes(tiny_model(TEMPLATE))
        config = AggregatorConfig(
            federation="tiny",
            model=model,
            data_dir=self._folder,
            strategy=plan.strategy,
            encodings=(plan.encoding,),
            downlink=plan.downlink,
            tolerances=Tolerances(rounds=plan.rounds, deadline_s=60.0, grace_s=10.0, evaluation_s=20.0),
            heartbeat_s=20.0,
        )
        self.broker = FaultyBroker(self._rng, plan.weather, loop.time)
        self.truth = Truth(TEMPLATE, plan.strategy, plan.downlink)
        self.aggregator = AggregatorProcess(config, self.broker, self.truth, self._rng, loop.time)
        self.edges = [EdgeProcess(name, TEMPLATE, self.broker, self._rng, loop.time) for name in plan.participants]
        self.aggregator.mortality, mortality = plan.mortality
        self.aggregator.kill_at = self._kill_at
        self.aggregator.jumps = plan.jumps
        for edge in self.edges:
            edge.mortality = mortality
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(process.run()) for process in (self.aggregator, *self.edges)]
            await self._storm()
            await self._until_done(running)
            for edge in self.edges:
                await edge.stop()
            self.aggregator.stop()
        return self._check()

    async def _storm(self) -> None:
        plan, rng = self.schedule, self._rng
        processes = (self.aggregator, *self.edges)
        events = [(rng.uniform(0, plan.storm_s), rng.choice(processes).kill) for _ in range(plan.kills)]
        events += [(rng.uniform(0, plan.storm_s), rng.choice(self.edges).wipe) for _ in range(plan.wipes)]
        events += [(rng.uniform(0, plan.storm_s), self._cut) for _ in range(plan.cuts)]
        events += [(rng.uniform(0, plan.storm_s), self._kill_broker) for _ in range(plan.broker_deaths)]
        events += [(rng.uniform(0, plan.storm_s), self._fill_disk) for _ in range(plan.full_disks)]
        loop = asyncio.get_running_loop()
        handles = [loop.call_later(at, what) for at, what in events]
        end = self._now() + plan.storm_s
        while self._now() < end:
            await asyncio.sleep(5.0)
            if len(self.truth.rounds) >= plan.rounds:  # what is left is resting: a while of it is enough
                end = min(end, self._now() + REST_S)
        for handle in handles:
            handle.cancel()
        for process in processes:
            process.mortality = 0.0
        self.aggregator.disk_is_full = False
        self.broker.weather = None
        self.broker.blocked = frozenset()
        self.broker.start()
        for client in self.broker.clients:
            self.broker.drop(client, "the storm is over")

    def _cut(self) -> None:
        """The way between some clients and the broker, for a while."""
        clients = [f"{name}-fl" for name in self.schedule.participants] + ["tiny-aggregator"]
        cut = frozenset(self._rng.sample(clients, self._rng.randint(1, len(clients))))
        self.broker.blocked |= cut
        for client in cut & set(self.broker.clients):
            self.broker.drop(client)
        asyncio.get_running_loop().call_later(self._rng.uniform(1.0, 120.0), self._mend, cut)

    def _mend(self, cut: frozenset[str]) -> None:
        self.broker.blocked -= cut

    def _fill_disk(self) -> None:
        """The aggregator's, until somebody makes room."""
        self.aggregator.disk_is_full = True
        asyncio.get_running_loop().call_later(self._rng.uniform(1.0, 120.0), self._make_room)

    def _make_room(self) -> None:
        self.aggregator.disk_is_full = False

    def _kill_broker(self) -> None:
        """With everything that it retained."""
        self.broker.stop(forget=True)
        asyncio.get_running_loop().call_later(self._rng.uniform(0.1, 60.0), self.broker.start)

    async def _until_done(self, running: list[asyncio.Task[None]]) -> None:
        end = self._now() + CALM_S
        while not self._is_done():
            if self._now() > end:
                raise Broken(f"no end after {CALM_S:g} s of calm: {self._where()}")
            for task in running:
                if task.done():
                    task.result()
            for edge in self.edges:
                if edge.failed:
                    raise Broken(f"{edge.name}: effects failed: {edge.failed}")
            await asyncio.sleep(1.0)

    def _said(self, kind: Kind) -> object:
        topic = FlTopic("tiny", kind)
        message = self.broker.retained.get(str(topic))
        return None if message is None else read(topic, message.payload)[1]

    def _is_done(self) -> bool:
        history = self._said(Kind.HISTORY)
        if not isinstance(history, History) or not history.resting:
            return False
        return all(
            edge.runs is not None
            and edge.runs.version == self.truth.current
            and edge.disk.get("update-under-way") is None
            for edge in self.edges
        )

    def _where(self) -> str:
        history = self._said(Kind.HISTORY)
        rests = isinstance(history, History) and history.resting
        edges = {
            e.name: (e.runs and e.runs.version, e.core and e.core.reason, "update-under-way" in e.disk.values, e.failed)
            for e in self.edges
        }
        return f"resting {rests}, round {self.truth.last_round}, current {self.truth.current}, edges {edges}"

    def _check(self) -> Outcome:
        truth = self.truth
        vectors = truth.fold_again(tiny_vector(TEMPLATE))
        last = vectors[truth.current]
        for edge in self.edges:
            if served_bytes(edge) != vector_bytes(last):
                raise Broken(f"{edge.name} runs another vector than the current version")
            self._check_conservation(edge)
        return Outcome(
            truth.versions[truth.current].sha256,
            self._now(),
            truth.commits,
            self.aggregator.writes,
            self.aggregator.deaths + sum(edge.deaths for edge in self.edges),
            len(truth.updates),
            sum(code is Code.DUPLICATE for _, code in truth.receipts.values()),
        )

    def _check_conservation(self, edge: EdgeProcess) -> None:
        """What was accepted was trained; with error feedback, what was trained is what came and what is left."""
        accepted = {t for (name, t) in self.truth.accepted if name == edge.name}
        if unknown := accepted - set(edge.trained):
            raise Broken(f"{edge.name}: updates {unknown} were accepted that it never kept")
        if edge.wipes or not encoding(self.schedule.encoding).feedback:
            return  # a residual that was lost with its disk is lost
        plan = self._said(Kind.PLAN)
        assert isinstance(plan, Plan)
        residual = edge.outbox(plan).residual(self.truth.current)
        trained = np.zeros(TEMPLATE.table.elements(Role.WEIGHT), np.float64)
        for transfer, delta in edge.trained.items():
            result, code = self.truth.receipts.get((edge.name, transfer), (None, None))
            if fate(result, code) is not Fate.DROP:  # refused for what it held, or a second one of one round
                trained += delta
        left = residual.values.astype(np.float64) if residual is not None else 0.0
        error = np.max(np.abs(trained - self.truth.sent(edge.name) - left))
        if error > SUM_TOLERANCE:
            raise Broken(f"{edge.name}: trained, sent and residual differ by {error:.3g}")


def run_seed(seed: int, schedule: Schedule | None = None, *, kill_at: int | None = None) -> Outcome:
    """One federation. Raises: AssertionError."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        return virtual_loop.run(Simulation(seed, Path(folder), schedule, kill_at=kill_at).run())


def main(arguments: list[str] | None = None) -> int:
    """Run seeds; 1 where one fails, which is printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", required=True, help="one, or first:past-the-last")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--log", action="store_true", help="what the services say")
    options = parser.parse_args(arguments)
    first, _, past = options.seeds.partition(":")
    seeds = range(int(first), int(past or int(first) + 1))
    if os.environ.get("PYTHONHASHSEED") != "0" or options.jobs > 1:
        return _spread(seeds, options.jobs, options.log)
    logging.basicConfig(level=logging.DEBUG if options.log else logging.CRITICAL, format="%(name)s %(message)s")
    started, failed = time.monotonic(), 0
    for seed in seeds:
        try:
            outcome = run_seed(seed)
        except BaseException as error:
            failed += 1
            print(f"seed {seed}: {_root(error)!r}", flush=True)  # noqa: T201
            if options.log:
                raise
        else:
            if len(seeds) == 1:
                print(outcome)  # noqa: T201
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - started:.1f} s", flush=True)  # noqa: T201
    return min(failed, 1)


def _spread(seeds: range, jobs: int, log: bool) -> int:
    """Over processes in which the order of sets is the same each time."""
    size = -(-len(seeds) // jobs)
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    command = [sys.executable, "-m", "tests.faults.simulate", *(["--log"] if log else [])]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    running = [subprocess.Popen([*command, "--seeds", f"{part.start}:{part.stop}"], env=environment) for part in parts]
    return max(process.wait() for process in running)


def _root(error: BaseException) -> BaseException:
    """Of a group, what began it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
