"""The base model of the end-to-end tests, made once by the command that users type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.federation import CONTRACT
from tests.servers import Server, mosquitto


@pytest.fixture
def broker() -> Iterator[Server]:
    """A Mosquitto of the test's own: retained messages of another test's federation would be believed."""
    with mosquitto() as server:
        yield server


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`headgate model new contract.yaml --kind mlp --out solder.onnx`."""
    folder = tmp_path_factory.mktemp("model")
    contract, out = folder / "contract.yaml", folder / "solder.onnx"
    contract.write_text(yaml.safe_dump(CONTRACT))
    command = [sys.executable, "-m", "headgate", "model", "new", str(contract), "--kind", "mlp", "--hidden", "16,8"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120)
    return out


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vector is several times larger than 64 KiB."""
    folder = tmp_path_factory.mktemp("wide-model")
    contract, out = folder / "contract.yaml", folder / "wide.onnx"
    contract.write_text(yaml.safe_dump(CONTRACT))
    command = [sys.executable, "-m", "headgate", "model", "new", str(contract), "--kind", "mlp", "--hidden", "256,256"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=120)
    return out
