"""Encodings of `weight` tensors. Decoding is elementwise, so that it gives the same bits on every CPU.

Each encoding is a small value behind `Encoding`; the plan names those that its participants may use. `buffer` tensors
are always `f32`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from uns_topics.tensors import Vector


class EncodingError(ValueError):
    """The bytes don't hold the expected number of finite elements, or no such encoding is known."""


class Encoding(Protocol):
    """Bytes of a flat float32 array and back."""

    name: str
    linear: bool
    """The sum of encodings is the encoding of a sum, which masking needs."""

    def max_bytes(self, elements: int) -> int:
        """The most bytes that `elements` can take: a bound known before anything is received."""

    def encode(self, values: Vector) -> bytes:
        """Raises: EncodingError: a value is beyond what the encoding can carry."""

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Returns: shape (elements,), float32; not checked for NaN. Raises: EncodingError: wrong length."""


class _Float:
    linear = True

    def __init__(self, name: str, dtype: str) -> None:
        self.name = name
        self._dtype = np.dtype(dtype)

    def max_bytes(self, elements: int) -> int:
        return elements * self._dtype.itemsize

    def encode(self, values: Vector) -> bytes:
        limit = float(np.finfo(self._dtype).max)
        if values.size and not float(np.abs(values).max()) <= limit:
            raise EncodingError(f"a value beyond {limit} doesn't fit {self.name}")
        return values.astype(self._dtype).tobytes()

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        if len(raw) != self.max_bytes(elements):
            raise EncodingError(f"{len(raw)} bytes of {self.name} for {elements} elements")
        return np.frombuffer(raw, self._dtype).astype(np.float32)


ENCODINGS: dict[str, Encoding] = {e.name: e for e in (_Float("f32", "<f4"), _Float("f16", "<f2"))}


def encoding(name: str) -> Encoding:
    """The encoding of this name. Raises: EncodingError: unknown, with the list of valid names."""
    if name not in ENCODINGS:
        raise EncodingError(f"no encoding {name!r}; known: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]
