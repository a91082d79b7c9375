"""The plant side of an edge: tags in, samples to the store, inference out. A shell around `Ingest` and `Outputs`.

Messages are decoded in the broker's callback; what follows from them is worked off in batches, so that storing and
publishing cost once per batch. While a batch is on its way the next one gathers: that is the back-pressure, and it is
bounded. A model is swapped between two batches, never within one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from broker_bridge.link import Link
from broker_bridge.session import BrokerRefused, Connector, Message, PublishRefused, Session, SessionLost, Will
from broker_bridge.threads import on
from edge.backlog import REPLAYED_AFTER_S, follow
from edge.effects import Effect, LabelSet, Problem, SampleReady
from edge.handover import Handover, Learning
from edge.inference import Inference, Input
from edge.ingest import Ingest
from edge.instance_memory import InstanceMemory
from edge.inventory import Inventory
from edge.outputs import alive_topic
from edge.problem_log import ProblemLog
from edge.quality import Judgement, Observed, QualityCounters
from edge.reading import Reading
from edge.retained import RetainedLeaves
from edge.sparkplug import RebirthRequest
from edge.sparkplug_host import HostState
from edge.sparkplug_session import SparkplugSession
from edge.staleness import Staleness
from edge.store import SampleStore, StoredPrediction
from edge.store_file import StoreError
from edge.unit_watch import UnitWatch
from edge.variants import Served
from uns_topics.codes import DataProblem
from uns_topics.reports import DataQuality

log = logging.getLogger("headgate.edge")

MAX_WAITING = 100_000
"""Effects of messages that wait to be stored; beyond it they are dropped and counted as `overload`."""
BATCH_EFFECTS = 2_000
WARN_EVERY_S = 30.0
"""A reason for dropping messages is logged once in this time, with its count."""
PROBLEMS_EVERY_S = 5.0
"""Problems are written to disk at most this often."""
MEMORY_KEY = "instance:"
"""Prefix in the store of what is remembered of an instance."""


class Plant:
    """One edge's plant session.

    Args:
        connector: the plant's broker.
        reading: how messages become samples, and answers leaves.
        home: the path under which the edge's own `alive` leaf stands.
        store, executor: the sample store and the single thread that it is used from.
        problem_log: what could not be used, with its payloads. keep_problems: writes that to disk, on `executor`.
        quality: counts what the samples look like. units: compares them with the other plants'.
        on_stored: called on the loop after each stored batch.
        host: id of the Sparkplug host that this edge is, if it is one.
        sparkplug: says inference as a Sparkplug edge node too.
        stale_after_s: age without samples at which an instance is stale; None: derived.
        replayed_after_s: see `edge.backlog`.
    """

    def __init__(
        self,
        connector: Connector,
        participant: str,
        federation: str,
        reading: Reading,
        store: SampleStore,
        executor: Executor,
        *,
        home: str,
        max_batch: int,
        quality: QualityCounters,
        units: UnitWatch,
        problem_log: ProblemLog,
        keep_problems: Callable[[bytes], None],
        on_stored: Callable[[], None],
        host: str | None = None,
        sparkplug: SparkplugSession | None = None,
        stale_after_s: float | None = None,
        replayed_after_s: float = REPLAYED_AFTER_S,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._executor = executor
        self._on_stored = on_stored
        self._wall_clock = wall_clock
        self._contracts = Handover(reading)
        self._begin: Callable[[], None] | None = None
        """Of what is learnt, while the store is not ready for it."""
        self._renamed = False
        self._alive = alive_topic(home, federation, participant)
        self._served: Served | None = None
        self._replayed_after_s = replayed_after_s
        self._clock = clock
        self._newest: dict[str, Input] = {}
        self._memory = {path: InstanceMemory.load(raw) for path, raw in store.named(MEMORY_KEY).items()}
        self._staleness = Staleness(stale_after_s)
        self._stale_due = asyncio.Event()
        for path, known in self._memory.items():
            if known.published_s is not None and reading.ingest.covers(path):
                reading.outputs.restore(path, known.published_s)
                self._staleness.restore(path, clock(), known.usual_s)
        self._problem_log = problem_log
        self._keep_problems = keep_problems
        self._has_problems = asyncio.Event()
        self._inference = Inference(reading.inputs, self._memory, max_batch, self._on_failure)
        self.quality = quality
        self.units = units
        self._waiting: list[Effect] = []
        self._wake = asyncio.Event()
        self._again = False
        self.bytes_kept = 0
        self.inferences = 0
        """Samples that a model gave a finite number for."""
        self.problems: Counter[str] = Counter()
        self._warned: dict[str, float] = {}
        self.sparkplug = sparkplug
        self._host = HostState(connector, participant, host, wall_clock) if host is not None else None
        self._link = Link(
            connector,
            f"{participant}-plant",
            on_message=self.on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=lambda _birth: Will(self._alive, b"false"),
        )
        self._leaves = RetainedLeaves(
            self._link,
            Inventory(store),
            self._alive,
            is_ours=self._is_ours,
            in_store=self._in_store,
            problems=self.problems,
        )

    async def run(self) -> None:
        """Read, store and infer until cancelled. Raises: BrokerRefused."""
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(self._work(), name="plant.work"),
                tasks.create_task(self._mark_stale(), name="plant.stale"),
                tasks.create_task(self._write_problems(), name="plant.problems"),
            ]
            if self._host is not None:
                beside.append(tasks.create_task(self._host.run(), name="plant.host"))
            if self.sparkplug is not None:
                beside.append(tasks.create_task(self.sparkplug.run(), name="plant.sparkplug"))
            await self._link.run()
            for task in beside:
                task.cancel()

    def data_quality(self, samples: int, matured: int, unlabelled: float) -> tuple[DataQuality, Judgement]:
        """What may be said of the data (shares and counts), and what the plant's own people are told.

        Args: unlabelled: share of the last samples whose label's window closed without one.
        """
        observed = Observed(self.counted, self.messages, self._staleness.share, unlabelled, self.units.measures)
        return self.quality.report(observed, samples, matured)

    def hold(self, held: bool) -> None:
        """The data-quality gate holds, or does no longer: inference goes on, as uncertain; said at once."""
        if held != self._inference.is_held:
            self._inference.is_held, self._again = held, True
            self._wake.set()

    @property
    def is_up(self) -> bool:
        """Whether the session is there, subscribed and announced."""
        return self._link.is_up

    @property
    def messages(self) -> int:
        """Messages that a source covers."""
        return self._contracts.ingest.messages

    @property
    def counted(self) -> Counter[str]:
        """How often each `DataProblem` happened, those that are no reason for a warning included."""
        return self._contracts.ingest.counters | self.problems  # the larger one: most of the problems stand in both

    @property
    def waiting(self) -> int:
        """Effects of messages that wait to be stored."""
        return len(self._waiting)

    @property
    def instances(self) -> int:
        """Instances that have given a sample since the start."""
        return len(self._newest)

    async def close(self) -> None:
        """Say that inference stops, then leave."""
        if self.sparkplug is not None:
            await self.sparkplug.close()
        if self._has_problems.is_set():
            await self._save_problems()
        if self._host is not None:
            await self._host.close()
        await self._link.close((self._alive, b"false", 1, True))

    def serve(self, served: Served, reading: Reading | None = None) -> None:
        """Run this model from the next batch on, and on the newest sample of each instance again.

        Args: reading: what feeds it; None: what is learnt by.
        """
        self._served = served
        self._feed(reading or self._contracts.learns)
        if self.sparkplug is not None:
            self.sparkplug.serves(served)
        self._again = True
        self._wake.set()

    def on_message(self, message: Message) -> None:
        """One message of the plant; never raises."""
        self.bytes_kept += len(message.payload)
        now_s = self._wall_clock()
        effects = self._contracts.ingest.feed(message.topic, message.payload, retain=message.retain, arrival_s=now_s)
        besides = self._contracts.besides(message, now_s)
        if besides:
            self._ask_besides(message.topic, besides)
        if not effects:
            self._problem_log.took(message.topic, message.payload, now_s)
            return
        problems = [effect for effect in effects if isinstance(effect, Problem)]
        if problems:
            self._problem_log.refused(message.topic, message.payload, problems, now_s)
            self._has_problems.set()
        else:
            self._problem_log.took(message.topic, message.payload, now_s)
        if len(self._waiting) >= MAX_WAITING:
            self._problem(Problem("overload", message.topic, f"more than {MAX_WAITING} effects wait to be stored"))
            return
        self._waiting.extend(effects)
        self._wake.set()

    def _ask_besides(self, topic: str, samples: list[SampleReady]) -> None:
        """Of a message, for a model of another contract."""
        if self._contracts.asked >= MAX_WAITING:
            self._problem(Problem("overload", topic, f"more than {MAX_WAITING} samples wait for a model"))
        else:
            self._contracts.ask(samples)
            self._wake.set()

    # Between two contracts -------------------------------------------------------------------------------------------

    def learn(self, learning: Learning) -> None:
        """From the next message on samples are of another contract; the model that runs is fed as before."""
        self._contracts.read_by(learning, len(self._waiting))
        self._wake.set()

    def _feed(self, reading: Reading) -> None:
        """Give the model that runs samples that are read this way."""
        before = self._contracts.serves
        if reading is before:
            return
        fresh = self._contracts.serve(reading)
        self._inference.inputs = reading.inputs
        if self.sparkplug is not None:
            self.sparkplug.reads(reading.outputs)
        for path in self._memory:
            if (published_s := before.outputs.published_s(path)) is not None:
                reading.outputs.restore(path, published_s)
        self._newest = {path: Input(sample, replayed=False) for path, sample in fresh.items()}
        self._renamed = self._renamed or before.outputs.output != reading.outputs.output

    async def _begin_learning(self, learning: Learning) -> None:
        self._begin = learning.begin
        await self._in_store(self._begin_in_store, "contract")
        await self._subscribe(learning.reading.ingest)
        contracts = self._contracts
        is_one = contracts.serves is contracts.learns
        contracts.learns, self.quality, self.units = learning.reading, learning.quality, learning.units
        if self._served is None and is_one:
            self._feed(learning.reading)
        learning.done()

    def _begin_in_store(self) -> None:
        """What is kept from now on is of the contract that is learnt. Raises: sqlite3.Error, StoreError, OSError."""
        if self._begin is not None:
            self._begin()
            self._begin = None

    async def _subscribe(self, ingest: Ingest) -> None:
        """Hear what another contract is read from, in the session at hand: the next one begins with it.

        Topics that are heard already are asked for again: their retained messages seed the last values.
        """
        session = self._link.session
        if session is None:
            return
        try:
            await session.subscribe(*ingest.filters)
        except SessionLost:
            pass  # the next session subscribes
        except BrokerRefused as error:
            log.error("what the new contract needs can't be heard: %s", error)  # noqa: TRY400 - for people

    # Session ---------------------------------------------------------------------------------------------------------

    async def _on_up(self, session: Session, _birth: int) -> None:
        ingests = self._contracts.ingests
        # What is heard from the first message on counts.
        requests = dict.fromkeys(request for one in ingests for request in one.reconnected(self._wall_clock()))
        await session.subscribe(*dict.fromkeys(topic for one in ingests for topic in one.filters))
        await self._leaves.begin(session)
        for request in requests:
            await self._ask(request)
        if self._host is not None:
            self._host.reads(True)
        await self._leaves.give_back(session)

    def _is_ours(self, topic: str) -> bool:
        instance = self._contracts.serves.outputs.instance_of(topic)
        return topic == self._alive or (instance is not None and self._contracts.ingest.covers(instance))

    async def _in_store(self, work: Callable[[], None], what: str, lost: int = 1) -> None:
        """Work on the store's thread; a store that fails ends no inference. Args: lost: by a failure, of `what`."""
        try:
            await on(self._executor, work)
        except (sqlite3.Error, StoreError, OSError) as error:  # a full disk ends the learning, not the inference
            self.problems["not-stored"] += lost - 1
            self._problem(Problem("not-stored", what, str(error)))

    def _on_down(self, reason: str) -> None:
        if self._host is not None:
            self._host.reads(False)
        log.info("the plant's broker is away: %s", reason)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._again or self._contracts.is_waiting:
                most = self._contracts.before_next(BATCH_EFFECTS)
                if not most:
                    await self._begin_learning(self._contracts.next())
                    continue
                batch, self._waiting = self._waiting[:most], self._waiting[most:]
                self._contracts.took(len(batch))
                await self._one_batch(batch)
                if self._renamed:
                    self._renamed = False
                    await self._leaves.clear_renamed()

    async def _one_batch(self, batch: list[Effect]) -> None:
        for effect in batch:
            if isinstance(effect, Problem):
                self._problem(effect)
            elif isinstance(effect, RebirthRequest):
                await self._ask(effect)
        samples = [effect for effect in batch if isinstance(effect, SampleReady)]
        self._count(samples)
        fresh = [self._take(sample) for sample in self._contracts.to_serve(samples, BATCH_EFFECTS)]
        self.quality.add_labels(sum(isinstance(effect, LabelSet) for effect in batch))
        taken = list(fresh)
        if self._again:
            self._again = False
            known = {id(one.sample) for one in fresh}
            taken += [one for one in self._newest.values() if id(one.sample) not in known]
        served = self._served
        predictions = self._inference.run(taken, served) if served is not None and taken else []
        leaves = self._contracts.serves.outputs.messages(predictions)
        if self.sparkplug is not None:
            self.sparkplug.predicted(predictions)
        stored = [
            StoredPrediction(p.instance, p.key, p.time_s, p.version, p.value)
            for p in predictions[: len(fresh)]  # of the others the model may have learnt the label
            if math.isfinite(p.value)
        ]
        self.inferences += sum(math.isfinite(p.value) for p in predictions)
        kept = self._remembered({one.sample.instance for one in taken})

        def store() -> None:
            self._begin_in_store()
            self._store.add(batch, stored, kept)

        await self._in_store(store, "samples", len(batch))
        self._on_stored()
        await self._leaves.publish(leaves)

    def _take(self, sample: SampleReady) -> Input:
        """Remember what a sample's time and its arrival tell."""
        memory = self._memory.setdefault(sample.instance, InstanceMemory())
        memory.lag, replayed = follow(memory.lag, sample.time_s, sample.arrival_s, self._replayed_after_s)
        if self._staleness.heard(sample.instance, self._clock()):
            self._stale_due.set()
        taken, known = Input(sample, replayed), self._newest.get(sample.instance)
        if known is None or sample.time_s >= known.sample.time_s:
            self._newest[sample.instance] = taken
        return taken

    def _count(self, samples: list[SampleReady]) -> None:
        """What a batch's numbers look like."""
        if samples:
            rows = [sample.new_rows for sample in samples]
            self.quality.add_samples((s.instance, r, s.time_s) for s, r in zip(samples, rows, strict=True))
            self.units.add(np.concatenate(rows))

    def _remembered(self, instances: set[str]) -> dict[str, bytes]:
        """What the store keeps of these instances, by name."""
        found = {}
        for instance in instances:
            memory = self._memory[instance]
            memory.published_s = self._contracts.serves.outputs.published_s(instance)
            memory.usual_s = self._staleness.usual_s(instance)
            found[f"{MEMORY_KEY}{instance}"] = memory.dump()
        return found

    async def _mark_stale(self) -> None:
        """Say of each instance once that its inputs have stopped."""
        while True:
            due = self._staleness.due_s
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._stale_due.wait()
            except TimeoutError:
                await self._say_stale(self._staleness.newly(self._clock()))
            self._stale_due.clear()

    async def _write_problems(self) -> None:
        """Keep the first problem at once, and what follows by and by."""
        while True:
            await self._has_problems.wait()
            await self._save_problems()
            await asyncio.sleep(PROBLEMS_EVERY_S)

    async def _save_problems(self) -> None:
        self._has_problems.clear()
        raw = self._problem_log.dump()
        await self._in_store(lambda: self._keep_problems(raw), "problems")

    async def _say_stale(self, instances: list[str]) -> None:
        leaves = [leaf for instance in instances for leaf in self._contracts.serves.outputs.stale(instance)]
        if self.sparkplug is not None:
            for instance in instances:
                self.sparkplug.stale(instance)
        kept = self._remembered(set(instances))
        await self._in_store(lambda: self._store.put_all(kept), "instances")
        await self._leaves.publish(leaves)
        self._on_stored()

    async def _ask(self, request: RebirthRequest) -> None:
        try:
            await self._link.publish(request.topic, request.payload, qos=0)
        except SessionLost:
            pass  # the next session asks again
        except PublishRefused as error:
            self._problem(Problem("rebirth-not-sent", request.topic, str(error)))

    def _on_failure(self, error: str) -> None:
        self._problem(Problem("inference-failed", "model", error))

    def _problem(self, problem: Problem) -> None:
        self.problems[problem.code] += 1
        now = time.monotonic()
        is_told_once = problem.code == DataProblem.UNIT_MISMATCH
        if is_told_once or now - self._warned.get(problem.code, float("-inf")) >= WARN_EVERY_S:
            self._warned[problem.code] = now
            log.warning(
                "%s on %s: %s (%d so far)", problem.code, problem.topic, problem.detail, self.problems[problem.code]
            )
