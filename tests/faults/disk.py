"""A disk that fails at a chosen operation, and one that forgets what was not flushed when the power goes.

Both stand in for what `broker_bridge.durable` asks of the system: write, fsync, rename. SQLite keeps its own promise.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from broker_bridge import durable


class FailingDisk:
    """Raises at the operation with this number, counted from 1, and at all after it; 0: at none.

    Attributes: operations: how many there were.
    """

    def __init__(self, fails_at: int, number: int) -> None:
        self.operations = 0
        self._fails_at = fails_at
        self._error = number

    @contextmanager
    def mounted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """While this lasts, `durable` writes to it."""
        opened, renamed, flushed = os.fdopen, Path.replace, os.fsync

        def open_(descriptor: int, mode: str) -> Any:
            return _Filling(opened(descriptor, mode), self._tick)

        def replace(path: Path, target: Path) -> Path:
            self._tick()
            return renamed(path, target)

        def fsync(descriptor: int) -> None:
            self._tick()
            flushed(descriptor)

        with monkeypatch.context() as patched:
            patched.setattr(durable.os, "fdopen", open_)
            patched.setattr(Path, "replace", replace)
            patched.setattr(durable.os, "fsync", fsync)
            yield

    def _tick(self) -> None:
        self.operations += 1
        if self._fails_at and self.operations >= self._fails_at:
            raise OSError(self._error, os.strerror(self._error))


class _Filling:
    """A file of which half is written when the disk says no."""

    def __init__(self, file: Any, tick: Any) -> None:
        self._file = file
        self._tick = tick

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> int:
        self._file.write(content[: len(content) // 2])
        self._tick()
        self._file.write(content[len(content) // 2 :])
        return len(content)

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return int(self._file.fileno())


class PowerCut:
    """Follows what is on the platter of one folder, operation by operation.

    Attributes: states: two after each operation, of what a power cut may leave, as content by name: what was flushed
        alone; and with it each rename and removal that was not, where content that was not flushed is cut to nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.states: list[dict[str, bytes]] = []
        self._folder = folder
        self._durable = {path.name: path.read_bytes() for path in folder.iterdir()}
        self._seen = dict(self._durable)
        self._flushed: set[str] = set(self._durable)
        self._record()

    @contextmanager
    def mounted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """While this lasts, what is done to the folder is followed."""
        opened, renamed, removed, flushed = os.fdopen, Path.replace, Path.unlink, os.fsync

        def open_(descriptor: int, mode: str) -> Any:
            path = _path_of(descriptor)
            if path.parent == self._folder:
                self._seen[path.name] = b""
                self._flushed.discard(path.name)
                self._record()
            return opened(descriptor, mode)

        def replace(path: Path, target: Path) -> Path:
            found = renamed(path, target)
            self._seen[target.name] = self._seen.pop(path.name)
            (self._flushed.add if path.name in self._flushed else self._flushed.discard)(target.name)
            self._record()
            return found

        def unlink(path: Path, missing_ok: bool = False) -> None:
            removed(path, missing_ok=missing_ok)
            self._seen.pop(path.name, None)
            self._record()

        def fsync(descriptor: int) -> None:
            flushed(descriptor)
            path = _path_of(descriptor)
            if path == self._folder:
                self._durable = {n: self._seen[n] if n in self._flushed else b"" for n in self._seen}
            elif path.parent == self._folder:
                self._seen[path.name] = path.read_bytes()
                self._flushed.add(path.name)
            self._record()

        with monkeypatch.context() as patched:
            patched.setattr(durable.os, "fdopen", open_)
            patched.setattr(Path, "replace", replace)
            patched.setattr(Path, "unlink", unlink)
            patched.setattr(durable.os, "fsync", fsync)
            yield

    def _record(self) -> None:
        self.states.append(dict(self._durable))
        self.states.append({n: content if n in self._flushed else b"" for n, content in self._seen.items()})


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def materialise(state: dict[str, bytes], folder: Path) -> Path:
    """A folder as a power cut left it."""
    folder.mkdir()
    for name, content in state.items():
        with io.FileIO(folder / name, "w") as file:
            file.write(content)
    return folder
