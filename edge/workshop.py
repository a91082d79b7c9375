"""The heavy work of an edge, off the event loop: checks, snapshots, training, evaluation.

Store access happens on the store's single thread, model runs on a second one, training in a process of its own. One
snapshot is frozen when a round opens: its training part is trained on, its other parts are scored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edge.baselines import constant_predictions, linear_predictions
from edge.dataset import Dataset, Part
from edge.evaluation import Predictions, score
from edge.model_check import check_in_child
from edge.models import BATCH_ROWS, Model, ModelRefused, ModelStore, open_own, open_version
from edge.outbox import Belonging, Outbox, Waiting
from edge.residual import due
from edge.store import SampleStore
from edge.trainer_client import Trained, TrainerError, TrainerProcess
from uns_topics.codes import Code, Reason
from uns_topics.contract import ClassLabel, Contract, RunToFailureLabel
from uns_topics.encodings import EncodingError, encoding
from uns_topics.plan import Plan, Training
from uns_topics.reports import Evaluation, FeatureCell, ModelName, PartScores, Statistics
from uns_topics.rounds import RoundAnnouncement, VersionManifest
from uns_topics.standardisation import Moments, cells, class_weights, context_slots, fill_standardisation
from uns_topics.steps import take_step
from uns_topics.template import Template, TemplateError, read_template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes
from uns_topics.transfers import transfer_id
from uns_topics.update import UpdateHeader, pack_groups, pack_update

log = logging.getLogger("headgate.edge")

LOCAL_KEY = "local-only"
"""Key of the local-only parameters in the store; they never leave the plant."""

Result = TypeVar("Result")


class ModelGone(Exception):
    """A version was asked for that newer ones have replaced."""


@dataclass(frozen=True)
class TrainedUpdate:
    """An update ready to be sent."""

    content: bytes = field(repr=False)
    round_number: int
    attempt: int
    base: str
    num_examples: int
    num_steps: int
    seconds: float

    @property
    def transfer(self) -> str:
        """The id of its transfer."""
        return transfer_id(self.content)


class Workshop:
    """What one participant's federation shell has done for it.

    Args:
        store, store_thread: samples, and the single thread they are used from.
        models: versions and skeletons on disk.
        trainer: None where training is switched off or not installed.
        folder: for the dataset file that the trainer reads.
    """

    def __init__(
        self,
        participant: str,
        store: SampleStore,
        store_thread: Executor,
        models: ModelStore,
        trainer: TrainerProcess | None,
        folder: Path,
    ) -> None:
        self._participant = participant
        self._store = store
        self._store_thread = store_thread
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._models = models
        self._trainer = trainer
        self._trainer_lock = asyncio.Lock()
        self._folder = folder
        self._plan: Plan | None = None
        self._template: Template | None = None
        self._open: dict[str, Model] = {}
        """By the hash of its vector: a number alone may be claimed twice."""
        self._snapshot: Dataset | None = None
        self._snapshot_of: object = None
        self._class_weights: tuple[float, ...] = ()
        self._local: Model | None = None
        self._local_steps = 0
        self._local_base: Vector | None = None
        self._baselines: dict[ModelName, npt.NDArray[np.float32]] = {}
        self._trainer_knows: tuple[str, int] | None = None

    async def close(self) -> None:
        """End the trainer and the scoring thread."""
        if self._trainer is not None:
            await self._trainer.close()
        self._scoring.shutdown(wait=True, cancel_futures=True)

    # Templates and versions ------------------------------------------------------------------------------------------

    def follow(self, plan: Plan) -> bool:
        """Work by this plan; says whether its template was checked before and lies on disk unchanged."""
        if self._plan is None or self._plan.generation != plan.generation:
            self._class_weights = ()
        self._plan = plan
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
            await self._run(self._scoring, lambda: self._models.save_template(template))
        except OSError as error:
            log.error("the template can't be kept on disk, so a restart will fetch it again: %s", error)  # noqa: TRY400
        self._use(template)
        return None

    def _use(self, template: Template) -> None:
        if self._template is None or self._template.sha256 != template.sha256:
            self._open, self._local, self._local_base, self._local_steps = {}, None, None, 0
        self._template = template

    async def verify(
        self, manifest: VersionManifest, content: bytes, parent: VersionManifest | None = None
    ) -> str | None:
        """Build and prove a version; returns why it was refused, or None.

        Args: content: its vector, or the step from `parent`.
        """
        template = self._template
        if template is None:
            return "its template is not here"
        try:
            start = self.model(parent).vector if parent is not None else None
        except ModelGone as error:
            return str(error)

        def work() -> Model:
            try:
                if start is None:
                    vector = vector_from_bytes(content, template.table.size)
                else:
                    vector = take_step(start, content, template.table)
            except ValueError as error:
                raise ModelRefused(str(error)) from error
            return open_version(template, vector, manifest)

        try:
            model = await self._run(self._scoring, work)
        except ModelRefused as error:
            return str(error)
        self._open[manifest.sha256] = model
        return None

    async def keep(self, manifest: VersionManifest, held: Mapping[int, VersionManifest]) -> None:
        """Keep a verified version on disk, and of all others only those that are held."""
        model = self.model(manifest)
        hashes = {manifest.sha256, *(known.sha256 for known in held.values())}
        self._open = {sha256: known for sha256, known in self._open.items() if sha256 in hashes}
        try:
            await self._run(
                self._scoring,
                lambda: self._models.save(manifest, model.vector, model.template.sha256, frozenset(held)),
            )
        except OSError as error:
            log.error("version %d can't be kept on disk: %s", manifest.version, error)  # noqa: TRY400

    def model(self, manifest: VersionManifest) -> Model:
        """A verified version. Raises: ModelGone."""
        return self._model(manifest.version, manifest.sha256)

    def _model(self, version: int, sha256: str) -> Model:
        try:
            return self._open[sha256]
        except KeyError:
            raise ModelGone(f"version {version} is no longer here: a newer one took its place") from None

    async def mark_served(self, manifest: VersionManifest) -> None:
        """Remember that this version serves: it is what a restart serves until the federation says more."""
        try:
            await self._run(self._scoring, lambda: self._models.mark_served(manifest.version))
        except OSError as error:
            log.error("that version %d serves can't be kept on disk: %s", manifest.version, error)  # noqa: TRY400

    def restore(self) -> tuple[VersionManifest, Model] | None:
        """The last version that served and is still good on disk, proven again; what is not good is said."""
        for version in self._models.served():
            try:
                manifest, vector, template_sha256 = self._models.load(version)
                model = open_version(self._models.template(template_sha256), vector, manifest)
            except ModelRefused as error:
                log.warning("%s", error)
                continue
            self._template = model.template
            self._open[manifest.sha256] = model
            return manifest, model
        return None

    # Samples ---------------------------------------------------------------------------------------------------------

    async def _freeze(self, mark: object) -> Dataset:
        """The snapshot of this round; taken once."""
        if self._snapshot is None or self._snapshot_of != mark:
            contract = self._contract()
            dataset = await self._run(self._store_thread, lambda: self._store.dataset(contract))
            weights = await self._run(self._scoring, lambda: _own_class_weights(dataset, contract))
            self._snapshot, self._snapshot_of, self._baselines = dataset, mark, {}
            self._class_weights = self._class_weights or weights
        return self._snapshot

    def _contract(self) -> Contract:
        if self._plan is None:
            raise RuntimeError("no plan is known yet")
        return self._plan.contract

    async def statistics(self, generation: int) -> Statistics | None:
        """This generation's statistics of the training part."""
        contract = self._contract()
        dataset = await self._freeze(("statistics", generation))

        def work() -> Statistics:
            by_slot = _cells(dataset, contract)
            return Statistics(
                generation=generation,
                rows=len(dataset.of(Part.TRAIN)),
                label_counts=_label_counts(dataset, contract),
                cells=tuple(
                    FeatureCell(slot=slot, feature=name, moments=moments)
                    for slot, features in by_slot.items()
                    for name, moments in features.items()
                ),
            )

        return await self._run(self._scoring, work)

    async def accepted(self, announcement: RoundAnnouncement) -> None:
        """The update of this round was accepted: what matured since its snapshot is new from now on."""
        await self._run(self._store_thread, lambda: self._store.mark(f"round-{announcement.round_number}"))

    # Training --------------------------------------------------------------------------------------------------------

    async def trainer_reason(self) -> Reason | None:
        """Why training is not possible now; None where it is. Starts the trainer where it isn't running."""
        if self._trainer is None:
            return Reason.NO_TRAINER
        try:
            async with self._trainer_lock:
                await self._trainer.hello()
        except TrainerError as error:
            log.warning("the trainer can't be used: %s", error)
            return error.reason
        return None

    async def train(self, announcement: RoundAnnouncement) -> TrainedUpdate | Reason:
        """Train from the round's base on a fresh snapshot; the update, or why there is none."""
        assert self._trainer is not None
        started = time.monotonic()
        client, model = announcement.client, self._model(announcement.base, announcement.base_sha256)
        template, base = model.template, model.vector
        self._class_weights = client.class_weights
        dataset = await self._freeze(announcement.round_number)
        try:
            async with self._trainer_lock:
                await self._tell_trainer(dataset, announcement.round_number)
                trained = await self._trainer.train(
                    base, client.training, class_weights=client.class_weights, seed=announcement.seed
                )
        except TrainerError as error:
            log.warning("round %d is skipped: %s", announcement.round_number, error)
            self._trainer_knows = None
            return error.reason
        try:
            return await self._pack(announcement, template, trained, started)
        except EncodingError as error:  # a delta that the encoding can't carry
            log.warning("round %d is skipped: %s", announcement.round_number, error)
            return Reason.TRAINING_DIVERGED

    async def _pack(
        self, announcement: RoundAnnouncement, template: Template, trained: Trained, started: float
    ) -> TrainedUpdate:
        """Add the residual, encode, and keep the update on disk until its receipt. Raises: EncodingError."""
        table, name, outbox = template.table, announcement.client.encoding, self._outbox()
        has_residual = encoding(name).feedback
        plan = self._plan
        assert plan is not None
        residual = await self._run(self._store_thread, lambda: outbox.residual(announcement.base))
        weights = table.gather(trained.delta, Role.WEIGHT) if has_residual else np.empty(0, np.float32)

        def pack() -> bytes:
            delta = trained.delta
            if has_residual:
                delta = delta.copy()
                table.scatter(delta, Role.WEIGHT, due(residual, weights))
            groups, body = pack_groups(delta, table, name)
            header = UpdateHeader(
                federation=plan.contract.federation,
                participant=self._participant,
                round_number=announcement.round_number,
                attempt=announcement.attempt,
                base=announcement.base_sha256,
                generation=announcement.generation,
                num_examples=trained.num_examples,
                num_steps=trained.num_steps,
                metrics={"loss": trained.loss},
                groups=groups,
            )
            return pack_update(header, body)

        content = await self._run(self._scoring, pack)
        made = TrainedUpdate(
            content=content,
            round_number=announcement.round_number,
            attempt=announcement.attempt,
            base=announcement.base_sha256,
            num_examples=trained.num_examples,
            num_steps=trained.num_steps,
            seconds=time.monotonic() - started,
        )
        waiting = Waiting(
            belongs=outbox.belongs,
            transfer=made.transfer,
            version=announcement.base,
            base=made.base,
            round_number=made.round_number,
            attempt=made.attempt,
            num_examples=made.num_examples,
            num_steps=made.num_steps,
            seconds=made.seconds,
            elements=weights.size,
        )
        await self._run(self._store_thread, lambda: outbox.send(waiting, weights, content))
        return made

    def _outbox(self) -> Outbox:
        plan = self._plan
        assert plan is not None
        belongs = Belonging(generation=plan.generation, template=plan.template.sha256)
        return Outbox(self._store, belongs, plan.template.table)

    async def unanswered(self) -> TrainedUpdate | None:
        """The update that was under way when this edge was stopped, if it belongs to the plan."""
        found = await self._run(self._store_thread, self._outbox().waiting)
        if found is None:
            return None
        waiting, content = found
        return TrainedUpdate(
            content=content,
            round_number=waiting.round_number,
            attempt=waiting.attempt,
            base=waiting.base,
            num_examples=waiting.num_examples,
            num_steps=waiting.num_steps,
            seconds=waiting.seconds,
        )

    async def settle(
        self, update: TrainedUpdate, result: Literal["accepted", "rejected"] | None, code: Code | None
    ) -> None:
        """An update's end: what it means for the residual. Args: result: None where it gave way to a newer one."""
        outbox = self._outbox()
        await self._run(self._store_thread, lambda: outbox.settle(update.transfer, result, code))

    async def train_local(self, announcement: RoundAnnouncement) -> None:
        """The same steps again on a second model of this plant alone: what federation has to beat."""
        dataset = await self._freeze(announcement.round_number)
        await self._keep_up(dataset, announcement.round_number, announcement.client.training, announcement.seed)

    async def _keep_up(self, dataset: Dataset, round_number: int, settings: Training, seed: int) -> None:
        """Train the local-only model until it had the steps of every round so far, those that passed us by too."""
        contract, template = self._contract(), self._template
        if self._trainer is None or template is None or not len(dataset.of(Part.TRAIN)):
            return
        weights = _own_class_weights(dataset, contract)
        vector = None
        try:
            async with self._trainer_lock:
                while self._local_steps < round_number * settings.steps:
                    await self._tell_trainer(dataset, round_number)
                    if self._local_base is None:
                        fresh = await self._trainer.initial(seed)
                        own = await self._run(self._scoring, lambda: _cells(dataset, contract))
                        self._local_base = fill_standardisation(fresh, template.table, contract, own)
                    trained = await self._trainer.train_local(
                        self._local_base, settings, class_weights=weights, seed=seed + self._local_steps
                    )
                    vector, self._local_steps = trained.vector, trained.num_steps
        except TrainerError as error:
            log.warning("the local-only model of round %d is skipped: %s", round_number, error)
            self._trainer_knows = None
        if vector is not None:
            best = vector
            self._local = await self._run(self._scoring, lambda: open_own(template, best))
            await self._run(self._store_thread, lambda: self._store.put(LOCAL_KEY, vector_bytes(best)))

    async def _tell_trainer(self, dataset: Dataset, round_number: int) -> None:
        assert self._trainer is not None
        assert self._template is not None
        known = (self._template.sha256, round_number)
        if self._trainer_knows == known and self._trainer.is_running:
            return
        path = self._folder / "training-set.npz"
        await self._run(self._scoring, lambda: dataset.save(path))
        await self._trainer.template(self._template.skeleton)
        await self._trainer.dataset(path)
        self._trainer_knows = known

    # Evaluation ------------------------------------------------------------------------------------------------------

    async def compare(self, candidate: VersionManifest, current: VersionManifest | None) -> Evaluation:
        """Candidate and current on the select part of the round's snapshot: what decides on promotion."""
        contract = self._contract()
        mark = candidate.lineage.round_number
        chosen: dict[ModelName, Model] = {"candidate": self.model(candidate)}  # now: they may be replaced meanwhile
        if current is not None:
            chosen["current"] = self.model(current)
        dataset = await self._freeze(mark)
        weights = self._class_weights

        def work() -> PartScores:
            predictions = _predict(dataset, Part.SELECT, chosen)
            return _score_part(dataset, Part.SELECT, predictions, contract, weights, capped=True)

        return Evaluation(
            generation=candidate.generation,
            candidate=candidate.version,
            current=current.version if current is not None else None,
            metric=contract.metric,
            select=await self._run(self._scoring, work),
        )

    async def figures(self, manifest: VersionManifest, *, final: bool) -> Evaluation | None:
        """The served version beside local-only, linear and constant: what is published. None before any training."""
        contract, dataset = self._contract(), self._snapshot
        if dataset is None or manifest.sha256 not in self._open:
            return None
        chosen: dict[ModelName, Model] = {"current": self.model(manifest)}
        if self._plan is not None and manifest.lineage.round_number is not None:
            await self._keep_up(dataset, manifest.lineage.round_number, self._plan.training, manifest.version)
        if self._local is not None:
            chosen["local_only"] = self._local
        weights = self._class_weights
        with_report = final or contract.split.report == "each-version"

        def part(which: Part, *, capped: bool = False) -> PartScores:
            predictions = {**_predict(dataset, which, chosen), **self._baseline(dataset, which, contract)}
            return _score_part(dataset, which, predictions, contract, weights, capped=capped)

        def work() -> Evaluation:
            runs = isinstance(contract.label, RunToFailureLabel)
            return Evaluation(
                generation=manifest.generation,
                candidate=None,
                current=manifest.version,
                metric=contract.metric,
                final=final,
                select=part(Part.SELECT, capped=True),
                report=part(Part.REPORT) if with_report else None,
                report_capped=part(Part.REPORT, capped=True) if with_report and runs else None,
            )

        return await self._run(self._scoring, work)

    def _baseline(self, dataset: Dataset, part: Part, contract: Contract) -> dict[ModelName, npt.NDArray[np.float32]]:
        """Predictions of the constant and the linear model, fitted on the training part once per snapshot."""
        if not self._baselines:
            everything = np.arange(len(dataset))
            self._baselines = {
                "constant": constant_predictions(dataset, contract, everything),
                "linear": linear_predictions(dataset, contract, everything),
            }
        index = dataset.of(part)
        return {name: values[index] for name, values in self._baselines.items()}

    async def _run(self, executor: Executor, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(executor, work)


def _predict(dataset: Dataset, part: Part, models: dict[ModelName, Model]) -> Predictions:
    index = dataset.of(part)
    outputs: dict[ModelName, list[npt.NDArray[np.float32]]] = {name: [] for name in models}
    for start in range(0, len(index), BATCH_ROWS):
        rows = index[start : start + BATCH_ROWS]
        features = dataset.features(rows)
        for name, model in models.items():
            outputs[name].append(model.run(features, dataset.contexts[rows]))
    return {name: np.concatenate(parts) if parts else np.empty(0, np.float32) for name, parts in outputs.items()}


def _score_part(
    dataset: Dataset,
    part: Part,
    predictions: Predictions,
    contract: Contract,
    weights: tuple[float, ...],
    *,
    capped: bool = False,
) -> PartScores:
    index = dataset.of(part)
    return score(predictions, dataset.labels[index], dataset.groups[index], contract, weights, capped=capped)


def _cells(dataset: Dataset, contract: Contract) -> dict[int, dict[str, Moments]]:
    """Statistics of the training part: each row once, however many windows share it."""
    stops, first = np.unique(dataset.windows[dataset.of(Part.TRAIN), 1] - 1, return_index=True)
    rows = dataset.rows[stops]
    declared = dataset.contexts[dataset.of(Part.TRAIN)][first]
    return cells(rows, context_slots(rows, declared, contract), contract)


def _label_counts(dataset: Dataset, contract: Contract) -> tuple[int, ...]:
    if not isinstance(contract.label, ClassLabel):
        return ()
    labels = dataset.labels[dataset.of(Part.TRAIN)].astype(np.int64)
    return tuple(int(n) for n in np.bincount(labels, minlength=len(contract.label.classes)))


def _own_class_weights(dataset: Dataset, contract: Contract) -> tuple[float, ...]:
    return class_weights(_label_counts(dataset, contract))
