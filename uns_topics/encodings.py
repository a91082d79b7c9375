"""Encodings of `weight` tensors. Decoding is elementwise, so that it gives the same bits on every CPU.

Each encoding is a small value behind `Encoding`; the plan names those that its participants may use. `buffer` tensors
are always `f32`.
"""

from __future__ import annotations

import numpy as np

from uns_topics.encoding_base import Blockwise, Encoding, EncodingError
from uns_topics.quantised import Int8, Ternary
from uns_topics.sparse import TOPK_INT8, TOPK_SIGN
from uns_topics.tensors import Vector


class _Float:
    linear = True
    feedback = False

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


_QUANTISED: tuple[Blockwise, ...] = (Int8(), Ternary())
_KNOWN: tuple[Encoding, ...] = (_Float("f32", "<f4"), _Float("f16", "<f2"), *_QUANTISED, TOPK_INT8, TOPK_SIGN)
ENCODINGS: dict[str, Encoding] = {e.name: e for e in _KNOWN}


def encoding(name: str) -> Encoding:
    """The encoding of this name. Raises: EncodingError: unknown, with the list of valid names."""
    if name not in ENCODINGS:
        raise EncodingError(f"no encoding {name!r}; known: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def blockwise(name: str) -> Blockwise | None:
    """The encoding of this name, if blocks of it can be decoded alone."""
    return next((e for e in _QUANTISED if e.name == name), None)


__all__ = ["ENCODINGS", "Encoding", "EncodingError", "blockwise", "encoding"]
