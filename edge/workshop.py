"""The heavy work of an edge, off the event loop: checks, snapshots, training, evaluation.

Store access happens on the store's single thread, model runs on a second one, training in a process of its own. One
snapshot is frozen when a round opens: its training part is trained on, its other parts are scored.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from broker_bridge.threads import on
from edge.dataset import Part
from edge.decisions import Decisions, Samples
from edge.model_check import check_in_child
from edge.models import Model, ModelRefused, ModelStore, open_version
from edge.own_models import OwnModels
from edge.review import Review, contenders, review
from edge.rules import Probation
from edge.scoring import Snapshot
from edge.statistics import said, say, statistics_of
from edge.store import SampleStore
from edge.succession import is_trained, look, why_not_yet
from edge.swaps import Swaps
from edge.trainer_client import TrainerError, TrainerProcess
from edge.trainer_desk import TrainerDesk
from edge.updates import TrainedUpdate, Updates
from edge.variants import Served
from uns_topics.codes import Reason
from uns_topics.contract import Contract
from uns_topics.controls import split_full
from uns_topics.encodings import EncodingError
from uns_topics.plan import Plan
from uns_topics.presence import Variant
from uns_topics.reports import Evaluation, ModelName, PartScores, Statistics
from uns_topics.rounds import RoundAnnouncement, VersionManifest
from uns_topics.steps import take_step
from uns_topics.template import Template, TemplateError, read_template

log = logging.getLogger("headgate.edge")


CATCH_UP_ROUNDS = 20
"""Of the local-only model before a review of a version that isn't the last: a late joiner must not wait for it."""


class ModelGone(Exception):
    """A version was asked for that newer ones have replaced."""


