"""A round's accepted updates as a value that strategies may read as often as they like, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from aggregator.kept import KeptRows, Rows
from uns_topics.tensors import Role, TensorTable, Vector
from uns_topics.update import ROLES, decode_update, max_update_bytes, split_groups


class UpdateSet(Protocol):
    """Deltas of one role in participant order: shape (n, size), never all in memory at once.

    In asynchronous rounds a participant with a late update comes twice, the older one first.
    """

    @property
    def participants(self) -> tuple[str, ...]:
        """Sorted ids, one for each update."""

    @property
    def weights(self) -> tuple[int, ...]:
        """`num_examples` of each, in the same order."""

    @property
    def steps(self) -> tuple[int, ...]:
        """`num_steps` of each: optimiser steps that its participant took."""

    @property
    def staleness(self) -> tuple[int, ...]:
        """Versions between the base of each and the current one; 0 in synchronous rounds."""

    @property
    def controls(self) -> UpdateSet | None:
        """What group `control` held (SCAFFOLD), of the same participants; None where it didn't travel."""

    @property
    def size(self) -> int:
        """Elements of one delta."""

    def __len__(self) -> int: ...

    def blocks(self, start: int, stop: int) -> Iterator[Vector]:
        """Elements [start, stop) of each delta, in participant order; read-only, float32."""


class ArrayUpdates:
    """Deltas in memory or in a file.

    Args:
        participants, weights, rows: in any order; they are sorted by participant, several of one stay in order.
            rows: n arrays of shape (size,), float32, or `Rows` of `size` elements.
        steps, staleness: in the order of participants; by default 1 and 0 for each.
    """

    def __init__(
        self,
        participants: Sequence[str],
        weights: Sequence[int],
        rows: Sequence[Vector] | np.ndarray | Rows,
        *,
        size: int | None = None,
        steps: Sequence[int] | None = None,
        staleness: Sequence[int] | None = None,
        controls: UpdateSet | None = None,
    ) -> None:
        order = sorted(range(len(participants)), key=lambda i: participants[i])
        self.participants = tuple(participants[i] for i in order)
        self.weights = tuple(weights[i] for i in order)
        self.steps = tuple(1 if steps is None else steps[i] for i in order)
        self.staleness = tuple(0 if staleness is None else staleness[i] for i in order)
        self.controls = controls
        if isinstance(rows, Sequence | np.ndarray):
            self.size = len(rows[0]) if len(rows) else 0
            self._rows: Rows = _InMemory(rows)
        else:
            assert size is not None
            self.size, self._rows = size, rows
        self._order = order

    def __len__(self) -> int:
        return len(self.participants)

    def blocks(self, start: int, stop: int) -> Iterator[Vector]:
        """Elements [start, stop) of each delta."""
        for index in self._order:
            block = self._rows.block(index, start, stop)
            block.flags.writeable = False
            yield block


class _InMemory:
    def __init__(self, rows: Sequence[Vector] | np.ndarray) -> None:
        self._rows = rows

    def block(self, index: int, start: int, stop: int) -> Vector:
        row: Vector = self._rows[index][start:stop]
        return row


@contextmanager
def decoded(
    participants: Sequence[str],
    weights: Sequence[int],
    load: Callable[[int], bytes],
    table: TensorTable,
    encodings: tuple[str, ...],
    folder: Path,
    staleness: Sequence[int] | None = None,
    *,
    control: bool = False,
) -> Iterator[tuple[ArrayUpdates, ArrayUpdates]]:
    """The `weight` and the `buffer` deltas of stored updates, each update read once; readable within the context.

    Args:
        load: the encoded bytes of an update, by its index.
        folder: where a temporary file may lie.
        staleness: of each update, by default 0.
        control: whether they carry control variates, which are the `controls` of the `weight` deltas then.

    Raises: PayloadError, EncodingError, ValueError: stored bytes that the gate would not have let pass. OSError: the
        folder takes no file.
    """
    limit = max_update_bytes(table, encodings, control=control)
    roles = (Role.WEIGHT, Role.BUFFER)
    with ExitStack() as stack:
        kept = {role: KeptRows(table.elements(role), folder, stack) for role in roles}
        controls = KeptRows(table.elements(Role.WEIGHT), folder, stack) if control else None
        steps = []
        for index in range(len(participants)):
            update = decode_update(load(index), limit)
            steps.append(update.header.num_steps)
            groups = split_groups(update, table, control=control)
            for group, (name, raw) in groups.items():
                rows = controls if group == "control" else kept[ROLES[group]]
                assert rows is not None  # `split_groups` lets none pass where the plan has none
                rows.keep(index, name, raw)
            del update, groups, raw  # an update that is kept elsewhere goes before the next one is read

        def made(role: Role, rows: KeptRows, beside: ArrayUpdates | None = None) -> ArrayUpdates:
            return ArrayUpdates(
                participants,
                weights,
                rows,
                size=table.elements(role),
                steps=steps,
                staleness=staleness,
                controls=beside,
            )

        beside = made(Role.WEIGHT, controls) if controls is not None else None
        yield made(Role.WEIGHT, kept[Role.WEIGHT], beside), made(Role.BUFFER, kept[Role.BUFFER])
