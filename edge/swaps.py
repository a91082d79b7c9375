"""What runs on an edge's tags, and what takes its place: made ready to decide, held, reviewed, kept over a restart.

Store access happens on the store's single thread, model runs on the one that models run on.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import replace

from broker_bridge.threads import on
from edge.decisions import Decisions, Samples
from edge.models import ModelRefused, ModelStore, OwnModel, open_own
from edge.scoring import Snapshot
from edge.store import SampleStore
from edge.store_file import StoreError
from edge.variants import Served, Serving
from uns_topics.presence import Variant
from uns_topics.template import Template

log = logging.getLogger("headgate.edge")


class Swaps:
    """One edge's.

    Args:
        variants: what may run on the tags besides the global model.
        decisions: what each model needs before it runs.
        models: where what runs is marked on disk.
        store, store_thread: samples, and the single thread they are used from.
        scoring: the thread that models run on.
    """

    def __init__(
        self,
        variants: Collection[Variant],
        decisions: Decisions,
        models: ModelStore,
        store: SampleStore,
        store_thread: Executor,
        scoring: Executor,
    ) -> None:
        self.serving = Serving(variants)
        self.decisions = decisions
        self._models = models
        self._store = store
        self._store_thread = store_thread
        self._scoring = scoring

    # A new current version -------------------------------------------------------------------------------------------

    async def enter(self, current: Served, snapshot: Snapshot | None) -> Served | None:
        """There is a new current version: make it ready to run.

        Args: snapshot: of the round. Returns: what runs until it was reviewed; None: a newer version came meanwhile.
        """
        offered = self.serving.offer(current)
        if offered is current or self.decisions.held is not None:  # what runs on for want of another is no choice
            samples = await self._samples(offered, snapshot)
            offered = await on(self._scoring, lambda: self.admit(current, samples))
        entered = self.serving.enter(current, offered)
        if entered is not None:
            await self._keep_decision(entered)
        return entered

    def admit(self, served: Served, samples: Samples | None) -> Served:
        """What is to run: it, or what runs already where it is the same or the swap is held.

        Called on the thread that models run on.
        """
        running = self.serving.served
        if running is not None and running.model is served.model and running.decision.problem is None:
            self.decisions.pass_on()
            return replace(running, version=served.version, variant=served.variant)
        return self.decisions.admit(served, running, samples)

    async def settle(self, current: Served, choice: Served) -> Served | None:
        """Run what a review of the current version chose, and remember it on disk.

        Returns: what is to run; None: a newer version came meanwhile.
        """
        settled = self.serving.settle(current, choice)
        if settled is not None:
            await self._keep(settled)
        return settled

    async def settle_unjudged(self, current: Served) -> Served | None:
        """The same where there is nothing to judge by: the current version it is."""
        running, held = self.serving.served, self.decisions.held
        is_held = held is not None and held.served.version == current.version
        if running is None or (running.version != current.version and not is_held):
            samples = await self._samples(current, None)
            running = await on(self._scoring, lambda: self.admit(current, samples))
        return await self.settle(current, running)

    # What waits ------------------------------------------------------------------------------------------------------

    @property
    def is_undecided(self) -> bool:
        """Whether what runs, or what waits to run, was evaluated on too few labels."""
        held = self.decisions.held
        waits = held is not None and held.served.decision.problem is not None
        return waits or (self.serving.served is not None and self.serving.served.decision.problem is not None)

    async def refit(self) -> Served | None:
        """Look again at a model on probation, or at one that waits because it would be.

        Returns: it, where that has ended.
        """
        held = self.decisions.held
        if held is not None and held.served.decision.problem is not None:
            samples = await self._samples(held.served, None)
            ready = await on(self._scoring, lambda: self.admit(held.served, samples))
            if self.decisions.held is not None:
                return None
            return await self._let_pass(ready)
        served = self.serving.served
        if served is None or served.decision.problem is None:
            return None
        samples = await self._samples(served, None)
        ready = await on(self._scoring, lambda: self.decisions.fit(served, samples))
        if ready.decision.problem is not None or self.serving.served is not served:
            return None
        self.serving.served = ready
        await self._keep_decision(ready)
        return ready

    async def release(self) -> Served | None:
        """A person may have let a held swap pass. Returns: what runs from now on; None where nothing changes."""
        held = self.decisions.held
        if held is None or not self.decisions.is_released(held.served):
            return None
        log.info("the swap to version %d was released", held.served.version)
        self.decisions.pass_on()
        return await self._let_pass(held.served)

    async def _let_pass(self, served: Served) -> Served | None:
        entered = self.serving.release(served)
        if entered is not None:
            await self._keep(entered)
        return entered

    async def _samples(self, served: Served, snapshot: Snapshot | None) -> Samples | None:
        """What a model is decided by: the round's snapshot where its select part will do; None where none can be read.

        Args: snapshot: None: those of this moment in any case.
        """
        contract = served.model.template.contract  # the plan's may be another one by now
        if snapshot is not None and snapshot.contract.meaning_sha256 == contract.meaning_sha256:
            samples = Samples.of(snapshot)
            if await on(self._scoring, lambda: self.decisions.is_enough(samples)):
                return samples

        def read() -> Samples:
            dataset = self._store.dataset(contract)
            return Samples(dataset, contract, self._store.instances(), self._store.predicted(served.version))

        try:
            return await on(self._store_thread, read)
        except (StoreError, sqlite3.Error) as error:
            log.warning("version %d can't be evaluated: %s", served.version, error)
            return None

    # On disk ---------------------------------------------------------------------------------------------------------

    def restore(self, served: Served) -> Served:
        """What a restart runs: a version that is good on disk, or this plant's own model in its place."""
        known = self.decisions.restore(served)
        restored = self._restored_own(known.model.template, known.version) or known
        self.serving.restore(restored, known)
        return restored

    def _restored_own(self, template: Template, version: int) -> Served | None:
        """This plant's own model, where it ran when this version was current."""
        try:
            own = self._models.own()
        except ModelRefused as error:
            log.warning("%s", error)
            return None
        if own is None or (own.version, own.template_sha256) != (version, template.sha256):
            return None
        if own.variant not in self.serving.allowed:
            log.info("the %s model from disk may not run here any more", own.variant.value)
            return None
        return self.decisions.restore(Served(open_own(template, own.vector), version, own.variant))

    async def _keep(self, served: Served) -> None:
        """What runs, on disk."""
        try:
            await on(self._scoring, lambda: self._remember(served))
        except OSError as error:
            log.error("which model runs can't be kept on disk: %s", error)  # noqa: TRY400
        await self._keep_decision(served)

    def _remember(self, served: Served) -> None:
        model = served.model
        if served.variant in (Variant.PERSONALISED, Variant.LOCAL):
            own = OwnModel(served.variant, served.version, model.template.sha256, model.vector)
            self._models.save_own(own)
            return
        self._models.drop_own()
        self._models.mark_served(served.version)

    async def _keep_decision(self, served: Served) -> None:
        try:
            await on(self._store_thread, lambda: self.decisions.remember(served))
        except sqlite3.Error as error:
            log.error("what version %d decides by can't be kept on disk: %s", served.version, error)  # noqa: TRY400
