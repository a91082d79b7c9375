"""A round's accepted updates as a value that strategies may read as often as they like, block by block."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from uns_topics.tensors import Role, TensorTable, Vector
from uns_topics.update import decode_update, max_update_bytes, unpack_groups

SPOOL_ABOVE_BYTES = 64 * 1024 * 1024
"""Decoded updates larger than this together lie in a temporary file, so that memory doesn't grow with the cohort."""


class UpdateSet(Protocol):
    """Deltas of one role in participant order: shape (n, size), never all in memory at once."""

    @property
    def participants(self) -> tuple[str, ...]:
        """Sorted ids."""

    @property
    def weights(self) -> tuple[int, ...]:
        """`num_examples` of each, in the same order."""

    @property
    def size(self) -> int:
        """Elements of one delta."""

    def __len__(self) -> int: ...

    def blocks(self, start: int, stop: int) -> Iterator[Vector]:
        """Elements [start, stop) of each delta, in participant order; read-only, float32."""


class ArrayUpdates:
    """Decoded deltas as rows of one array.

    Args: participants, weights, rows: in any order; they are sorted by participant. rows: shape (n, size), float32.
    """

    def __init__(
        self, participants: Sequence[str], weights: Sequence[int], rows: Sequence[Vector] | np.ndarray
    ) -> None:
        order = sorted(range(len(participants)), key=lambda i: participants[i])
        self.participants = tuple(participants[i] for i in order)
        self.weights = tuple(weights[i] for i in order)
        self._rows = [rows[i] for i in order]
        self.size = len(self._rows[0]) if self._rows else 0

    def __len__(self) -> int:
        return len(self.participants)

    def blocks(self, start: int, stop: int) -> Iterator[Vector]:
        """Elements [start, stop) of each delta."""
        for row in self._rows:
            block = row[start:stop]
            block.flags.writeable = False
            yield block


def decoded(
    participants: Sequence[str],
    weights: Sequence[int],
    load: Callable[[str], bytes],
    table: TensorTable,
    encodings: tuple[str, ...],
    folder: Path,
) -> tuple[ArrayUpdates, ArrayUpdates]:
    """The `weight` and the `buffer` deltas of stored updates, each update decoded once.

    Args: load: the encoded bytes of a participant's update; folder: where a temporary file may lie.
    Raises: PayloadError, EncodingError, ValueError: stored bytes that the gate would not have let pass.
    """
    sizes = {role: table.elements(role) for role in (Role.WEIGHT, Role.BUFFER)}
    rows = {role: _rows(len(participants), size, folder) for role, size in sizes.items()}
    limit = max_update_bytes(table, encodings)
    for index, participant in enumerate(participants):
        delta = unpack_groups(decode_update(load(participant), limit), table)
        for role, array in rows.items():
            array[index] = table.gather(delta, role)
    return (
        ArrayUpdates(participants, weights, rows[Role.WEIGHT]),
        ArrayUpdates(participants, weights, rows[Role.BUFFER]),
    )


def _rows(count: int, size: int, folder: Path) -> np.ndarray:
    if 4 * count * size <= SPOOL_ABOVE_BYTES:
        return np.empty((count, size), np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping outlives the file object, and the file has no name
        return np.memmap(file, np.float32, "w+", shape=(count, size))
