"""Encodings: the papers' formulas on hand-sized numbers, one byte string per list of values, the same bits anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[attr-defined]

from uns_topics.encoding_base import LIMIT, TINY
from uns_topics.encodings import ENCODINGS, Encoding, EncodingError, blockwise, encoding
from uns_topics.quantised import BLOCK
from uns_topics.sparse import most_kept
from uns_topics.sums import stable_sum

LOSSY = tuple(e for e in ENCODINGS.values() if e.feedback)
SIZES = (0, 1, 2, 4, 5, 6, 19, 20, 21, 100, BLOCK - 1, BLOCK, BLOCK + 1, 33 * BLOCK + 7)


def values_of(size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, size) * 10.0 ** rng.integers(-6, 3, size)).astype(np.float32)


every = pytest.mark.parametrize("way", ENCODINGS.values(), ids=ENCODINGS)
lossy = pytest.mark.parametrize("way", LOSSY, ids=[e.name for e in LOSSY])


@every
@pytest.mark.parametrize("size", SIZES)
def test_every_size_fits_its_bound_and_comes_back(way: Encoding, size: int) -> None:
    values = np.clip(values_of(size, size), -60_000, 60_000)
    raw = way.encode(values)
    assert len(raw) <= way.max_bytes(size)
    decoded = way.decode(raw, size)
    assert decoded.dtype == np.float32
    assert decoded.shape == (size,)
    assert way.encode(values) == raw
    np.testing.assert_array_equal(way.decode(memoryview(raw), size), decoded)


@lossy
@pytest.mark.parametrize("size", [n for n in SIZES if n])
@pytest.mark.parametrize("kind", ["mixed", "equal", "one", "tail", "uniform"])
def test_every_step_brings_the_residual_nearer(way: Encoding, size: int, kind: str) -> None:
    """A contraction (Karimireddy et al. 2019, Assumption A): |x - C(x)|^2 < |x|^2, whatever the values are."""
    rng = np.random.default_rng(size)
    values = {
        "mixed": values_of(size, size),
        "equal": np.where(rng.random(size) < 0.5, -0.003, 0.003).astype(np.float32),
        "one": np.eye(1, size, size // 2, dtype=np.float32)[0] * -5,
        "tail": np.exp(rng.normal(0, 4, size)).astype(np.float32),
        "uniform": rng.uniform(-1, 1, size).astype(np.float32),
    }[kind]
    left = values.astype(np.float64) - way.decode(way.encode(values), size)
    assert np.square(left).sum() < np.square(values, dtype=np.float64).sum()


@pytest.mark.parametrize("name", ["int8", "ternary"])
@pytest.mark.parametrize("size", [n for n in SIZES if n])
def test_what_is_cut_out_decodes_to_the_same_bits(name: str, size: int) -> None:
    way = blockwise(name)
    assert way is not None
    raw = way.encode(values_of(size, size))
    whole = way.decode(raw, size)
    starts = range(0, size, 7 * way.block)
    for start, stop in [(s, e) for s in starts for e in (s + 1, s + way.block + 3, size) if e <= size]:
        pieces = b"".join(raw[first:end] for first, end in way.cut(size, start, stop))
        np.testing.assert_array_equal(way.decode_checked(pieces, stop - start), whole[start:stop])


def test_int8_is_the_nearest_step_of_the_largest_over_127() -> None:
    values = np.array([1.27, -0.634, 0.004, 0.0], np.float32)
    scale = np.float32(1.27) / np.float32(127)
    expected = struct.pack("<f", scale) + np.array([127, -63, 0, 0], np.int8).tobytes()
    assert encoding("int8").encode(values) == expected
    np.testing.assert_array_equal(encoding("int8").decode(expected, 4), np.array([127, -63, 0, 0], np.float32) * scale)


def test_ternary_keeps_what_is_far_above_the_mean() -> None:
    values = np.array([3.0, -0.25, 0.25, -2.0, 0.5, 0.0], np.float32)
    # The mean magnitude is 1, 1.4 means are 1.4, half the largest 1.5: 3 and -2 are kept, and their mean is 2.5.
    trits = [1, 0, 0, -1, 0, 0]
    packed = [sum((t + 1) * 3**i for i, t in enumerate(trits[:5])), 1 + 3 + 9 + 27 + 81]
    expected = struct.pack("<f", 2.5) + bytes(packed)
    assert encoding("ternary").encode(values) == expected
    assert encoding("ternary").decode(expected, 6).tolist() == [2.5, 0, 0, -2.5, 0, 0]


def test_ternary_of_equal_magnitudes_keeps_all() -> None:
    values = np.array([0.5, -0.5, 0.5, -0.5], np.float32)
    np.testing.assert_array_equal(encoding("ternary").decode(encoding("ternary").encode(values), 4), values)


def test_each_block_has_its_own_scale() -> None:
    values = np.concatenate((np.full(BLOCK, 1e-3), np.full(BLOCK, 1e3), np.zeros(10))).astype(np.float32)
    for name in ("int8", "ternary"):
        np.testing.assert_allclose(encoding(name).decode(encoding(name).encode(values), values.size), values, rtol=1e-6)


def test_topk_sign_says_where_and_which_sign_and_the_mean() -> None:
    values = np.zeros(60, np.float32)
    values[[2, 21, 40, 59]] = [1.0, -3.0, 2.0, -4.0]  # 60 / 20 = 3 are kept: 21, 40, 59
    low = bytes([(21 & 15) << 4 | (18 & 15), (18 & 15) << 4])  # gaps 21, 18 and 18
    signs = bytes([0b1010_0000])
    high = bytes([0b0101_0100])  # 21 >> 4 = 1, 18 >> 4 = 1 twice: 01 01 01
    expected = struct.pack("<If", 3, 3.0) + low + signs + high
    assert encoding("topk-sign").encode(values) == expected
    decoded = encoding("topk-sign").decode(expected, 60)
    assert decoded[[21, 40, 59]].tolist() == [-3.0, 3.0, -3.0]
    assert np.count_nonzero(decoded) == 3


def test_topk_int8_says_steps_and_leaves_out_what_rounds_to_nothing() -> None:
    values = np.zeros(60, np.float32)
    values[[2, 21, 59]] = [127.0, -64.0, 0.25]
    expected = struct.pack("<If", 2, 1.0) + bytes([2 << 4 | (18 & 15)]) + np.array([127, -64], np.int8).tobytes()
    expected += bytes([0b1010_0000])  # 2 >> 4 = 0 and 18 >> 4 = 1: 1 01
    assert encoding("topk-int8").encode(values) == expected
    assert encoding("topk-int8").decode(expected, 60)[[2, 21, 59]].tolist() == [127.0, -64.0, 0.0]


def test_of_equal_magnitudes_the_first_are_kept() -> None:
    for name in ("topk-sign", "topk-int8"):
        decoded = encoding(name).decode(encoding(name).encode(np.full(100, -0.5, np.float32)), 100)
        assert np.flatnonzero(decoded).tolist() == list(range(most_kept(100)))


@lossy
def test_zeros_and_subnormals_decode_to_plain_zeros(way: Encoding) -> None:
    for values in (np.zeros(50), np.full(50, -0.0), np.full(50, 1e-42), np.full(50, float(TINY) / 2)):
        decoded = way.decode(way.encode(values.astype(np.float32)), 50)
        assert decoded.view(np.uint32).tolist() == [0] * 50


@lossy
def test_the_largest_values_pass_and_larger_ones_do_not(way: Encoding) -> None:
    at_limit = np.array([np.nextafter(np.float32(LIMIT), np.float32(0)), -1e35, 0], np.float32)
    assert np.isfinite(way.decode(way.encode(at_limit), 3)).all()
    for value in (1e38, -1e38, np.inf, -np.inf, np.nan):
        with pytest.raises(EncodingError, match=way.name):
            way.encode(np.array([0, value, 1], np.float32))


@lossy
def test_every_truncation_and_every_byte_too_many_is_refused(way: Encoding) -> None:
    raw = way.encode(values_of(150))
    for cut in range(len(raw)):
        with pytest.raises(EncodingError):
            way.decode(raw[:cut], 150)
    for more in (b"\0", b"\x80", bytes(200)):
        with pytest.raises(EncodingError):
            way.decode(raw + more, 150)


@lossy
@pytest.mark.parametrize("size", [1, 3, 40, 41, 200, BLOCK + 3])
def test_no_bit_is_free(way: Encoding, size: int) -> None:
    """Whichever bit is changed, it is refused or other values come out: nothing can be hidden beside the values."""
    raw = way.encode(values_of(size, size))
    meant = way.decode(raw, size).tobytes()
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(EncodingError):
            assert way.decode(bytes(changed), size).tobytes() != meant


def test_one_list_of_values_has_one_byte_string() -> None:
    """Of all byte strings with one scale for few elements, no two that are read give the same values."""
    scale = struct.pack("<f", 0.5)
    trits = [scale + bytes([packed]) for packed in range(256)]
    assert _read("ternary", trits, 4) == (3**4 - 1, 3**4 - 1)  # every choice but all zeros
    one_of_twenty = [
        struct.pack("<If", 1, 0.5) + bytes([low, sign, high])
        for low in range(256)
        for sign in (0, 128, 64, 1)
        for high in (0, 1, 32, 64, 96, 128, 192, 255)
    ]
    assert _read("topk-sign", one_of_twenty, 20) == (40, 40)  # every place with either sign


def _read(name: str, candidates: list[bytes], size: int) -> tuple[int, int]:
    """How many are read, and how many different values come of them."""
    found = []
    for raw in candidates:
        with contextlib.suppress(EncodingError):
            found.append(encoding(name).decode(raw, size).tobytes())
    return len(found), len(set(found))


@lossy
@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=120), size=st.integers(0, 100))
def test_any_bytes_are_read_or_refused(way: Encoding, raw: bytes, size: int) -> None:
    with contextlib.suppress(EncodingError):
        assert way.decode(raw, size).shape == (size,)


@lossy
def test_scales_that_are_no_scales_are_refused(way: Encoding) -> None:
    raw = way.encode(values_of(100))
    at = 4 if way.name.startswith("topk") else 0
    for scale in (-0.0, -1.0, 1e-42, np.inf, np.nan):
        with pytest.raises(EncodingError, match="scale"):
            way.decode(raw[:at] + struct.pack("<f", scale) + raw[at + 4 :], 100)


def test_a_stable_sum_is_right_and_of_one_order() -> None:
    for length in (1, 2, 3, 7, 2560):
        values = values_of(length)
        assert stable_sum(values) == pytest.approx(float(np.sum(values, dtype=np.float64)), rel=1e-12)
    assert stable_sum(np.empty(0, np.float32)) == 0
    # ((1e16 + 1) + (-1e16)): the one is lost only in this order, halves first
    assert stable_sum(np.array([2.0**60, 1.0, -(2.0**60)], np.float32)) == 1.0


_HASHES = """
import hashlib, numpy as np
from uns_topics.encodings import ENCODINGS
values = np.random.default_rng(1).normal(0, 0.01, 100_003).astype(np.float32)
digest = hashlib.sha256()
for way in ENCODINGS.values():
    raw = way.encode(values)
    digest.update(raw)
    digest.update(way.decode(raw, values.size).tobytes())
print(digest.hexdigest())
"""


def test_other_kernels_give_the_same_bits() -> None:
    """numpy chooses its loops by what the CPU has: with the wide ones switched off the bits stay."""
    values = np.random.default_rng(1).normal(0, 0.01, 100_003).astype(np.float32)
    here = hashlib.sha256()
    for way in ENCODINGS.values():
        raw = way.encode(values)
        here.update(raw)
        here.update(way.decode(raw, values.size).tobytes())
    features = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
    there = subprocess.run(
        [sys.executable, "-c", _HASHES],
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": features},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert there.stdout.strip() == here.hexdigest()
