"""`headgate config access plant`: what an edge's own files need of its broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def rules_of(folder: Path, capsys: pytest.CaptureFixture[str], **settings: Any) -> dict[str, str]:
    """Mosquitto's rules by user, for one edge."""
    (folder / "signal-map.yaml").write_text(yaml.safe_dump(SIGNAL_MAP))
    edge = {
        "federation": "tiny", "participant": "berlin", "data_dir": "data", "signal_map": "signal-map.yaml",
        "broker": {"url": "mqtt://broker.example"}, **settings,
    }  # fmt: skip
    (folder / "edge.yaml").write_text(yaml.safe_dump(edge))
    assert main(["config", "access", "plant", "--edge", str(folder / "edge.yaml"), "--pause", "acme/pause"]) == 0
    rules = capsys.readouterr().out
    return {block.partition("\n")[0]: block for block in rules.split("\nuser ")[1:]}


def test_inference_may_be_written_where_the_configuration_puts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, root in (({}, "acme"), ({"out_root": "ai/headgate"}, "ai/headgate/acme")):
        users = rules_of(tmp_path, capsys, inference=settings)
        assert f"topic write {root}/+/_inference/tiny/+\n" in users["berlin"]
        assert f"topic write {root}/_inference/tiny/_edge/berlin/alive\n" in users["berlin"]


def test_sparkplug_nodes_are_read_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = rules_of(tmp_path, capsys)
    for topic in ("spBv1.0/acme/NCMD/+", "spBv1.0/STATE/headgate"):
        assert f"topic readwrite {topic}\n" in users["berlin"]
        assert f"topic read {topic}\n" in users["line"]  # a line can't say that its host is there
        assert f"topic read {topic}\n" in users["observer"]
    assert "topic read spBv1.0/acme/+/+/#\n" in users["berlin"]
    assert "topic write spBv1.0/acme/+/+/#\n" in users["line"]


def test_a_sparkplug_node_may_say_what_it_is_and_operators_may_command_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"group": "Headgate", "node": "berlin-1", "primary_host": "scada"}
    users = rules_of(tmp_path, capsys, inference={"sparkplug": node})
    for kind, rest in {"NBIRTH": "", "NDATA": "", "NDEATH": "", "DBIRTH": "/+", "DDATA": "/+", "DDEATH": "/+"}.items():
        topic = f"spBv1.0/Headgate/{kind}/berlin-1{rest}"
        assert f"topic write {topic}\n" in users["berlin"]
        assert f"topic read {topic}\n" in users["observer"]
    for topic in ("spBv1.0/Headgate/NCMD/berlin-1", "spBv1.0/STATE/scada"):
        assert f"topic read {topic}\n" in users["berlin"]
        assert f"topic readwrite {topic}\n" in users["operator"]
        assert f"topic read {topic}\n" in users["observer"]
        assert topic not in users["line"]
    assert "Headgate" not in users["line"]
