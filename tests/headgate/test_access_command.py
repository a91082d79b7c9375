"""`headgate config access plant`: what an edge's own files need of its broker."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headgate.cli import main

SIGNAL_MAP = {
    "instance": "acme/{line}",
    "sparkplug": {"host": "headgate"},
    "sources": [
        {
            "topic": f"spBv1.0/acme/+/{{line}}/{device}",
            "form": "sparkplug",
            "features": [{"feature": device, "field": "Value", "unit": "%"}],
        }
        for device in ("oven", "press")
    ],
}


def test_sparkplug_nodes_are_read_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "signal-map.yaml").write_text(yaml.safe_dump(SIGNAL_MAP))
    edge = {
        "federation": "tiny", "participant": "berlin", "data_dir": "data", "signal_map": "signal-map.yaml",
        "broker": {"url": "mqtt://broker.example"},
    }  # fmt: skip
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump(edge))
    assert main(["config", "access", "plant", "--edge", str(tmp_path / "edge.yaml"), "--pause", "acme/pause"]) == 0
    rules = capsys.readouterr().out
    users = {block.partition("\n")[0]: block for block in rules.split("\nuser ")[1:]}
    for topic in ("spBv1.0/acme/NCMD/+", "spBv1.0/STATE/headgate"):
        assert f"topic readwrite {topic}\n" in users["berlin"]
        assert f"topic read {topic}\n" in users["line"]  # a line can't say that its host is there
        assert f"topic read {topic}\n" in users["observer"]
    assert "topic read spBv1.0/acme/+/+/#\n" in users["berlin"]
    assert "topic write spBv1.0/acme/+/+/#\n" in users["line"]
