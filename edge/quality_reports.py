"""What is said of the data's quality: to the federation, to the plant's own people, and to the gate that holds."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Executor

from broker_bridge.threads import on
from edge.federation import Federation
from edge.participation import Counts, Participation
from edge.plant import Plant
from edge.store import SampleStore
from edge.unit_watch import UnitWatch
from edge.workshop import Workshop
from uns_topics.codes import Reason
from uns_topics.contract import Contract
from uns_topics.reference import Reference
from uns_topics.reports import DataQuality
from uns_topics.topics import Kind

log = logging.getLogger("headgate.edge")

QUALITY_KEY = "data-quality"
QUALITY_KEPT_EVERY_S = 5.0
"""Figures of the data quality are written to disk at most this often; a changed verdict at once."""
MIN_JUDGED = 100
"""Samples below which shares say nothing about the data's quality."""


class QualityReports:
    """The reports of one participant.

    Args: store, store_thread: keep the figures over a restart. contract: by which the plant is read at the moment.
    Attributes: reference: all plants' quantiles, which the plan's contract is compared with.
    """

    def __init__(
        self,
        participant: str,
        core: Participation,
        workshop: Workshop,
        federation: Federation,
        store: SampleStore,
        store_thread: Executor,
        *,
        contract: Callable[[], Contract | None],
    ) -> None:
        self._participant = participant
        self._core = core
        self._workshop = workshop
        self._federation = federation
        self._store = store
        self._store_thread = store_thread
        self._contract = contract
        self.reference: Reference | None = None
        self._compared: Reference | None = None
        self._said: DataQuality | None = None
        self._kept_at_s = float("-inf")

    def forget(self) -> None:
        """Another contract is learnt by, of whose data nothing was said."""
        self._said, self._compared = None, None

    async def judge(self, plant: Plant, counts: Counts) -> Reason | None:
        """Publish the data quality when its verdict changes or a good part more was seen; the gate's word."""
        if counts.samples < MIN_JUDGED:
            return None
        await self._compare_units(plant.units)
        contract = self._contract()
        labelled = contract is not None and contract.label.kind == "classes"
        unlabelled = await on(self._store_thread, self._store.unlabelled) if labelled else 0.0
        report, judged = plant.data_quality(counts.samples, counts.matured, unlabelled)
        said, now = self._said, time.monotonic()
        is_new = said is None or _gist(said) != _gist(report)
        if is_new or now >= self._kept_at_s + QUALITY_KEPT_EVERY_S:
            self._kept_at_s = now
            await self._keep(plant.quality.dump())
        if is_new and (said is not None or report.verdict != "pass"):
            log.log(
                logging.WARNING if report.verdict == "hold" else logging.INFO,
                "data quality: %s%s", report.verdict, "".join(f"; {reason}" for reason in judged.reasons),
            )  # fmt: skip
        if said is None or is_new or report.samples >= 1.2 * said.samples:
            self._said = report
            if self._is_of_plan:  # to others, another contract's features are names that nobody declared
                await self._federation.say(Kind.DATA_QUALITY, report)
        plant.hold(report.verdict == "hold")
        return Reason.DATA_QUALITY if report.verdict == "hold" else None

    async def _keep(self, kept: bytes) -> None:
        try:
            await on(self._store_thread, lambda: self._store.put(QUALITY_KEY, kept))
        except sqlite3.Error as error:  # a full disk must not keep the gate from holding
            log.error("the data quality can't be kept on disk: %s", error)  # noqa: TRY400 - a sentence for people

    @property
    def _is_of_plan(self) -> bool:
        plan, contract = self._core.plan, self._contract()
        return plan is None or (contract is not None and plan.contract_hash == contract.meaning_sha256)

    async def _compare_units(self, watch: UnitWatch) -> None:
        """Let the plan's reference decide which units look wrong."""
        reference, plan = self.reference, self._core.plan
        if plan is None or not self._is_of_plan or (reference is not None and reference.generation != plan.generation):
            reference = None
        if reference is not self._compared:
            self._compared = reference
            told = None
            if plan is not None and reference is not None and self._participant in reference.participants:
                told = await self._workshop.told(plan)
            watch.compare(reference, told)


def _gist(report: DataQuality) -> object:
    """What is worth saying anew: the verdict, and what it is about; figures alone change with every sample."""
    return report.verdict, frozenset((found.check, found.feature, found.verdict) for found in report.findings)
