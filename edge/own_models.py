"""What a plant trains for itself alone under one template: parameters that never leave it."""

from __future__ import annotations

import logging
from concurrent.futures import Executor

import numpy as np

from broker_bridge.threads import on
from edge.dataset import Part
from edge.models import Model, open_own, with_local
from edge.scoring import Snapshot
from edge.store import SampleStore
from edge.trainer_client import Trained, TrainerError
from edge.trainer_desk import TrainerDesk
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.rounds import VersionManifest
from uns_topics.standardisation import fill_standardisation
from uns_topics.template import Template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes

log = logging.getLogger("headgate.edge")

LOCAL_KEY = "local-only"
"""Key of the local-only parameters in the store, behind the hash of their template: steps, then the vector."""
TENSORS_KEY = "local-tensors"
"""Key of the tensors of role local in the store, behind the hash of the template that they belong to."""
_STEPS_BYTES = 8
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of this plant's own steps in a personalised model."""
ClassWeights = tuple[float, ...]


class OwnModels:
    """Args: store_thread: the single thread that the store is used from; scoring: the one that models run on."""

    def __init__(
        self,
        template: Template,
        desk: TrainerDesk | None,
        store: SampleStore,
        store_thread: Executor,
        scoring: Executor,
    ) -> None:
        self._template = template
        self._desk = desk
        self._store = store
        self._store_thread = store_thread
        self._scoring = scoring
        self.local_only, self._best_steps = self._kept_local_only()
        """What this plant would have without a federation, and how many steps that had."""
        self._local_base: Vector | None = None
        self._local_steps = 0
        """That the trainer's own model had; it forgets where it dies."""
        self._tensors = self._kept_tensors()
        self._tuned: Vector | None = None
        """The global version that training last started from, and where its steps led in this plant."""
        self._tuned_final: int | None = None

    # Tensors of role local (as FedBN has them: Li et al. 2021, arXiv:2102.07623) --------------------------------------

    @property
    def tensors(self) -> Vector | None:
        """Shape (elements of role local,); None before any training. Another object whenever they change."""
        return self._tensors

    def fit(self, model: Model) -> Model:
        """A global version with this plant's own tensors in it; the version itself where it has none yet."""
        return model if self._tensors is None else with_local(model, self._tensors)

    def start(self, base: Vector) -> Vector:
        """Where a round's training starts: the base with this plant's own tensors. Both of shape (table.size,)."""
        if self._tensors is None:
            return base
        start = base.copy()
        self._template.table.scatter(start, Role.LOCAL, self._tensors)
        return start

    async def take(self, trained: Trained, start: Vector) -> None:
        """Keep what training made of this plant's own parameters, whatever becomes of the update.

        Args: start: what it started from, shape (table.size,).
        Raises: TrainerError: own tensors that are not the template's.
        """
        self._tuned = self._where(trained, start)
        tensors = trained.local
        if tensors is None or (self._tensors is not None and np.array_equal(tensors, self._tensors)):
            return
        self._tensors = tensors
        await self._keep(TENSORS_KEY, vector_bytes(tensors))

    def _where(self, trained: Trained, start: Vector) -> Vector:
        """Where training led, own tensors and all. Raises: TrainerError."""
        led = np.add(start, trained.delta)
        if trained.local is not None:
            elements = self._template.table.elements(Role.LOCAL)
            if trained.local.shape != (elements,) or not np.isfinite(trained.local).all():
                detail = "the trainer's own tensors are not those of the template, or not finite"
                raise TrainerError(Reason.TRAINER_FAILED, detail)
            self._template.table.scatter(led, Role.LOCAL, trained.local)
        return led

    def _kept_tensors(self) -> Vector | None:
        kept = self._kept(TENSORS_KEY)
        return None if kept is None else vector_from_bytes(kept, self._template.table.elements(Role.LOCAL))

    # Personalised -----------------------------------------------------------------------------------------------------

    async def tune(
        self, snapshot: Snapshot, manifest: VersionManifest, fitted: Model, settings: Training, weights: ClassWeights
    ) -> None:
        """A round's steps more from a last version, which nobody aggregates: for this plant alone, once.

        The own tensors that belong to the global version stay as they are: those of the steps go with the steps.
        """
        if self._desk is None or self._tuned_final == manifest.version or not len(snapshot.dataset.of(Part.TRAIN)):
            return
        try:
            async with self._desk.using(self._template, snapshot.dataset) as trainer:
                trained = await trainer.train(fitted.vector, settings, class_weights=weights, seed=manifest.version)
                self._tuned = self._where(trained, fitted.vector)
                self._tuned_final = manifest.version
        except (TrainerError, OSError) as error:
            log.warning("version %d is not personalised: %s", manifest.version, error)

    def personalised(self, snapshot: Snapshot, fitted: Model, weights: ClassWeights) -> Model | None:
        """The blend of a global version and this plant's own steps that has the least loss on the select part.

        Own steps start from the global version before, so both lie close, and what lies between them is a model too
        (Mansour et al. 2020, arXiv:2002.10619, section 5). None before any training.
        """
        if self._tuned is None:
            return None
        best, least = None, float("inf")
        for share in SHARES:
            vector = fitted.vector + np.float32(share) * (self._tuned - fitted.vector)
            model = open_own(self._template, vector)
            outputs = snapshot.predict(Part.SELECT, {"personalised": model})["personalised"]
            if (loss := snapshot.loss(Part.SELECT, outputs, weights)) < least:
                best, least = model, loss
        return best

    # Local-only -------------------------------------------------------------------------------------------------------

    async def keep_up(
        self, snapshot: Snapshot, round_number: int, settings: Training, seed: int, *, most: int | None = None
    ) -> None:
        """Train the local-only model until it had the steps of every round so far, those that passed us by too.

        Args: most: rounds' worth of steps to make up for now; None: all.
        """
        template = self._template
        if self._desk is None or not len(snapshot.dataset.of(Part.TRAIN)):
            return
        weights = snapshot.class_weights()
        vector = None
        due = round_number * settings.steps
        if most is not None:
            due = min(due, self._local_steps + most * settings.steps)
        try:
            while self._local_steps < due:
                async with self._desk.using(template, snapshot.dataset) as trainer:
                    if self._local_steps >= due:  # another one who waits has made up for it
                        break
                    if self._local_base is None:
                        fresh = await trainer.initial(seed)
                        own = await on(self._scoring, snapshot.cells)
                        self._local_base = fill_standardisation(fresh, template.table, snapshot.contract, own)
                    trained = await trainer.train_local(
                        self._local_base, settings, class_weights=weights, seed=seed + self._local_steps
                    )
                    vector, self._local_steps = trained.vector, trained.num_steps
        except (TrainerError, OSError) as error:
            log.warning("the local-only model of round %d is skipped: %s", round_number, error)
        if vector is not None and self._local_steps >= self._best_steps:  # else it starts anew and is not as far yet
            best, self._best_steps = vector, self._local_steps
            self.local_only = await on(self._scoring, lambda: open_own(template, best))
            await self._keep(LOCAL_KEY, self._best_steps.to_bytes(_STEPS_BYTES, "big") + vector_bytes(best))

    def _kept_local_only(self) -> tuple[Model | None, int]:
        kept = self._kept(LOCAL_KEY)
        if kept is None:
            return None, 0
        vector = vector_from_bytes(kept[_STEPS_BYTES:], self._template.table.size)
        return open_own(self._template, vector), int.from_bytes(kept[:_STEPS_BYTES], "big")

    # On disk ----------------------------------------------------------------------------------------------------------

    def _kept(self, key: str) -> bytes | None:
        """What was kept under this template."""
        kept = self._store.get(key)
        owner = bytes.fromhex(self._template.sha256)
        return kept[len(owner) :] if kept is not None and kept.startswith(owner) else None

    async def _keep(self, key: str, content: bytes) -> None:
        owned = bytes.fromhex(self._template.sha256) + content
        await on(self._store_thread, lambda: self._store.put(key, owned))
