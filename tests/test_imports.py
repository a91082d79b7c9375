"""The house's import rule: uns_topics, broker_bridge, {edge, aggregator}, headgate; torch in edge/training only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "uns_topics": set(),
    "broker_bridge": {"uns_topics"},
    "edge": {"uns_topics", "broker_bridge"},
    "aggregator": {"uns_topics", "broker_bridge"},
    "headgate": {"uns_topics", "broker_bridge", "edge", "aggregator"},
}
PURE = [
    "aggregator/reducer.py",
    "aggregator/gate.py",
    "aggregator/fold.py",
    "broker_bridge/assembly.py",
    "broker_bridge/backoff.py",
    "broker_bridge/bridge/canary.py",
    "broker_bridge/bridge/needles.py",
    "broker_bridge/inbox.py",
    "broker_bridge/outgoing.py",
    "broker_bridge/downloads.py",
    "edge/evaluation.py",
    "edge/ingest.py",
    "edge/effects.py",
    "edge/instances.py",
    "edge/metrics.py",
    "edge/outputs.py",
    "edge/participation.py",
    "edge/participation_effects.py",
    "edge/sparkplug.py",
    "edge/splits.py",
    *sorted(
        f"headgate/tree/{name}.py"
        for name in (
            "caps",
            "cells",
            "decode",
            "drawing",
            "fl",
            "leaf",
            "model",
            "reading",
            "rows",
            "sparkplug",
            "text",
        )
    ),
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "uns_topics").glob("*.py")),
]
IMPURE = {"asyncio", "socket", "time", "threading", "subprocess", "sqlite3", "os", "logging", "random", "secrets"}


def modules(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    forbidden = set(ALLOWED) - ALLOWED[package] - {package}
    assert {str(p.relative_to(ROOT)): bad for p in files if (bad := forbidden & set(modules(p)))} == {}


def test_torch_lives_in_edge_training_alone() -> None:
    files = [p for package in ALLOWED for p in (ROOT / package).rglob("*.py")]
    users = {str(p.relative_to(ROOT).parent) for p in files if {"torch", "onnxscript"} & set(modules(p))}
    assert users == {"edge/training"}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_core_has_no_clock_socket_or_file(name: str) -> None:
    assert IMPURE & set(modules(ROOT / name)) == set()


def test_wire_data_is_never_pickled() -> None:
    files = [p for package in ALLOWED for p in (ROOT / package).rglob("*.py")]
    assert {str(p): m for p in files if (m := {"pickle", "dill", "cloudpickle", "shelve"} & set(modules(p)))} == {}
