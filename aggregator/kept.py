"""A round's deltas until its fold: decoded, or as they were sent where a block of that is decoded when it is read.

`int8` and `ternary` stay as they came: they take a quarter and a twentieth of what float32 takes, and to decode a block
in the cache is faster than to read its float32 from memory. Others are decoded once.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from uns_topics.encoding_base import Blockwise
from uns_topics.encodings import blockwise, encoding
from uns_topics.tensors import Vector

SPOOL_ABOVE_BYTES = 64 * 1024 * 1024
"""What is kept beyond this lies in a temporary file, so that memory doesn't grow with the cohort."""


class Rows(Protocol):
    """Deltas by their index, in whatever order they came."""

    def block(self, index: int, start: int, stop: int) -> Vector:
        """Elements [start, stop) of one of them; not to be written to."""


class KeptRows:
    """Deltas of `size` elements, each kept as its encoding wants it.

    Args: folder: where temporary files may lie; stack: when they end; memory_bytes: `SPOOL_ABOVE_BYTES`.
    """

    def __init__(self, size: int, folder: Path, stack: ExitStack, memory_bytes: int | None = None) -> None:
        self._size = size
        most = SPOOL_ABOVE_BYTES if memory_bytes is None else memory_bytes
        self._decoded, self._sent = (_Room(4 * size, most, folder, stack) for _ in range(2))
        self._ways: dict[int, Blockwise] = {}
        self._last: dict[int, tuple[int, Vector]] = {}

    def keep(self, index: int, name: str, raw: memoryview) -> None:
        """Take a delta as it was sent. Raises: EncodingError: not what the encoding of this name gives. OSError."""
        way = blockwise(name)
        if way is None:
            row = encoding(name).decode(raw, self._size)
            self._decoded.write(index, memoryview(row.data).cast("B"))
        else:
            way.check(raw, self._size)
            self._sent.write(index, raw)
            self._ways[index] = way

    def block(self, index: int, start: int, stop: int) -> Vector:
        """Elements [start, stop) of one of them; not to be written to."""
        way = self._ways.get(index)
        if way is None:
            return np.frombuffer(self._decoded.read(index, 4 * start, 4 * stop), np.float32)
        first = start - start % way.block
        if stop - start >= way.block:
            return self._decode(way, index, first, stop)[start - first :]
        # Those who read a little at a time, of all deltas in turn, come back for the rest of the block.
        last = min(self._size, stop + -stop % way.block)
        known = self._last.get(index)
        if known is None or known[0] != first or known[1].size < last - first:
            known = self._last[index] = (first, self._decode(way, index, first, last))
        return known[1][start - first : stop - first]

    def _decode(self, way: Blockwise, index: int, start: int, stop: int) -> Vector:
        raw = b"".join(self._sent.read(index, *part) for part in way.cut(self._size, start, stop))
        return way.decode_checked(raw, stop - start)


class _Room:
    """Rows of bytes, in memory as far as that goes, the others in a file without a name.

    The file is read, not mapped: mapped pages would count as our memory.
    """

    def __init__(self, row_bytes: int, memory_bytes: int, folder: Path, stack: ExitStack) -> None:
        self._row_bytes, self._left = row_bytes, memory_bytes
        self._folder, self._stack = folder, stack
        self._held: dict[int, memoryview] = {}

    def write(self, index: int, raw: memoryview) -> None:
        if len(raw) <= self._left:
            self._held[index] = raw
            self._left -= len(raw)
            return
        offset = index * self._row_bytes
        while len(raw):
            written = os.pwrite(self._file, raw, offset)
            raw, offset = raw[written:], offset + written

    def read(self, index: int, start: int, stop: int) -> memoryview | bytes:
        if index in self._held:
            return self._held[index][start:stop]
        raw = os.pread(self._file, stop - start, index * self._row_bytes + start)
        if len(raw) != stop - start:
            raise OSError(f"the file of a round's updates ends after {len(raw)} bytes of a block")
        return raw

    @cached_property
    def _file(self) -> int:
        return self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder)).fileno()
