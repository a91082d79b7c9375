"""Base models of the end-to-end tests' contract, made by the command that users type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.federation import CONTRACT


def make_base_model(folder: Path, hidden: str) -> Path:
    """`headgate model new contract.yaml --kind mlp --hidden HIDDEN --out model.onnx` in a folder."""
    contract, out = folder / "contract.yaml", folder / "model.onnx"
    contract.write_text(yaml.safe_dump(CONTRACT))
    command = [sys.executable, "-m", "headgate", "model", "new", str(contract), "--kind", "mlp", "--hidden", hidden]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return out
