"""Updates of one participant: packed, kept on disk until their receipt, settled by it."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from broker_bridge.threads import on
from edge.control import Controls
from edge.models import Model
from edge.outbox import Belonging, Outbox, Waiting
from edge.residual import due
from edge.store import SampleStore
from edge.trainer_client import Trained
from uns_topics.codes import Code
from uns_topics.encodings import encoding
from uns_topics.plan import Plan
from uns_topics.rounds import RoundAnnouncement
from uns_topics.tensors import Role, Vector
from uns_topics.transfers import transfer_id
from uns_topics.update import UpdateHeader, pack_groups, pack_update


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
    matured: int = field(default=0, compare=False)
    """Samples that had ever matured when its snapshot was taken; 0 where an earlier process took it."""

    @classmethod
    def of(cls, waiting: Waiting, content: bytes, matured: int = 0) -> TrainedUpdate:
        """As the outbox holds it."""
        return cls(
            content=content,
            round_number=waiting.round_number,
            attempt=waiting.attempt,
            base=waiting.base,
            num_examples=waiting.num_examples,
            num_steps=waiting.num_steps,
            seconds=waiting.seconds,
            matured=matured,
        )

    @property
    def transfer(self) -> str:
        """The id of its transfer."""
        return transfer_id(self.content)


class Updates:
    """What becomes of training. Nothing but `follow` is called before there is a plan.

    Args: store, store_thread: where updates wait, and the single thread it is used from; scoring: encodes.
    """

    def __init__(self, participant: str, store: SampleStore, store_thread: Executor, scoring: Executor) -> None:
        self._participant = participant
        self._store = store
        self._store_thread = store_thread
        self._scoring = scoring
        self._plan: Plan | None = None

    def follow(self, plan: Plan) -> None:
        """Work by this plan."""
        self._plan = plan

    async def controls(self, model: Model, version: int) -> Controls | None:
        """What a round from this version is trained with; None where the plan has no control variates."""
        server = model.control
        if server is None:
            return None
        outbox = self.outbox()
        own = await on(self._store_thread, lambda: outbox.control(version, model.lineage))
        return Controls(server, own)

    async def pack(
        self,
        announcement: RoundAnnouncement,
        model: Model,
        trained: Trained,
        controls: Controls | None,
        started: float,
        matured: int,
    ) -> TrainedUpdate:
        """Add the residual, encode, and keep the update on disk until its receipt.

        Args:
            model: the base of the round.
            controls: what it was trained with, where the plan has control variates.
            started: when the round's work began, by `time.monotonic`.
            matured: samples that had ever matured when its snapshot was taken.
        Raises: EncodingError: a delta that the encoding can't carry.
        """
        table, outbox = model.template.table, self.outbox()
        has_residual = encoding(announcement.client.encoding).feedback
        residual = await on(self._store_thread, lambda: outbox.residual(announcement.base))
        weights = table.gather(trained.delta, Role.WEIGHT) if has_residual else np.empty(0, np.float32)
        now = await self.controls(model, announcement.base)  # a receipt may have come while it trained

        def work() -> bytes:
            delta, moved = trained.delta, None
            if controls is not None and now is not None:
                step, rate = table.gather(delta, Role.WEIGHT), announcement.client.training.learning_rate
                moved = controls.change(now.own, step, trained.num_steps, rate)
            if has_residual:
                delta = delta.copy()
                table.scatter(delta, Role.WEIGHT, due(residual, weights))
            return self._packed(announcement, model, trained, delta, moved)

        content = await on(self._scoring, work)
        waiting = Waiting(
            belongs=outbox.belongs,
            transfer=transfer_id(content),
            version=announcement.base,
            base=announcement.base_sha256,
            round_number=announcement.round_number,
            attempt=announcement.attempt,
            num_examples=trained.num_examples,
            num_steps=trained.num_steps,
            seconds=time.monotonic() - started,
            elements=weights.size,
            control_elements=now.own.size if now is not None else 0,
        )
        counted = now.own if now is not None else None
        await on(self._store_thread, lambda: outbox.send(waiting, weights, content, counted))
        return TrainedUpdate.of(waiting, content, matured)

    def _packed(
        self, announcement: RoundAnnouncement, model: Model, trained: Trained, delta: Vector, moved: Vector | None
    ) -> bytes:
        """The update's bytes. Args: delta: what is to be sent; moved: the change of c_k."""
        assert self._plan is not None
        groups, body = pack_groups(delta, model.template.table, announcement.client.encoding, moved)
        header = UpdateHeader(
            federation=self._plan.contract.federation,
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

    async def unanswered(self) -> TrainedUpdate | None:
        """The update that was under way when this edge was stopped, if it belongs to the plan."""
        found = await on(self._store_thread, self.outbox().waiting)
        return None if found is None else TrainedUpdate.of(*found)

    async def answered(self) -> tuple[int, str] | None:
        """Round and base of the last update that was answered, if it belongs to the plan."""
        found = await on(self._store_thread, self.outbox().answered)
        return None if found is None else (found.round_number, found.base)

    async def settle(
        self, update: TrainedUpdate, result: Literal["accepted", "rejected"] | None, code: Code | None
    ) -> None:
        """An update's end: what it means for the residual. Args: result: None where it gave way to a newer one."""
        outbox = self.outbox()
        await on(self._store_thread, lambda: outbox.settle(update.transfer, result, code))

    async def accepted(self, update: TrainedUpdate) -> None:
        """The update was accepted: what matured since its snapshot is new from now on."""
        await on(self._store_thread, lambda: self._store.mark(f"round-{update.round_number}", update.matured))

    def outbox(self) -> Outbox:
        """Of the plan at hand."""
        plan = self._plan
        assert plan is not None
        belongs = Belonging(generation=plan.generation, template=plan.template.sha256)
        return Outbox(self._store, belongs, plan.template.table)
