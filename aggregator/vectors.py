"""Vector files: one per version, written whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from broker_bridge.durable import write_whole
from uns_topics.tensors import Vector, vector_bytes, vector_from_bytes, vector_sha256

VECTORS = "vectors"
"""Their folder in an aggregator's data directory."""


class VectorError(Exception):
    """A vector file that is missing, or that is not what its name says."""


class DirectoryInUse(Exception):
    """Another process holds the data directory."""


class VectorFiles:
    """`<folder>/<version>-<sha16>.f32`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, version: int, sha256: str) -> Path:
        """Where this version's vector lies."""
        return self._folder / f"{version}-{sha256[:16]}.f32"

    def write(self, version: int, vector: Vector) -> str:
        """Write durably. Returns: its SHA-256."""
        sha256 = vector_sha256(vector)
        write_whole(self.path(version, sha256), vector_bytes(vector))
        return sha256

    def read(self, version: int, sha256: str, size: int) -> Vector:
        """A version's vector. Raises: VectorError: missing, cut off or changed."""
        path = self.path(version, sha256)
        try:
            vector = vector_from_bytes(path.read_bytes(), size)
        except FileNotFoundError:
            raise VectorError(f"{path}: the vector of version {version} is missing") from None
        except ValueError as error:
            raise VectorError(f"{path}: {error}") from None
        if vector_sha256(vector) != sha256:
            raise VectorError(f"{path}: differs from the SHA-256 of version {version}")
        return vector

    def prune(self, kept: Collection[tuple[int, str]]) -> int:
        """Remove the files of versions older than all of these; returns how many.

        Newer ones stay, known or not: a vector lies here before its version is recorded.
        """
        oldest = min(version for version, _ in kept)
        gone = [path for path in self._folder.glob("*-*.*") if int(path.name.partition("-")[0]) < oldest]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)


class DirectoryLock:
    """Holds a data directory for one process: two aggregators on one store would both be right.

    Raises: DirectoryInUse, on entering.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: int | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            self._file = None
            raise DirectoryInUse(f"{self._path.parent}: another aggregator is running on this directory") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
