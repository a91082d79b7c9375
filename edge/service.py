"""The edge service: composition of plant, federation, workshop and store, from configuration to exit code."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.groups import first_of
from broker_bridge.health import Health
from broker_bridge.metrics import Sheet, service_registry
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerMisconfigured, BrokerRefused, Connector
from broker_bridge.settings import ConfigError, read_yaml, validate
from broker_bridge.threads import on
from edge.binding import BoundMap, MapError, bind
from edge.config import EdgeConfig
from edge.coverage import bind_what_fits, missing_features, why_not_covered
from edge.decisions import Decisions
from edge.federation import Federation
from edge.figures import EdgeFigures, PlantFigures, SparkplugFigures, edge_sheet
from edge.handover import Learning
from edge.known_contract import CONTRACT_KEY, known_contract
from edge.models import ModelStore
from edge.participation import Counts, Participation
from edge.plant import Plant
from edge.problem_file import known_problems, write_problems
from edge.quality import QualityCounters
from edge.quality_reports import QUALITY_KEY, QualityReports
from edge.reading import Reading, Readings
from edge.rules import rule_problem
from edge.signal_map import SignalMap
from edge.sparkplug_session import make_session, refuse_own_node
from edge.store import SampleStore
from edge.store_file import StoreError
from edge.trainer_client import make_trainer
from edge.unit_watch import UnitWatch
from edge.variants import Served
from edge.workshop import Workshop
from uns_topics.codes import Reason
from uns_topics.contract import Contract
from uns_topics.meaning import changes
from uns_topics.plan import Plan
from uns_topics.presence import Variant
from uns_topics.reference import Reference

log = logging.getLogger("headgate.edge")

EXIT_OK, EXIT_CONFIGURATION, EXIT_BROKER = 0, 2, 4
TRAINER_AGAIN_S = 30.0
"""A trainer that failed is tried again after this."""
DECIDE_EVERY_S = 1.0
COUNT_EVERY_S = 0.5
"""The store is counted at most this often while samples pour in."""


async def run_edge(config: EdgeConfig, stop: asyncio.Event) -> int:
    """Run one participant until stopped; returns the exit code. Raises: ConfigError."""
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # samples, labels and serial numbers
        service = _Edge(config)
    except (OSError, StoreError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for people, no stack trace
        return EXIT_CONFIGURATION
    try:
        return await service.run(stop)
    except (MapError, ConfigError) as error:
        log.error("%s", error)  # noqa: TRY400
        return EXIT_CONFIGURATION
    except BaseExceptionGroup as group:
        refused, others = group.split((BrokerRefused, BrokerMisconfigured))
        if refused is None or others is not None:
            raise
        first = first_of(refused)
        log.error("%s", first)  # noqa: TRY400
        return EXIT_CONFIGURATION if isinstance(first, BrokerMisconfigured) else EXIT_BROKER
    finally:
        await service.close()


class _Edge:
    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self._signal_map = validate(SignalMap, read_yaml(config.signal_map), str(config.signal_map))
        refuse_own_node(config, self._signal_map)
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._store = SampleStore(config.data_dir / "samples.sqlite", max_samples=config.max_samples)
        self._contract = known_contract(config, self._store)
        approved = self._contract.meaning_sha256 if config.approve == "contract" and self._contract else None
        self._core = Participation(
            config.participant,
            config.federation,
            approved=approved,
            covers=self._why_not_covered,
            missing=lambda contract: missing_features(self._signal_map, contract),
        )
        self._readings = Readings(
            self._signal_map, lambda contract: config.inference.outputs(config.federation, contract)
        )
        self._workshop = Workshop(
            config.participant,
            self._store,
            self._store_thread,
            ModelStore(config.data_dir / "models"),
            make_trainer(config.trainer),
            config.data_dir,
            variants=config.inference.variants,
            decisions=Decisions(
                config.inference.alarm,
                config.inference.probation,
                config.inference.max_rate_change,
                self._store,
                config.data_dir,
            ),
        )
        fl: Connector = AiomqttConnector(config.broker)
        self._federation = Federation(
            fl,
            config.federation,
            self._core,
            self._workshop,
            participant=config.participant,
            boot=secrets.token_hex(4),
            chunk_bytes=config.chunk_bytes,
            serve=self._serve,
            on_plan=self._on_plan,
            on_reference=self._on_reference,
            traffic=self._traffic,
            rng=random.Random(),  # noqa: S311 - jitter, not a secret
        )
        self._plant: Plant | None = None
        self._contract_known = asyncio.Event()
        self._stored = asyncio.Event()
        self._served: Served | None = None
        self._told_of = 0
        """The generation whose changes were told."""
        self._decided_at = -1
        """Samples that had matured when a model on probation was looked at last; -1: none is."""
        self._quality = QualityReports(
            config.participant,
            self._core,
            self._workshop,
            self._federation,
            self._store,
            self._store_thread,
            contract=lambda: self._contract,
        )
        self._health = Health(config.health, service_registry(self._sheet))
        self._health.condition("federation", self._why_no_federation)
        self._health.condition("plant", self._why_no_plant)
        self._health.note("generation", self._why_behind)
        if config.inference.sparkplug is not None:
            self._health.condition("sparkplug", self._why_no_sparkplug)

    def _why_not_covered(self, contract: Contract) -> str | None:
        return why_not_covered(self._signal_map, contract) or self._rule_problem(contract)

    def _bind(self, contract: Contract) -> BoundMap:
        """A map may feed more than a plan's contract; against the site's own file it is checked strictly.

        Raises: MapError.
        """
        is_own = self._config.contract is not None and self._config.approve == "contract"
        return (bind if is_own else bind_what_fits)(self._signal_map, contract)

    def _rule_problem(self, contract: Contract) -> str | None:
        rule = self._config.inference.alarm
        problem = rule_problem(rule, contract) if rule is not None else None
        return f"inference.alarm: {problem}" if problem is not None else None

    async def run(self, stop: asyncio.Event) -> int:
        """Until stopped. Raises: MapError, ConfigError; BrokerRefused and BrokerMisconfigured, in a group."""
        async with self._health.serving():
            return await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> int:
        if self._contract is not None:
            self._bind(self._contract)  # a map that doesn't fit ends the service before it connects
            if (problem := self._rule_problem(self._contract)) is not None:
                raise ConfigError(problem)
            self._contract_known.set()
        restored = await asyncio.to_thread(self._workshop.restore)
        if restored is not None:
            manifest, self._served = restored
            self._core.restored = manifest
            self._core.on_swapped(manifest.version, self._served.variant)
            log.info("version %d from disk serves until the federation says more", manifest.version)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._federation.run(), name="federation"),
                tasks.create_task(self._run_plant(), name="plant"),
                tasks.create_task(self._count_loop(), name="counts"),
                tasks.create_task(self._decide_loop(), name="decisions"),
            ]
            self._health.watch(*running)
            running.append(tasks.create_task(self._start_trainer(), name="trainer"))  # without torch it ends at once
            await stop.wait()
            self._health.stopping()
            await self._federation.close()
            if self._plant is not None:
                await self._plant.close()
            for task in running:
                task.cancel()
        return EXIT_OK

    async def close(self) -> None:
        """Free what outlives the tasks."""
        await self._workshop.close()
        self._store_thread.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    async def _run_plant(self) -> None:
        await self._contract_known.wait()
        config, contract = self._config, self._contract
        assert contract is not None
        reading = self._read_by(contract)
        aside = await on(self._store_thread, lambda: self._store.use(contract))
        if aside is not None:
            log.warning("samples of another contract were set aside as %s", aside)
        connector = PahoConnector(config.plant_broker or config.broker)
        self._plant = Plant(
            connector,
            config.participant,
            config.federation,
            reading,
            self._store,
            self._store_thread,
            home=config.inference.home_of(self._signal_map.instance_prefixes()),
            max_batch=config.inference.max_batch,
            quality=QualityCounters(contract, self._store.get(QUALITY_KEY)),
            units=UnitWatch(contract),
            problem_log=known_problems(config.data_dir),
            keep_problems=partial(write_problems, config.data_dir),
            on_stored=self._stored.set,
            host=self._signal_map.sparkplug.host if self._signal_map.sparkplug is not None else None,
            sparkplug=make_session(config, reading.outputs, connector, self._store, self._store_thread),
            stale_after_s=config.inference.stale_after_s,
            replayed_after_s=config.inference.replayed_after_s,
        )
        if self._served is not None:
            self._feed(self._plant, self._served)
        if self._contract is not contract:  # a plan came meanwhile
            self._learn(self._plant)
        self._stored.set()
        await self._plant.run()

    def _read_by(self, contract: Contract) -> Reading:
        """Read by another contract from now on. Raises: MapError."""
        bound = self._bind(contract)
        self._workshop.can_evaluate = bound.is_labelled or contract.label.kind == "none"
        if not self._workshop.can_evaluate:
            log.warning("%s has no source of labels: this participant can't train", self._config.signal_map)
        return self._readings.to_learn(contract, bound)

    def _learn(self, plant: Plant) -> None:
        """Build samples of the contract that a plan brought; the model that runs is fed as before."""
        contract = self._contract
        assert contract is not None
        reading, aside = self._read_by(contract), list[Path | None]()

        def done() -> None:
            self._quality.forget()
            if aside and aside[0] is not None:
                log.warning("samples of the former contract were set aside as %s", aside[0])
            self._stored.set()

        plant.learn(
            Learning(
                reading,
                QualityCounters(contract),
                UnitWatch(contract),
                begin=lambda: aside.append(self._store.use(contract)),
                done=done,
            )
        )

    async def _start_trainer(self) -> None:
        """Start it, and again where it ended: what it lacked may have come back. Without torch it never will."""
        while (reason := await self._workshop.trainer_reason()) is not Reason.NO_TRAINER:
            self._federation.do(self._core.on_trainer(reason))
            await asyncio.sleep(TRAINER_AGAIN_S)

    async def _count_loop(self) -> None:
        """Tell the core what the store holds, not more often than it matters."""
        while True:
            await self._stored.wait()
            self._stored.clear()
            contract = self._contract
            if contract is not None:
                try:
                    await self._count(contract)
                except (sqlite3.Error, StoreError) as error:
                    log.error("the samples can't be counted: %s", error)  # noqa: TRY400 - a sentence for people
            await asyncio.sleep(COUNT_EVERY_S)

    async def _count(self, contract: Contract) -> None:
        counts = await on(self._store_thread, lambda: self._store.counts() if self._store.is_of(contract) else None)
        if counts is None:
            return  # between two contracts
        trainable = int(counts.matured * contract.split.train)
        known = Counts(counts.samples, counts.matured, counts.new, trainable)
        reason = await self._judge(known)
        if contract is self._contract:
            self._federation.do(self._core.on_counts(known, reason))
            self._federation.look_again(known.matured)

    async def _decide_loop(self) -> None:
        """Whether a probation has ended, and whether a person has released a held swap."""
        while True:
            await asyncio.sleep(DECIDE_EVERY_S)
            await self._federation.survive("Decide", self._decide)

    async def _decide(self) -> None:
        matured, looked_at = self._core.counts.matured, self._decided_at
        changed = await self._workshop.swaps.release()
        if changed is None and self._workshop.swaps.is_undecided:
            if matured >= looked_at + max(1, looked_at // 20):  # a long probation must not read the store for ever
                self._decided_at = matured
                changed = await self._workshop.swaps.refit()
        else:
            self._decided_at = -1
        if changed is not None:
            self._federation.run_on_tags(changed)

    async def _judge(self, counts: Counts) -> Reason | None:
        return await self._quality.judge(self._plant, counts) if self._plant is not None else None

    # Health ----------------------------------------------------------------------------------------------------------

    def _why_no_federation(self) -> str | None:
        return None if self._federation.is_up else "there is no session with the federation's broker"

    def _why_behind(self) -> str | None:
        plan, waits, served = self._core.plan, self._federation.waits, self._served
        runs = f"; version {served.version} runs on" if served is not None else ""
        if plan is not None and self._core.behind is not None:
            return f"generation {plan.generation} isn't followed: {self._core.behind}{runs}"
        if waits is not None:
            return f"version {waits.version} doesn't run yet: {self._federation.why_waits}{runs}"
        return None

    def _why_no_plant(self) -> str | None:
        if self._plant is None:
            return "no contract is known yet: the aggregator's plan brings it" if self._contract is None else "starting"
        return None if self._plant.is_up else "there is no session with the plant's broker"

    def _why_no_sparkplug(self) -> str | None:
        """A node that waits for its primary host is as it should be."""
        session = self._plant.sparkplug if self._plant is not None else None
        return (
            None if session is not None and session.is_up else "there is no Sparkplug session with the plant's broker"
        )

    def _plant_figures(self) -> PlantFigures:
        plant = self._plant
        if plant is None:
            return PlantFigures()
        session = plant.sparkplug
        sparkplug = SparkplugFigures(session.is_up, session.is_born) if session is not None else None
        return PlantFigures(plant.is_up, plant.messages, plant.inferences, plant.waiting, plant.counted, sparkplug)

    def _sheet(self) -> Sheet:
        return edge_sheet(
            EdgeFigures(
                federation=self._config.federation,
                participant=self._config.participant,
                is_up=self._federation.is_up,
                status=self._federation.status,
                matured=self._core.counts.matured,
                trainer_reason=self._core.trainer_reason,
                swap_held=self._core.swap_held,
                on_probation=self._served is not None and self._served.decision.problem is not None,
                rejected=self._federation.rejected,
                failed=self._federation.failed,
                last_update=self._federation.last_update,
                plant=self._plant_figures(),
            )
        )

    # Models ----------------------------------------------------------------------------------------------------------

    def _on_plan(self, plan: Plan) -> None:
        """With `approve: any`, a plan's contract is what the plant is read by."""
        known, contract = self._contract, plan.contract
        if known is not None and known.meaning_sha256 == contract.meaning_sha256:
            if self._config.approve == "any" and known != contract:
                self._take_words(contract)
            return
        if plan.generation != self._told_of:
            self._told_of = plan.generation
            for change in changes(known, contract) if known is not None else ():
                log.warning("generation %d changes what is learnt: %s", plan.generation, change)
        is_free = known is None or self._config.approve == "any"
        if is_free and self._why_not_covered(contract) is None:
            self._contract = contract
            self._store_thread.submit(self._keep_contract, contract)
            self._contract_known.set()
            if self._plant is not None:
                self._learn(self._plant)

    def _take_words(self, contract: Contract) -> None:
        """The same contract with other words or thresholds: what was counted stands."""
        self._contract = contract
        self._store_thread.submit(self._keep_contract, contract)
        if self._plant is not None:
            self._plant.quality = QualityCounters(contract, self._plant.quality.dump())
            self._stored.set()

    def _keep_contract(self, contract: Contract) -> None:
        """For a restart, which otherwise waits for the plan. Called on the store's thread."""
        try:
            self._store.put(CONTRACT_KEY, contract.model_dump_json().encode())
        except sqlite3.Error as error:
            log.error("the contract can't be kept on disk: %s", error)  # noqa: TRY400 - a sentence for people

    def _on_reference(self, reference: Reference | None) -> None:
        self._quality.reference = reference
        self._stored.set()  # judged by it at once, whenever the next sample comes

    def _serve(self, served: Served) -> None:
        """Run this on the tags; what runs already goes on undisturbed."""
        if self._served is not None and served.is_same(self._served):
            return
        self._served = served
        if self._plant is not None:
            self._feed(self._plant, served)
        own = "" if served.variant is Variant.GLOBAL else f" ({served.variant.value})"
        log.info("version %d serves%s", served.version, own)

    def _feed(self, plant: Plant, served: Served) -> None:
        reading = self._readings.to_serve(served.model.template.contract)
        if reading is not None:
            plant.serve(served, reading)

    def _traffic(self) -> dict[str, int]:
        plant = self._plant
        return {"bytes_kept": plant.bytes_kept, "instances": plant.instances} if plant is not None else {}
