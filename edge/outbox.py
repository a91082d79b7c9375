"""The update under way, the residual and the control variate, on disk together: each update counts once, whatever ends
this process.

All lie in the sample store's file and change in one transaction. Calls block; they are made on the store's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from edge.control import OwnControl, at
from edge.residual import Fate, Residual, after, fate, fresh
from edge.store import SampleStore
from uns_topics.codes import Code
from uns_topics.model import Count, Sha256, TransferId, Value, Version
from uns_topics.template import Lineage
from uns_topics.tensors import Role, TensorTable, Vector, vector_bytes, vector_from_bytes
from uns_topics.transfers import transfer_id
from uns_topics.update import decode_update, unpack_control, unpack_groups

_UPDATE, _RESIDUAL, _CONTROL, _ANSWERED = "update-under-way", "residual", "control", "answered"


class Belonging(Value):
    """What residual and update belong to: under another plan they mean nothing."""

    generation: int
    template: Sha256


class Belongs(Value):
    """The head of whatever lies in the store."""

    belongs: Belonging


class Waiting(Belongs):
    """An update whose receipt has not come: what its manifest and the report on it need."""

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
    control_elements: Count = 0
    """Of the c_k that lies between the two; 0 where the plan has no control variates."""


class _Kept(Belongs):
    since: Version
    norm: float | None


class Answered(Belongs):
    """The round whose update was answered last: after a restart it needs no second one."""

    round_number: int
    base: Sha256


class _KeptControl(Belongs):
    version: Version
    round_number: int


K = TypeVar("K", bound=Belongs)


@dataclass(frozen=True)
class _UnderWay:
    """Attributes: control: c_k without this update."""

    waiting: Waiting
    delta: Vector
    control: Vector
    content: bytes


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

    def control(self, version: int, lineage: Lineage) -> Vector:
        """c_k for a round. Args: version, lineage: of its base. Returns: shape (elements of role weight,), float32."""
        return at(self._control(), version, lineage, self._table.elements(Role.WEIGHT))

    def send(self, waiting: Waiting, delta: Vector, content: bytes, control: Vector | None = None) -> None:
        """An update is about to be sent.

        Args: delta: its weights as training gave them, or nothing; control: the c_k that its change is added to.
        """
        own = control if control is not None else b""
        self._store.put_all({_UPDATE: _entry(waiting, delta, own, content)})

    def waiting(self) -> tuple[Waiting, bytes] | None:
        """The update whose receipt has not come, and its bytes."""
        found = self._update()
        return None if found is None else (found.waiting, found.content)

    def settle(self, transfer: str, result: Literal["accepted", "rejected"] | None, code: Code | None) -> None:
        """The update's end; nothing where it ended before. Args: result: None where it was lost or gave way."""
        found = self._update()
        if found is None or found.waiting.transfer != transfer:
            return
        waiting, end = found.waiting, fate(result, code)
        changes: dict[str, bytes | None] = {_UPDATE: None}
        if result is not None:
            answered = Answered(belongs=self.belongs, round_number=waiting.round_number, base=waiting.base)
            changes[_ANSWERED] = _entry(answered)
        update = decode_update(found.content, 2**40)
        if found.delta.size:
            sent = unpack_groups(update, self._table, control=bool(found.control.size))
            before = fresh(self._residual(), waiting.version)
            now = after(before, found.delta, self._table.gather(sent, Role.WEIGHT), waiting.version, end)
            changes[_RESIDUAL] = None if now is None else self._written(now)
        if found.control.size and end is Fate.COMMIT and (change := unpack_control(update)) is not None:
            kept = _KeptControl(belongs=self.belongs, version=waiting.version, round_number=waiting.round_number)
            changes[_CONTROL] = _entry(kept, found.control, np.add(found.control, change))
        self._store.put_all(changes)

    def answered(self) -> Answered | None:
        """The round whose update was answered last."""
        found = self._read(_ANSWERED, Answered, 0)
        return None if found is None else found[0]

    def _update(self) -> _UnderWay | None:
        raw = self._store.get(_UPDATE)
        if raw is None:
            return None
        head, _, rest = raw.partition(b"\n")
        try:
            waiting = Waiting.model_validate_json(head)
        except ValidationError:  # of another release: it is forgotten
            return None
        end = 4 * waiting.elements
        start = end + 4 * waiting.control_elements
        content = rest[start:]
        if waiting.belongs != self.belongs or transfer_id(content) != waiting.transfer:
            return None
        delta = vector_from_bytes(rest[:end], waiting.elements)
        return _UnderWay(waiting, delta, vector_from_bytes(rest[end:start], waiting.control_elements), content)

    def _control(self) -> OwnControl | None:
        found = self._read(_CONTROL, _KeptControl, 2 * self._table.elements(Role.WEIGHT))
        if found is None:
            return None
        kept, (before, after) = found[0], np.split(found[1], 2)
        return OwnControl(before, after, kept.version, kept.round_number)

    def _residual(self) -> Residual | None:
        found = self._read(_RESIDUAL, _Kept, self._table.elements(Role.WEIGHT))
        return None if found is None else Residual(found[1], found[0].since, found[0].norm)

    def _written(self, residual: Residual) -> bytes | None:
        if not np.isfinite(residual.values).all():
            return None  # it can't be sent
        return _entry(_Kept(belongs=self.belongs, since=residual.since, norm=residual.norm), residual.values)

    def _read(self, key: str, form: type[K], elements: int) -> tuple[K, Vector] | None:
        """What lies under a key; None where nothing does, or what is there is of another plan or release."""
        raw = self._store.get(key)
        if raw is None:
            return None
        head, _, rest = raw.partition(b"\n")
        try:
            kept, values = form.model_validate_json(head), vector_from_bytes(rest, elements)
        except ValueError:
            return None
        return (kept, values) if kept.belongs == self.belongs else None


def _entry(head: Belongs, *rest: Vector | bytes) -> bytes:
    """One value of the store: a line of JSON, and what it speaks of."""
    parts = (part if isinstance(part, bytes) else vector_bytes(part) for part in rest)
    return b"\n".join((head.model_dump_json().encode(), b"".join(parts)))
