"""Base models of the end-to-end tests' contract, made by the command that users type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.federation import CONTRACT


def make_base_model(folder: Path, hidden: str, content: Mapping[str, Any] = CONTRACT) -> Path:
    """`headgate model new contract.yaml --kind mlp --hidden HIDDEN --out model.onnx` in a folder."""
    contract, out = folder / "contract.yaml", folder / "model.onnx"
    contract.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "headgate", "model", "new", str(contract), "--kind", "mlp", "--hidden", hidden]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return out
