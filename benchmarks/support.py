"""What the benchmarks share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.federation import CONTRACT


def row(name: str, value: str) -> None:
    """One printed figure."""
    print(f"{name:62} {value:>14}", flush=True)


def make_base_model(folder: Path, hidden: str) -> Path:
    """A base model of the end-to-end tests' contract, by the command that users type."""
    contract, out = folder / "contract.yaml", folder / "model.onnx"
    contract.write_text(yaml.safe_dump(CONTRACT))
    command = [sys.executable, "-m", "headgate", "model", "new", str(contract), "--kind", "mlp", "--hidden", hidden]
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out
