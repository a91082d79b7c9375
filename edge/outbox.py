"""The update under way and the residual, on disk together: whatever ends this process, each update counts once.

Both lie in the sample store's file and change in one transaction. Calls block; they are made on the store's thread.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import ValidationError

from edge.residual import Residual, after, fate, fresh
from edge.store import SampleStore
from uns_topics.codes import Code
from uns_topics.model import Count, Sha256, TransferId, Value, Version
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes, vector_from_bytes
from uns_topics.transfers import transfer_id
from uns_topics.update import decode_update, unpack_groups

_UPDATE, _RESIDUAL = "update-under-way", "residual"


class Belonging(Value):
    """What residual and update belong to: under another plan they mean nothing."""

    generation: int
    template: Sha256


class Waiting(Value):
    """An update whose receipt has not come: what its manifest and the report on it need."""

    belongs: Belonging
    transfer: TransferId
    version: Version
    base: Sha256
    round_number: int
    attempt: int
    num_examples: Count
    num_steps: Count
    seconds: float
    elements: Count
    """Of the delta that lies before the update's bytes; 0 where the encoding needs no residual."""


class _Kept(Value):
    belongs: Belonging
    since: Version
    norm: float | None


class Outbox:
    """One participant's update under way.

    Args: belongs, table: the plan's; what lies on disk from another one is forgotten.
    """

    def __init__(self, store: SampleStore, belongs: Belonging, table: TensorTable) -> None:
        self._store = store
        self.belongs = belongs
        self._table = table

    def residual(self, version: int) -> Residual | None:
        """What the next update has to add. An update that still waits gave way to it, and counts as lost.

        Args: version: the base of the next update.
        """
        waiting = self.waiting()
        if waiting is not None:
            self.settle(waiting[0].transfer, None, None)
        return fresh(self._residual(), version)

    def send(self, waiting: Waiting, delta: Vector, content: bytes) -> None:
        """An update is about to be sent. Args: delta: its weights as training gave them, or nothing."""
        head = waiting.model_dump_json().encode() + b"\n"
        self._store.put_all({_UPDATE: head + vector_bytes(delta) + content})

    def waiting(self) -> tuple[Waiting, bytes] | None:
        """The update whose receipt has not come, and its bytes."""
        found = self._update()
        return None if found is None else (found[0], found[2])

    def settle(self, transfer: str, result: Literal["accepted", "rejected"] | None, code: Code | None) -> None:
        """The update's end; nothing where it ended before. Args: result: None where it was lost or gave way."""
        found = self._update()
        if found is None or found[0].transfer != transfer:
            return
        waiting, delta, content = found
        changes: dict[str, bytes | None] = {_UPDATE: None}
        if delta.size:
            sent = self._table.gather(unpack_groups(decode_update(content, 2**40), self._table), Role.WEIGHT)
            before = fresh(self._residual(), waiting.version)
            now = after(before, delta, sent, waiting.version, fate(result, code))
            changes[_RESIDUAL] = None if now is None else self._written(now)
        self._store.put_all(changes)

    def _update(self) -> tuple[Waiting, Vector, bytes] | None:
        raw = self._store.get(_UPDATE)
        if raw is None:
            return None
        head, _, rest = raw.partition(b"\n")
        try:
            waiting = Waiting.model_validate_json(head)
        except ValidationError:  # of another release: it is forgotten
            return None
        end = 4 * waiting.elements
        content = rest[end:]
        if waiting.belongs != self.belongs or transfer_id(content) != waiting.transfer:
            return None
        return waiting, vector_from_bytes(rest[:end], waiting.elements), content

    def _residual(self) -> Residual | None:
        raw = self._store.get(_RESIDUAL)
        if raw is None:
            return None
        head, _, rest = raw.partition(b"\n")
        try:
            kept = _Kept.model_validate_json(head)
            values = vector_from_bytes(rest, self._table.elements(Role.WEIGHT))
        except ValueError:
            return None
        return Residual(values, kept.since, kept.norm) if kept.belongs == self.belongs else None

    def _written(self, residual: Residual) -> bytes | None:
        if not np.isfinite(residual.values).all():
            return None  # it can't be sent
        kept = _Kept(belongs=self.belongs, since=residual.since, norm=residual.norm)
        return kept.model_dump_json().encode() + b"\n" + vector_bytes(residual.values)
