"""The file in which a running edge keeps its problems for `headgate edge problems`: the shell around `ProblemLog`."""

from __future__ import annotations

import logging
from pathlib import Path

from broker_bridge.durable import write_whole
from edge.problem_log import ProblemLog

FILE = "problems.json"
MAX_FILE_BYTES = 8 * 1024 * 1024

log = logging.getLogger("headgate.edge")


def read_problems(data_dir: Path) -> ProblemLog:
    """What the edge of this directory has found; empty without a file. Raises: OSError; ValueError: no such file."""
    path = data_dir / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ProblemLog()
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{path} is larger than any list of problems")
    return ProblemLog.load(raw)


def known_problems(data_dir: Path) -> ProblemLog:
    """The same for the edge itself, which begins anew where the file can't be used."""
    try:
        return read_problems(data_dir)
    except (OSError, ValueError) as error:
        log.warning("%s can't be used and is begun anew: %s", data_dir / FILE, error)
        return ProblemLog()


def write_problems(data_dir: Path, raw: bytes) -> None:
    """Replace the file in one step; readable by its owner alone, since it holds payloads. Raises: OSError."""
    write_whole(data_dir / FILE, raw, mode=0o600)
