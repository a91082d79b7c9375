"""`int8` and `ternary`: every element in few bits, times a scale per block of neighbours.

Layout: scales (float32, little-endian), then elements. A block whose elements are all zero has the scale +0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from uns_topics.encoding_base import TINY, EncodingError, check_limit, checked_scales
from uns_topics.sums import stable_sum
from uns_topics.tensors import Vector

BLOCK = 2560
"""Elements under one scale: layers differ in size, and 4 bytes per 2560 elements are little. 512 bytes of trits."""
_BATCH = 32
"""Blocks worked on at once: what is in between stays in the cache."""
MAX_INT8 = 127
TERNARY_THRESHOLD = 1.4
"""Times the mean magnitude of a block. Ternary weight networks (Li et al. 2016, arXiv:1605.04711) use 0.7, which keeps
more energy in one step (81 against 69 % of a normal distribution); at 1.4 three of four trits are zero, zstd then takes
a quarter off, and error feedback sends the rest later."""
_TRITS = 5
_STATES = 3**_TRITS
_POWERS = tuple(3**i for i in range(_TRITS))
_UNPACKED = np.array([[b // p % 3 - 1 for p in _POWERS] for b in range(_STATES)], np.float32)
_PAIR = np.dtype(f"V{2 * _TRITS * 4}")
"""The float32 of two bytes' trits, moved as one piece."""
_ALL_ZERO = sum(_POWERS)
Element = TypeVar("Element", np.float32, np.int8)


