"""What is kept of updates until the fold: the same bits whatever is read, in memory and from a file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from aggregator.kept import KeptRows
from uns_topics.encodings import ENCODINGS, EncodingError, encoding
from uns_topics.quantised import BLOCK

SIZE = 5 * BLOCK + 123
RANGES = [
    (0, SIZE),
    (0, 1),
    (1, 7),
    (7, 9),
    (BLOCK - 1, BLOCK + 1),
    (BLOCK - 1, 3 * BLOCK),
    (64, SIZE),
    (SIZE - 1, SIZE),
]


@pytest.mark.parametrize("room", [0, 30_000, 10**9])
def test_every_encoding_is_read_back_piece_by_piece(room: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        rows, expected = KeptRows(SIZE, tmp_path, stack, room), {}
        for index, name in enumerate((*ENCODINGS, *ENCODINGS)):
            raw = encoding(name).encode(rng.normal(0, 1, SIZE).astype(np.float32))
            rows.keep(index, name, memoryview(raw))
            expected[index] = encoding(name).decode(raw, SIZE)
        for start, stop in RANGES:
            for index, values in expected.items():
                np.testing.assert_array_equal(rows.block(index, start, stop), values[start:stop])
    assert not list(tmp_path.iterdir())


def test_bytes_that_no_encoding_gives_are_refused(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rows = KeptRows(10, tmp_path, stack)
        for name in ENCODINGS:
            with pytest.raises(EncodingError):
                rows.keep(0, name, memoryview(b"\xff" * 7))
