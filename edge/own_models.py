"""What a plant trains for itself alone under one template: parameters that never leave it."""

from __future__ import annotations

import logging
from concurrent.futures import Executor

import numpy as np

from edge.dataset import Part
from edge.models import Model, open_own, with_local
from edge.scoring import Snapshot
from edge.store import SampleStore
from edge.threads import on
from edge.trainer_client import Trained, TrainerError
from edge.trainer_desk import TrainerDesk
from uns_topics.codes import Reason
from uns_topics.plan import Training
from uns_topics.standardisation import fill_standardisation
from uns_topics.template import Template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_from_bytes

log = logging.getLogger("headgate.edge")

LOCAL_KEY = "local-only"
"""Key of the local-only parameters in the store."""
TENSORS_KEY = "local-tensors"
"""Key of the tensors of role local in the store, behind the hash of the template that they belong to."""
_HASH_BYTES = 32


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
        self.local_only: Model | None = None
        """What this plant would have without a federation."""
        self._local_base: Vector | None = None
        self._local_steps = 0
        self._tensors = self._kept_tensors()

    # Tensors of role local (as FedBN has them: Li et al. 2021, arXiv:2102.07623) --------------------------------------

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

    async def take(self, trained: Trained) -> None:
        """Keep the own tensors as training left them, whatever becomes of the update. Raises: TrainerError."""
        tensors = trained.local
        if tensors is None or (self._tensors is not None and np.array_equal(tensors, self._tensors)):
            return
        if tensors.shape != (self._template.table.elements(Role.LOCAL),) or not np.isfinite(tensors).all():
            detail = "the trainer's own tensors are not those of the template, or not finite"
            raise TrainerError(Reason.TRAINER_FAILED, detail)
        self._tensors = tensors
        content = bytes.fromhex(self._template.sha256) + vector_bytes(tensors)
        await on(self._store_thread, lambda: self._store.put(TENSORS_KEY, content))

    def _kept_tensors(self) -> Vector | None:
        kept = self._store.get(TENSORS_KEY)
        if kept is None or kept[:_HASH_BYTES].hex() != self._template.sha256:
            return None
        return vector_from_bytes(kept[_HASH_BYTES:], self._template.table.elements(Role.LOCAL))

    # Local-only -------------------------------------------------------------------------------------------------------

    async def keep_up(self, snapshot: Snapshot, round_number: int, settings: Training, seed: int) -> None:
        """Train the local-only model until it had the steps of every round so far, those that passed us by too."""
        template = self._template
        if self._desk is None or not len(snapshot.dataset.of(Part.TRAIN)):
            return
        weights = snapshot.class_weights()
        vector = None
        try:
            while self._local_steps < round_number * settings.steps:
                async with self._desk.using(template, snapshot.dataset) as trainer:
                    if self._local_base is None:
                        fresh = await trainer.initial(seed)
                        own = await on(self._scoring, snapshot.cells)
                        self._local_base = fill_standardisation(fresh, template.table, snapshot.contract, own)
                    trained = await trainer.train_local(
                        self._local_base, settings, class_weights=weights, seed=seed + self._local_steps
                    )
                    vector, self._local_steps = trained.vector, trained.num_steps
        except TrainerError as error:
            log.warning("the local-only model of round %d is skipped: %s", round_number, error)
        if vector is not None:
            best = vector
            self.local_only = await on(self._scoring, lambda: open_own(template, best))
            await on(self._store_thread, lambda: self._store.put(LOCAL_KEY, vector_bytes(best)))
