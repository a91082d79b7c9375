"""What every encoding of `weight` tensors is: the same bits on every CPU.

A list of values has one byte string: decoding refuses unused bits, padding that is not zero and scales that are not the
smallest. So whoever judges an update knows that no byte of it is free to carry something else.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from uns_topics.tensors import Vector

TINY = np.float32(np.finfo(np.float32).tiny)
"""The smallest scale: products below it would be subnormal, which some CPUs are set to flush to zero."""
LIMIT = 1e36
"""Values and scales beyond it are refused: 127 steps of a scale must not leave float32."""


class EncodingError(ValueError):
    """The bytes don't hold the expected number of finite elements, or no such encoding is known."""


class Encoding(Protocol):
    """Bytes of a flat float32 array and back."""

    name: str
    linear: bool
    """The sum of encodings is the encoding of a sum, which masking needs."""
    feedback: bool
    """So lossy that the sender keeps what was not sent and adds it to the next (Seide et al. 2014)."""

    def max_bytes(self, elements: int) -> int:
        """The most bytes that `elements` can take: a bound known before anything is received."""

    def encode(self, values: Vector) -> bytes:
        """Raises: EncodingError: a value is beyond what the encoding can carry."""

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Returns: shape (elements,), float32; not checked for NaN.

        Raises: EncodingError: wrong length, or bytes that `encode` never gives.
        """


class Blockwise(Encoding, Protocol):
    """An encoding of which any run of whole blocks can be decoded alone: what was cut out is encoded the same way."""

    block: int
    """Elements of a block."""

    def check(self, raw: memoryview | bytes, elements: int) -> None:
        """Raises: EncodingError: wrong length, or bytes that `encode` never gives."""

    def cut(self, elements: int, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Where the bytes of elements [start, stop) are: (first, end) of each piece; start: a multiple of `block`."""

    def decode_checked(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Decode what `check` let pass, or what was cut out of that. Returns: shape (elements,), float32."""


def check_limit(values: Vector, name: str) -> None:
    """Raises: EncodingError: a value is NaN or beyond what a scale can carry."""
    if values.size and not max(float(values.max()), -float(values.min())) <= LIMIT:
        raise EncodingError(f"a value beyond {LIMIT} doesn't fit {name}")


def checked_scales(raw: memoryview | bytes, count: int) -> Vector:
    """Scales as they were written: each +0, or positive, normal and within the limit. Raises: EncodingError."""
    scales = np.frombuffer(raw, "<f4", count).astype(np.float32)
    good = (scales >= TINY) & (scales <= LIMIT) | (scales.view(np.uint32) == 0)
    if not good.all():
        raise EncodingError("a scale that is neither zero nor a normal positive number")
    return scales