class Int8:
    """Symmetric: the largest magnitude of a block is 127 steps of its scale."""

    name = "int8"
    linear = False
    feedback = True
    block = BLOCK

    def max_bytes(self, elements: int) -> int:
        """Four bytes per block and one per element."""
        return 4 * _blocks(elements) + elements

    def encode(self, values: Vector) -> bytes:
        """Round to the nearest step, half to even."""
        check_limit(values, self.name)
        scales = np.empty(_blocks(values.size), np.float32)
        steps = np.empty(values.size, np.int8)
        for part, rows, of in _batches(values):
            scale = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(MAX_INT8)
            scale[scale < TINY] = 0
            divisor = np.where(scale > 0, scale, np.float32(np.inf))  # nothing is left of what has no scale
            steps[part] = np.rint(rows / divisor[:, None]).ravel()[: part.stop - part.start]
            scales[of] = scale
        return scales.astype("<f4").tobytes() + steps.tobytes()

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Step times scale."""
        self.check(raw, elements)
        return self.decode_checked(raw, elements)

    def check(self, raw: memoryview | bytes, elements: int) -> None:
        """Raises: EncodingError: wrong length, or bytes that `encode` never gives."""
        if len(raw) != self.max_bytes(elements):
            raise EncodingError(f"{len(raw)} bytes of int8 for {elements} elements")
        scales = checked_scales(raw, _blocks(elements))
        for _, rows, of in _batches(np.frombuffer(raw, np.int8, offset=scales.nbytes)):
            if (rows == -128).any():
                raise EncodingError("int8 has no -128")
            used = np.maximum(rows.max(axis=1), -rows.min(axis=1))
            if (used != np.where(scales[of] > 0, MAX_INT8, 0)).any():
                raise EncodingError("a block of int8 whose scale is not that of its largest element")

    def cut(self, elements: int, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Scales and steps of a run of elements."""
        first = 4 * _blocks(elements)
        return (4 * (start // BLOCK), 4 * _blocks(stop)), (first + start, first + stop)

    def decode_checked(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Step times scale, of what `check` let pass."""
        scales = np.frombuffer(raw, "<f4", _blocks(elements))
        steps = np.frombuffer(raw, np.int8, offset=scales.nbytes)
        values = np.empty(elements, np.float32)
        for part, of in _runs(elements):
            _scale(steps[part], scales[of], values[part])
        return values


class Ternary:
    """-1, 0 or 1 times a scale: the mean magnitude of what is kept, as in sparse ternary compression (Sattler et al.
    2019, arXiv:1903.02891). Five trits to a byte, the first one lowest."""

    name = "ternary"
    linear = False
    feedback = True
    block = BLOCK

    def max_bytes(self, elements: int) -> int:
        """Four bytes per block and one per five elements."""
        return 4 * _blocks(elements) + -(-elements // _TRITS)

    def encode(self, values: Vector) -> bytes:
        """Keep what is at least `TERNARY_THRESHOLD` means, or half the largest where that is less: never nothing."""
        check_limit(values, self.name)
        scales = np.zeros(_blocks(values.size), np.float32)
        packed = np.empty(-(-values.size // _TRITS), np.uint8)
        for part, rows, of in _batches(values):
            sizes = np.abs(rows)
            count = np.full(len(rows), BLOCK, np.float64)
            count[-1] = (part.stop - part.start) - BLOCK * (len(rows) - 1)
            threshold = np.minimum(TERNARY_THRESHOLD * (stable_sum(sizes) / count), sizes.max(axis=1) / 2.0)
            kept = (sizes >= threshold[:, None]) & (sizes > 0)
            number = np.count_nonzero(kept, axis=1)
            scale = (stable_sum(np.where(kept, sizes, np.float32(0))) / np.maximum(number, 1)).astype(np.float32)
            scale[scale < TINY] = 0
            kept &= scale[:, None] > 0
            trits = 1 + kept.view(np.int8) * np.where(rows < 0, np.int8(-1), np.int8(1))
            fives = trits.view(np.uint8).reshape(-1, _TRITS)
            last = fives[:, _TRITS - 1] * np.uint8(_POWERS[-1])
            for digit in range(_TRITS - 1):
                last += fives[:, digit] * np.uint8(_POWERS[digit])
            start = part.start // _TRITS
            stop = -(-part.stop // _TRITS)
            packed[start:stop] = last[: stop - start]
            scales[of] = scale
        return scales.astype("<f4").tobytes() + packed.tobytes()

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Trit times scale."""
        self.check(raw, elements)
        return self.decode_checked(raw, elements)

    def check(self, raw: memoryview | bytes, elements: int) -> None:
        """Raises: EncodingError: wrong length, or bytes that `encode` never gives."""
        if len(raw) != self.max_bytes(elements):
            raise EncodingError(f"{len(raw)} bytes of ternary for {elements} elements")
        scales = checked_scales(raw, _blocks(elements))
        packed = np.frombuffer(raw, np.uint8, offset=scales.nbytes)
        if packed.size and packed.max() >= _STATES:
            raise EncodingError(f"a byte of ternary above {_STATES - 1}")
        if elements % _TRITS and _UNPACKED[packed[-1], elements % _TRITS :].any():
            raise EncodingError("the last byte of ternary holds more elements than there are")
        is_used = np.logical_or.reduceat(packed != _ALL_ZERO, np.arange(0, packed.size, BLOCK // _TRITS))
        if packed.size and (is_used != (scales > 0)).any():
            raise EncodingError("a block of ternary has a scale exactly where an element is not zero")

    def cut(self, elements: int, start: int, stop: int) -> tuple[tuple[int, int], ...]:
        """Scales and packed trits of a run of elements."""
        first = 4 * _blocks(elements)
        return (4 * (start // BLOCK), 4 * _blocks(stop)), (first + start // _TRITS, first + -(-stop // _TRITS))

    def decode_checked(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Trit times scale, of what `check` let pass."""
        scales = np.frombuffer(raw, "<f4", _blocks(elements))
        packed = np.frombuffer(raw, np.uint8, offset=scales.nbytes)
        if packed.size % 2:
            packed = np.append(packed, np.uint8(_ALL_ZERO))
        indices, table = packed.view("<u2"), _pairs()
        values = np.empty(indices.size * 2 * _TRITS, np.float32)
        for part, of in _runs(elements):
            pieces = slice(part.start // (2 * _TRITS), -(-part.stop // (2 * _TRITS)))
            np.take(table, indices[pieces], out=values.view(_PAIR)[pieces], mode="clip")
            _scale(values[part], scales[of], values[part])
        return values[:elements]


@cache
def _pairs() -> npt.NDArray[np.void]:
    """The trits of every two bytes, the first byte lowest: 2.6 MB, of which a few hundred entries are used often."""
    each = np.concatenate((_UNPACKED, np.zeros((256 - _STATES, _TRITS), np.float32)))
    first, second = np.tile(each, (256, 1)), np.repeat(each, 256, axis=0)
    return np.concatenate((first, second), axis=1).view(_PAIR).ravel()


def _scale(values: npt.NDArray[np.float32] | npt.NDArray[np.int8], scales: Vector, out: Vector) -> None:
    """Each block times its scale."""
    whole = values.size - values.size % BLOCK
    np.multiply(values[:whole].reshape(-1, BLOCK), scales[: whole // BLOCK, None], out=out[:whole].reshape(-1, BLOCK))
    if whole < values.size:
        np.multiply(values[whole:], scales[-1], out=out[whole:])


def _runs(elements: int) -> Iterator[tuple[slice, slice]]:
    """A few blocks at a time: which elements they are, and which blocks."""
    for first in range(0, _blocks(elements), _BATCH):
        last = min(first + _BATCH, _blocks(elements))
        yield slice(first * BLOCK, min(last * BLOCK, elements)), slice(first, last)


def _blocks(elements: int) -> int:
    return -(-elements // BLOCK)


def _rows(values: npt.NDArray[Element]) -> npt.NDArray[Element]:
    """Values as rows of one block each, the last one filled with zeros."""
    if values.size % BLOCK:
        padded = np.zeros(_blocks(values.size) * BLOCK, values.dtype)
        padded[: values.size] = values
        values = padded
    return values.reshape(-1, BLOCK)


def _batches(values: npt.NDArray[Element]) -> Iterator[tuple[slice, npt.NDArray[Element], slice]]:
    """A few blocks at a time: which elements they are, as rows, and which blocks."""
    for part, of in _runs(values.size):
        yield part, _rows(values[part]), of
