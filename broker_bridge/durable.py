"""Files that are there whole or not at all, whatever ends the process or the power.

A temporary name, fsync, rename, fsync of the folder: a rename alone may reach the disk before the content does (Pillai
et al. 2014, "All File Systems Are Not Created Equal", section 4).
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """On disk under its name when this returns; what was there stays until then. Raises: OSError, leaving no part.

    Args: mode: of a new file, less the umask.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_in_place(part: Path, path: Path) -> None:
    """The same for a file that is written already, on the same file system. Raises: OSError."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names that were added to a folder, or taken from it, are on disk when this returns. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
