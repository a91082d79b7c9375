"""Where NVFlare lies, in an environment of its own, for benchmarks."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.flower_environment import ROOT


def nvflare_python() -> Path | None:
    """Its interpreter; None where `scripts/setup-nvflare` has not run."""
    python = ROOT / os.environ.get("NVFLARE_VENV", ".venv-nvflare") / "bin" / "python"
    return python if python.exists() else None