class Workshop:
    """What one participant's federation shell has done for it.

    Args:
        store, store_thread: samples, and the single thread they are used from.
        models: versions and skeletons on disk.
        trainer: None where training is switched off or not installed.
        folder: for the dataset file that the trainer reads.
        variants: what may run on the tags besides the global model.
        decisions: what each model needs before it runs; by default no alarms.
    """

    def __init__(
        self,
        participant: str,
        store: SampleStore,
        store_thread: Executor,
        models: ModelStore,
        trainer: TrainerProcess | None,
        folder: Path,
        *,
        variants: Collection[Variant] = tuple(Variant),
        decisions: Decisions | None = None,
    ) -> None:
        self._store = store
        self._store_thread = store_thread
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self.updates = Updates(participant, store, store_thread, self._scoring)
        self.decisions = decisions or Decisions(None, Probation(), None, store, folder)
        self.swaps = Swaps(variants, self.decisions, models, store, store_thread, self._scoring)
        self._models = models
        self._desk = TrainerDesk(trainer, self._scoring, folder) if trainer is not None else None
        self._plan: Plan | None = None
        self._template: Template | None = None
        self._open: dict[tuple[int, str], Model] = {}
        """By number and hash of the vector: a number alone may be claimed twice, and a vector come with another c."""
        self._fitted: dict[tuple[int, str], Model] = {}
        """The same with this plant's own tensors in them: what runs here."""
        self._snapshot: Snapshot | None = None
        self._snapshot_of: object = None
        self._class_weights: tuple[float, ...] = ()
        self._own: OwnModels | None = None
        """Of the template at hand."""
        self.can_evaluate = True
        """Whether labels come here, or the contract needs none."""

    async def close(self) -> None:
        """End the trainer and the scoring thread."""
        if self._desk is not None:
            await self._desk.close()
        self._scoring.shutdown(wait=True, cancel_futures=True)

    # Templates and versions ------------------------------------------------------------------------------------------

    def follow(self, plan: Plan) -> bool:
        """Work by this plan; says whether its template was checked before and lies on disk unchanged."""
        if self._plan is None or self._plan.generation != plan.generation:
            self._class_weights = ()
            self._snapshot = self._snapshot_of = None
        self._plan = plan
        self.updates.follow(plan)
        if self._template is not None and self._template.sha256 == plan.template.sha256:
            return True
        if plan.template.sha256 not in self._models.skeletons():
            return False
        try:
            template = self._models.template(plan.template.sha256)
        except ModelRefused as error:
            log.warning("%s; it is fetched again", error)
            return False
        self._use(template)
        return True

    async def check_template(self, plan: Plan, skeleton: bytes) -> str | None:
        """Check a fetched skeleton; returns why it was refused, or None."""
        try:
            template = read_template(skeleton)
        except TemplateError as error:
            return str(error)
        if template.sha256 != plan.template.sha256:
            return "its bytes are not the plan's"
        if template.table != plan.template.table or template.info.network != plan.template.network:
            return "its tensor table is not the plan's"
        if template.contract.meaning_sha256 != plan.contract_hash:
            return "it was made for another contract"
        problem = await check_in_child(skeleton)
        if problem is not None:
            return problem
        try:
            await on(self._scoring, lambda: self._models.save_template(template))
        except OSError as error:
            log.error("the template can't be kept on disk, so a restart will fetch it again: %s", error)  # noqa: TRY400
        self._use(template)
        return None

    def _use(self, template: Template) -> None:
        if self._template is None or self._template.sha256 != template.sha256:
            self._open, self._fitted = {}, {}
            self._own = OwnModels(template, self._desk, self._store, self._store_thread, self._scoring)
        self._template = template

    async def verify(
        self, manifest: VersionManifest, content: bytes, parent: VersionManifest | None = None
    ) -> str | None:
        """Build and prove a version; returns why it was refused, or None.

        Args: content: its vector, or the step from `parent`.
        """
        template, own, plan = self._template, self._own, self._plan
        if template is None or own is None or plan is None:
            return "its template is not here"
        try:
            start = self.model(parent).vector if parent is not None else None
        except ModelGone as error:
            return str(error)

        def work() -> tuple[Model, Model]:
            try:
                if start is None:
                    vector, control = split_full(content, template.table, control=plan.control)
                else:
                    vector, control = take_step(start, content, template.table, control=plan.control)
            except ValueError as error:
                raise ModelRefused(str(error)) from error
            model = open_version(template, vector, manifest, control)
            return model, own.fit(model)

        try:
            tensors = own.tensors
            model, fitted = await on(self._scoring, work)
            while own.tensors is not tensors:  # a training came back meanwhile
                tensors = own.tensors
                fitted = await on(self._scoring, functools.partial(own.fit, model))
        except ModelRefused as error:
            return str(error)
        key = (manifest.version, manifest.sha256)
        self._open[key], self._fitted[key] = model, fitted
        return None

    async def _fit_again(self) -> None:
        """This plant's own tensors have changed."""
        own, opened = self._own, dict(self._open)
        if own is not None:
            fitted = await on(self._scoring, lambda: {key: own.fit(model) for key, model in opened.items()})
            self._fitted.update({key: model for key, model in fitted.items() if key in self._open})

    async def keep(self, manifest: VersionManifest, held: Mapping[int, VersionManifest]) -> None:
        """Keep a verified version on disk, and of all others only those that are held."""
        model = self.model(manifest)
        kept = {(known.version, known.sha256) for known in (manifest, *held.values())}
        self._open = {key: known for key, known in self._open.items() if key in kept}
        self._fitted = {key: known for key, known in self._fitted.items() if key in kept}
        try:
            await on(
                self._scoring,
                lambda: self._models.save(
                    manifest, model.vector, model.template.sha256, frozenset(held), model.control
                ),
            )
        except OSError as error:
            log.error("version %d can't be kept on disk: %s", manifest.version, error)  # noqa: TRY400

    def model(self, manifest: VersionManifest) -> Model:
        """A verified version, to the bit. Raises: ModelGone."""
        return self._model(manifest.version, manifest.sha256)

    def fitted(self, manifest: VersionManifest) -> Model:
        """A verified version with this plant's own tensors in it: what runs and is scored here. Raises: ModelGone."""
        self.model(manifest)
        return self._fitted[manifest.version, manifest.sha256]

    def _as_served(self, manifest: VersionManifest) -> Served:
        return Served(self.fitted(manifest), manifest.version, Variant.GLOBAL)

    def _model(self, version: int, sha256: str) -> Model:
        try:
            return self._open[version, sha256]
        except KeyError:
            raise ModelGone(f"version {version} is no longer here: a newer one took its place") from None

    async def enter(self, manifest: VersionManifest) -> Served | None:
        """There is a new current version: make it ready to run.

        Returns: what runs until it was reviewed; None: a newer version came meanwhile. Raises: ModelGone.
        """
        return await self.swaps.enter(self._as_served(manifest), self._snapshot)

    def is_succession(self, manifest: VersionManifest) -> bool:
        """Whether a version would take the place of one of another template. Raises: ModelGone."""
        running = self.swaps.serving.served
        return running is not None and running.model.template.sha256 != self.model(manifest).template.sha256

    async def why_not_yet(self, manifest: VersionManifest) -> str | None:
        """Why a current version may not take the place of what runs; None where it may, or nothing else runs.

        Within a template any version may. Raises: ModelGone, StoreError.
        """
        if not self.is_succession(manifest):
            return None
        if not is_trained(manifest.lineage):
            return "no round of its generation has made a version yet"
        if not self.can_evaluate:
            return None
        model, weights = self.fitted(manifest), self._class_weights
        contract = model.template.contract
        snapshot = await on(self._store_thread, lambda: self._take(contract))
        return why_not_yet(await on(self._scoring, lambda: look(model, snapshot, weights)))

    async def mark_served(self, manifest: VersionManifest) -> None:
        """Remember that this version serves: it is what a restart serves until the federation says more."""
        try:
            await on(self._scoring, lambda: self._models.mark_served(manifest.version))
        except OSError as error:
            log.error("that version %d serves can't be kept on disk: %s", manifest.version, error)  # noqa: TRY400

    def restore(self) -> tuple[VersionManifest, Served] | None:
        """What ran last and is still good on disk, proven again; what is not good is said.

        Returns: the manifest of its global version, and what runs.
        """
        for version in self._models.served():
            try:
                manifest, vector, template_sha256 = self._models.load(version)
                control = self._models.control(manifest)
                model = open_version(self._models.template(template_sha256), vector, manifest, control)
            except ModelRefused as error:
                log.warning("%s", error)
                continue
            self._use(model.template)
            assert self._own is not None
            fitted = self._own.fit(model)
            key = (manifest.version, manifest.sha256)
            self._open[key], self._fitted[key] = model, fitted
            return manifest, self.swaps.restore(Served(fitted, version, Variant.LAST_GOOD))
        return None

    # Samples ---------------------------------------------------------------------------------------------------------

    async def _freeze(self, mark: object) -> Snapshot:
        """The snapshot of this round; taken once."""
        if self._snapshot is None or self._snapshot_of != mark:
            contract = self._contract()
            snapshot = await on(self._store_thread, lambda: self._take(contract))
            weights = await on(self._scoring, snapshot.class_weights)
            self._snapshot, self._snapshot_of = snapshot, mark
            self._class_weights = self._class_weights or weights
        return self._snapshot

    def _take(self, contract: Contract) -> Snapshot:
        dataset = self._store.dataset(contract)
        return Snapshot(dataset, contract, self._store.matured_at_dataset, self._store.instances())

    def _contract(self) -> Contract:
        if self._plan is None:
            raise RuntimeError("no plan is known yet")
        return self._plan.contract

    async def statistics(self, generation: int) -> Statistics | None:
        """This generation's statistics of the training part."""
        snapshot = await self._freeze(("statistics", generation))
        plan = self._plan
        assert plan is not None  # the snapshot is of its contract
        fresh = await on(self._scoring, lambda: statistics_of(snapshot, generation, plan.chunk_bytes))
        return await on(self._store_thread, lambda: say(self._store, plan.template.sha256, fresh))

    async def told(self, plan: Plan) -> Statistics | None:
        """The statistics that this plant published for a plan."""
        return await on(self._store_thread, lambda: said(self._store, plan.template.sha256, plan.generation))

    # Training --------------------------------------------------------------------------------------------------------

    async def trainer_reason(self) -> Reason | None:
        """Why training is not possible now; None where it is. Starts the trainer where it isn't running."""
        if self._desk is None:
            return Reason.NO_TRAINER
        problem = await self._desk.reason(corrects=self._plan is not None and self._plan.control)
        if problem is None:
            return None
        log.warning("the trainer can't be used: %s", problem[1])
        return problem[0]

    async def train(self, announcement: RoundAnnouncement) -> TrainedUpdate | Reason:
        """Train from the round's base on a fresh snapshot; the update, or why there is none."""
        assert self._desk is not None
        started = time.monotonic()
        client, model = announcement.client, self._model(announcement.base, announcement.base_sha256)
        own = self._own
        assert own is not None  # it came with the template
        base = own.start(model.vector)
        self._class_weights = client.class_weights
        snapshot = await self._freeze(announcement.round_number)
        controls = await self.updates.controls(model, announcement.base)
        try:
            async with self._desk.using(model.template, snapshot.dataset) as trainer:
                trained = await trainer.train(
                    base,
                    client.training,
                    class_weights=client.class_weights,
                    seed=announcement.seed,
                    correction=controls.correction if controls is not None else None,
                )
            await own.take(trained, base)
        except TrainerError as error:
            log.warning("round %d is skipped: %s", announcement.round_number, error)
            return error.reason
        await self._fit_again()
        try:
            return await self.updates.pack(announcement, model, trained, controls, started, snapshot.matured)
        except EncodingError as error:  # a delta that the encoding can't carry
            log.warning("round %d is skipped: %s", announcement.round_number, error)
            return Reason.TRAINING_DIVERGED

    async def train_local(self, announcement: RoundAnnouncement) -> None:
        """The same steps again on a second model of this plant alone: what federation has to beat."""
        snapshot = await self._freeze(announcement.round_number)
        if self._own is not None:
            await self._own.keep_up(
                snapshot, announcement.round_number, announcement.client.training, announcement.seed
            )

    # Evaluation ------------------------------------------------------------------------------------------------------

    async def compare(self, candidate: VersionManifest, current: VersionManifest | None) -> Evaluation:
        """Candidate and current on the select part of the round's snapshot: what decides on promotion."""
        chosen: dict[ModelName, Model] = {"candidate": self.fitted(candidate)}  # now: they may be replaced meanwhile
        if current is not None:
            chosen["current"] = self.fitted(current)
        snapshot = await self._freeze(candidate.lineage.round_number)
        weights = self._class_weights

        def work() -> PartScores:
            return snapshot.score(Part.SELECT, snapshot.predict(Part.SELECT, chosen), weights, capped=True)

        return Evaluation(
            generation=candidate.generation,
            candidate=candidate.version,
            current=current.version if current is not None else None,
            metric=snapshot.contract.metric,
            select=await on(self._scoring, work),
        )

    async def review(self, manifest: VersionManifest, *, final: bool) -> Review:
        """A current version beside this plant's own models and the baselines: what is published, and what is to run."""
        snapshot, own = self._snapshot, self._own
        if (manifest.version, manifest.sha256) not in self._open:
            return Review(None, None)
        current = self._as_served(manifest)
        waits = self.is_succession(manifest)  # then it is only told what the new one is worth
        if snapshot is None or own is None:
            return Review(None, None if waits else await self.swaps.settle_unjudged(current))
        plan, weights = self._plan, self._class_weights
        if plan is not None and manifest.lineage.round_number is not None:
            most = None if final else CATCH_UP_ROUNDS
            await own.keep_up(snapshot, manifest.lineage.round_number, plan.training, manifest.version, most=most)
            if final:
                await own.tune(snapshot, manifest, current.model, plan.training, weights)

        def work() -> tuple[Evaluation, Served]:
            personal = own.personalised(snapshot, current.model, weights)
            last_good = None if waits else self.swaps.serving.last_good
            could = contenders(current, own.local_only, personal, last_good)
            samples = Samples.of(snapshot)
            return review(
                snapshot,
                manifest,
                could,
                self.swaps.serving,
                weights,
                final=final,
                admit=lambda chosen: chosen if waits else self.swaps.admit(chosen, samples),
            )

        evaluation, choice = await on(self._scoring, work)
        if waits:
            return Review(evaluation.model_copy(update={"serves": None}), None)
        return Review(evaluation, await self.swaps.settle(current, choice))
