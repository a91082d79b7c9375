"""The tensor table: where each tensor lies in the vector and in the skeleton, and what role it plays.

A version is one flat float32 vector in the table's order; its SHA-256 is its identity and the base of every update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from uns_topics.model import Value

Vector = npt.NDArray[np.float32]


class Role(StrEnum):
    """What happens to a tensor in a round."""

    WEIGHT = "weight"
    """Learnt and combined: strategy, encoding and norms apply."""
    BUFFER = "buffer"
    """Running statistics of a site's own module: always float32, plain mean, variance clamped."""
    FROZEN = "frozen"
    """Standardisation and context: set at bootstrap, then fixed for the generation."""
    LOCAL = "local"
    """Never leaves the plant: calibration, personal layers. A global version holds neutral values."""


Dimension = Annotated[int, Field(ge=-(2**31), le=2**31)]
"""Checked by the table, whose errors name the tensor."""


class Tensor(Value):
    """One tensor: `offset` counts elements in the vector, `file_offset` bytes in the skeleton."""

    name: str = Field(min_length=1, max_length=200)
    shape: tuple[Dimension, ...] = Field(max_length=8)
    role: Role
    offset: int = Field(ge=0, le=2**31)
    file_offset: int = Field(ge=0, le=2**40)

    @property
    def size(self) -> int:
        """Elements; 1 for a scalar."""
        return math.prod(self.shape)


class TensorTable(Value):
    """All tensors of a template, back to back in the vector. At most 10,000 tensors and 2^31 elements."""

    tensors: tuple[Tensor, ...] = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _back_to_back(self) -> Self:
        end, file_end = 0, 0
        names: set[str] = set()
        for tensor in sorted(self.tensors, key=lambda t: t.file_offset):
            if tensor.file_offset < file_end:
                raise ValueError(f"tensor {tensor.name} overlaps another one in the skeleton")
            file_end = tensor.file_offset + 4 * tensor.size
        for tensor in self.tensors:
            if any(d < 1 for d in tensor.shape):
                raise ValueError(f"tensor {tensor.name} has an empty or negative dimension in {tensor.shape}")
            if tensor.offset != end:
                raise ValueError(f"tensor {tensor.name} starts at element {tensor.offset}, not at {end}")
            if tensor.name in names:
                raise ValueError(f"tensor {tensor.name} stands twice in the table")
            names.add(tensor.name)
            end += tensor.size
        if end > 2**31:
            raise ValueError(f"{end} elements, more than 2^31")
        return self

    @cached_property
    def size(self) -> int:
        """Elements of the vector."""
        return sum(t.size for t in self.tensors)

    def elements(self, role: Role) -> int:
        """Elements of all tensors with this role."""
        return sum(t.size for t in self.tensors if t.role is role)

    def slices(self, role: Role) -> tuple[slice, ...]:
        """The runs of the vector that hold this role, neighbours joined."""
        runs: list[slice] = []
        for tensor in self.tensors:
            if tensor.role is role:
                if runs and runs[-1].stop == tensor.offset:
                    runs[-1] = slice(runs[-1].start, tensor.offset + tensor.size)
                else:
                    runs.append(slice(tensor.offset, tensor.offset + tensor.size))
        return tuple(runs)

    def gather(self, vector: Vector, role: Role) -> Vector:
        """The elements with this role, in table order, as one new array."""
        parts = [vector[run] for run in self.slices(role)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def scatter(self, vector: Vector, role: Role, values: Vector) -> None:
        """Write `values` (as from `gather`) into `vector`. Raises: ValueError: another number of elements."""
        for run, part in self._runs(role, values):
            vector[run] = part

    def add(self, vector: Vector, role: Role, values: Vector) -> None:
        """Add `values` (as from `gather`) onto `vector` in place, without a further model in memory.

        Raises: ValueError: another number of elements.
        """
        for run, part in self._runs(role, values):
            np.add(vector[run], part, out=vector[run])

    def _runs(self, role: Role, values: Vector) -> Iterator[tuple[slice, Vector]]:
        """Each run of the vector, and what of `values` belongs there."""
        if values.size != self.elements(role):
            raise ValueError(f"{values.size} elements for {self.elements(role)} of role {role.value}")
        start = 0
        for run in self.slices(role):
            length = run.stop - run.start
            yield run, values[start : start + length]
            start += length

    def named(self, name: str) -> Tensor:
        """The tensor of this name. Raises: KeyError."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def view(self, vector: Vector, name: str) -> Vector:
        """One tensor of the vector in its shape, without a copy. Raises: KeyError."""
        tensor = self.named(name)
        return vector[tensor.offset : tensor.offset + tensor.size].reshape(tensor.shape)


def vector_bytes(vector: Vector) -> bytes:
    """Little-endian float32, back to back: what is hashed, stored and sent."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def vector_sha256(vector: Vector) -> str:
    """A version's identity."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()


def vector_from_bytes(raw: bytes | memoryview, size: int) -> Vector:
    """The inverse of `vector_bytes`. Raises: ValueError: another length, or a value that is not finite."""
    if len(raw) != 4 * size:
        raise ValueError(f"{len(raw)} bytes for a vector of {size} elements ({4 * size} bytes)")
    vector = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("the vector holds NaN or infinity")
    return vector
