"""`topk-sign` and `topk-int8`: the twentieth of the elements that is largest by magnitude; all others are zero.

Layout: count (uint32), scale (float32), then per kept element in order of position the low four bits of its gap to the
one before, then what is said of its value, then the gaps' high parts in unary: a Golomb-Rice code (Sattler et al. 2019,
arXiv:1903.02891, Algorithm 3) with its parts laid apart, so that numpy reads each at once. All little-endian; bits
fill a byte from its top.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from uns_topics.encoding_base import TINY, EncodingError, check_limit, checked_scales
from uns_topics.quantised import MAX_INT8
from uns_topics.sums import stable_sum
from uns_topics.tensors import Vector

ONE_IN = 20
_HEAD = struct.Struct("<If")
_LOW_BITS = 4
"""Optimal for gaps at 5 %: 1 + floor(log2(log(0.618) / log(0.95)))."""
Positions = npt.NDArray[np.int64]


def most_kept(elements: int) -> int:
    """The most elements that are kept."""
    return -(-elements // ONE_IN)


class TopK:
    """Positions and values of the largest elements.

    Args: values: how a kept element's value is said.
    """

    linear = False
    feedback = True

    def __init__(self, name: str, values: _Signs | _Int8Values) -> None:
        self.name = name
        self._values = values

    def max_bytes(self, elements: int) -> int:
        """As if every element that may be kept were."""
        kept = most_kept(elements)
        high = -(-((elements >> _LOW_BITS) + kept) // 8)
        return _HEAD.size + -(-kept // 2) + self._values.length(kept) + high

    def encode(self, values: Vector) -> bytes:
        """Of equal magnitudes the first ones are kept."""
        check_limit(values, self.name)
        positions = _largest(np.abs(values), most_kept(values.size))
        scale, kept, said = self._values.encode(values[positions])
        positions = positions[kept]
        return b"".join((_HEAD.pack(len(positions), scale), *_coded(positions, said)))

    def decode(self, raw: memoryview | bytes, elements: int) -> Vector:
        """Zeros, and the kept elements at their positions."""
        if not _HEAD.size <= len(raw) <= self.max_bytes(elements):
            raise EncodingError(f"{len(raw)} bytes of {self.name} for {elements} elements")
        count = _HEAD.unpack_from(raw)[0]
        scale = checked_scales(memoryview(raw)[4:], 1)[0]
        low_end = _HEAD.size + -(-count // 2)
        said_end = low_end + self._values.length(count)
        if count > most_kept(elements) or said_end > len(raw) or (count > 0) != bool(scale > 0):
            raise EncodingError(f"{count} kept elements of {elements} in {len(raw)} bytes of {self.name}")
        view = memoryview(raw)
        positions = _positions(view[_HEAD.size : low_end], view[said_end:], count)
        if count and positions[-1] >= elements:
            raise EncodingError(f"a kept element beyond the last of {elements}")
        values = np.zeros(elements, np.float32)
        values[positions] = self._values.decode(view[low_end:said_end], count) * scale
        return values


class _Signs:
    """One bit each; the shared magnitude is the mean."""

    def length(self, count: int) -> int:
        return -(-count // 8)

    def encode(self, kept: Vector) -> tuple[float, npt.NDArray[np.bool_], bytes]:
        mean = np.float32(float(stable_sum(np.abs(kept))) / max(1, kept.size))
        if mean < TINY:
            return 0.0, np.zeros(kept.size, np.bool_), b""
        return float(mean), np.ones(kept.size, np.bool_), np.packbits(kept < 0).tobytes()

    def decode(self, raw: memoryview, count: int) -> Vector:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8))
        if bits[count:].any():
            raise EncodingError("signs of more elements than are kept")
        return np.where(bits[:count], np.float32(-1), np.float32(1))


class _Int8Values:
    """One byte each, in steps of the largest magnitude / 127; what rounds to nothing is not kept."""

    def length(self, count: int) -> int:
        return count

    def encode(self, kept: Vector) -> tuple[float, npt.NDArray[np.bool_], bytes]:
        scale = np.abs(kept).max(initial=0) / np.float32(MAX_INT8)
        if scale < TINY:
            return 0.0, np.zeros(kept.size, np.bool_), b""
        steps = np.rint(kept / scale).astype(np.int8)
        return float(scale), steps != 0, steps[steps != 0].tobytes()

    def decode(self, raw: memoryview, count: int) -> Vector:
        steps = np.frombuffer(raw, np.int8)
        if count and (not steps.all() or (steps == -128).any() or not (np.abs(steps) == MAX_INT8).any()):
            raise EncodingError("a kept element is zero or -128, or none is the largest")
        return steps.astype(np.float32)


TOPK_SIGN = TopK("topk-sign", _Signs())
TOPK_INT8 = TopK("topk-int8", _Int8Values())


def _largest(sizes: Vector, count: int) -> Positions:
    """Positions of the `count` largest, in order; zeros are never among them."""
    if not count:
        return np.empty(0, np.int64)
    least = np.partition(sizes, sizes.size - count)[sizes.size - count]
    above = np.flatnonzero(sizes > least)
    if not least > 0:
        return above
    ties = np.flatnonzero(sizes == least)[: count - above.size]
    return np.sort(np.concatenate((above, ties)))


def _coded(positions: Positions, said: bytes) -> tuple[bytes, bytes, bytes]:
    """Low bits two to a byte, what is said of the values, and high parts: each as many zeros and a one."""
    gaps = np.diff(positions, prepend=-1) - 1
    low = np.zeros(positions.size + positions.size % 2, np.uint8)
    low[: positions.size] = gaps & ((1 << _LOW_BITS) - 1)
    ones = np.cumsum((gaps >> _LOW_BITS) + 1) - 1
    bits = np.zeros(int(ones[-1]) + 1 if ones.size else 0, np.uint8)
    bits[ones] = 1
    return (low[::2] << _LOW_BITS | low[1::2]).tobytes(), said, np.packbits(bits).tobytes()


def _positions(low: memoryview, high: memoryview, count: int) -> Positions:
    """Raises: EncodingError: not one code for each kept element, or bits that none uses."""
    pairs = np.frombuffer(low, np.uint8)
    lows = np.stack((pairs >> _LOW_BITS, pairs & ((1 << _LOW_BITS) - 1)), axis=1).ravel()
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(high, np.uint8)))
    if ones.size != count or lows[count:].any() or len(high) != (int(ones[-1]) // 8 + 1 if count else 0):
        raise EncodingError("positions of another number of elements than are kept")
    gaps = ((np.diff(ones, prepend=-1) - 1) << _LOW_BITS) + lows[:count]
    return np.cumsum(gaps + 1) - 1
