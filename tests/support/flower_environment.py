"""Where Flower lies, in an environment of its own: its pins (protobuf, rich, typer) are not ours."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def flower_python() -> Path | None:
    """Its interpreter; None where `scripts/setup-flower` has not run."""
    python = ROOT / os.environ.get("FLOWER_VENV", ".venv-flower") / "bin" / "python"
    return python if python.exists() else None
