"""Programs that interoperability tests need. In CI each must be there; elsewhere it may be skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
_SBIN = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


def program(name: str) -> str:
    """The path of a program, or the end of the test."""
    found = shutil.which(name) or shutil.which(name, path=_SBIN)
    return found or _missing(name)


def node_module(name: str) -> Path:
    """The folder of a package from npm, or the end of the test."""
    found = MODULES / name
    return found if found.is_dir() else Path(_missing(f"npm package {name}"))


def first_of(pattern: str, root: str, name: str) -> Path:
    """The only path that matches, or the end of the test."""
    found = sorted(Path(root).glob(pattern))
    return found[-1] if found else Path(_missing(name))


def _missing(name: str) -> str:
    reason = f"{name} is not installed: scripts/need-interop-programs"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
