"""Vector files: written whole or not at all, checked when read, and a directory that one process holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from aggregator.vectors import DirectoryInUse, DirectoryLock, VectorError, VectorFiles
from uns_topics.tensors import vector_bytes


def test_a_vector_file_is_checked_when_read(tmp_path: Path) -> None:
    files = VectorFiles(tmp_path)
    vector = np.arange(5, dtype=np.float32)
    sha256 = files.write(3, vector)
    path = files.path(3, sha256)
    assert re.fullmatch(r"3-[0-9a-f]{16}\.f32", path.name)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(files.read(3, sha256, 5), vector)
    for content in (path.read_bytes()[:-1], vector_bytes(vector + 1), vector_bytes(vector * np.float32(np.nan))):
        path.write_bytes(content)
        with pytest.raises(VectorError):
            files.read(3, sha256, 5)
    path.unlink()
    with pytest.raises(VectorError, match="missing"):
        files.read(3, sha256, 5)


def test_only_older_vectors_are_pruned(tmp_path: Path) -> None:
    files = VectorFiles(tmp_path)
    shas = {version: files.write(version, np.full(3, version, np.float32)) for version in (1, 2, 10, 11)}
    (tmp_path / "12-0123456789abcdef.part").write_bytes(b"being written")
    assert files.prune([(10, shas[10]), (2, shas[2])]) == 1
    assert sorted(p.name.split("-")[0] for p in tmp_path.iterdir()) == ["10", "11", "12", "2"]


def test_a_directory_is_held_once(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(DirectoryInUse), DirectoryLock(tmp_path):
        pass
    with DirectoryLock(tmp_path):
        pass
