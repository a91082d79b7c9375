"""One strict zstd frame: nothing beside what it unpacks to, and nothing unpacked before its size is known."""

from __future__ import annotations

import contextlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from uns_topics.compression import CompressionError, compress, decompress

RAW = bytes(range(121)) * 3 + bytes(5000)


@pytest.mark.parametrize("raw", [b"a", bytes(255), bytes(256), RAW, bytes(range(256)) * 2000, bytes(70_000)])
def test_what_was_compressed_comes_back(raw: bytes) -> None:
    assert decompress(compress(raw), len(raw)) == raw
    assert decompress(memoryview(compress(raw)), len(raw)) == raw


def test_another_size_than_is_due_is_refused() -> None:
    for size in (len(RAW) - 1, len(RAW) + 1, 0):
        with pytest.raises(CompressionError, match="due"):
            decompress(compress(RAW), size)


SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"row1"


@pytest.mark.parametrize(
    "raw",
    [
        compress(RAW) + b"x",
        compress(RAW) + SKIPPABLE,
        SKIPPABLE + compress(RAW),
        compress(RAW) + compress(RAW),
        compress(RAW) + compress(b""),
        zstandard.ZstdCompressor(write_checksum=True).compress(RAW),
        zstandard.ZstdCompressor(write_content_size=False).compress(RAW),
        zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(RAW[:500]), write_dict_id=True).compress(RAW),
        compress(RAW)[:4] + bytes([compress(RAW)[4] | 0x10]) + compress(RAW)[5:],  # the unused bit
        b"",
        RAW,
    ],
)
def test_whatever_stands_beside_the_content_is_refused(raw: bytes) -> None:
    with pytest.raises(CompressionError):
        decompress(raw, len(RAW))


def test_a_row_of_empty_blocks_is_refused() -> None:
    """RFC 8878 allows blocks that hold nothing: how many there are would be a message."""
    raw = b"\x28\xb5\x2f\xfd" + bytes([0b0010_0000, 3])
    content = (3 << 3 | 1).to_bytes(3, "little") + b"abc"
    assert decompress(raw + content, 3) == b"abc"
    with pytest.raises(CompressionError, match="empty"):
        decompress(raw + bytes(3) + content, 3)


def test_every_truncation_is_refused() -> None:
    raw = compress(bytes(range(256)) * 1000)
    for cut in [*range(60), *range(60, len(raw), 13)]:
        with pytest.raises(CompressionError):
            decompress(raw[:cut], 256_000)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_mutated_frames_are_read_or_refused(at: int, noise: bytes) -> None:
    raw = bytearray(compress(RAW))
    at %= len(raw)
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(CompressionError):
        assert len(decompress(bytes(raw), len(RAW))) == len(RAW)
