"""One writer per sample store: a lock of the operating system, which ends with its process however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class StoreLocked(Exception):
    """Another process writes to this store."""


class StoreLock:
    """The lock of one store, in a file beside it. Raises: StoreLocked; OSError: the folder can't be written."""

    def __init__(self, store: Path) -> None:
        path = store.with_name(f"{store.name}.lock")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise StoreLocked(f"{store}: another process writes to it") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # some network file systems have no locks: go on as without one
                os.close(self._file)
                raise

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
