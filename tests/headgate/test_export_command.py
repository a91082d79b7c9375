"""`headgate export`: from an edge's own files, with the instances that it knows."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from edge.effects import SampleReady
from edge.store import SampleStore
from headgate.cli import main
from headgate.exits import Exit
from tests.edge.exports.plants import BOARDS, INSTANCES, SIGNAL_MAP

TARGETS = ("ignition", "node-red", "telegraf", "grafana")


@pytest.fixture
def config(tmp_path: Path) -> str:
    edge = {
        "federation": "solder-defect", "participant": "berlin", "data_dir": "data", "signal_map": "signal-map.yaml",
        "contract": "contract.yaml", "broker": {"url": "mqtt://broker.example"},
    }  # fmt: skip
    for name, content in (("edge", edge), ("signal-map", SIGNAL_MAP), ("contract", BOARDS)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data").mkdir()
    return str(tmp_path / "edge.yaml")


def remember(config: str, *instances: str) -> SampleStore:
    """A store in use, as an edge's is that runs."""
    store = SampleStore(Path(config).parent / "data" / "samples.sqlite")
    values = np.array([1.0], np.float32)
    store.add([SampleReady(instance, "B1", 1.0, 1.0, "", "", 0, values, 2.0) for instance in instances])
    return store


def exported(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["export", *arguments]) == Exit.OK
    return capsys.readouterr().out


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_names_what_the_edge_has_seen(
    config: str, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    with remember(config, INSTANCES[0], "acme/an earlier map/line9"):
        text = exported(capsys, target, "--config", config)
    if target == "telegraf":
        tomllib.loads(text)
    else:
        json.loads(text)
    assert "earlier" not in text
    if target != "grafana":  # it asks the data source which instances there are
        assert "line1" in text
        assert "line 2" not in text


def test_named_instances_need_no_store(config: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "flow.json"
    named = [word for instance in INSTANCES for word in ("--instance", instance)]
    assert exported(capsys, "node-red", "--config", config, "--out", str(out), *named) == ""
    assert all(instance in out.read_text("utf-8") for instance in INSTANCES)
    assert exported(capsys, "node-red", "--config", config, *named) == out.read_text("utf-8")


def test_a_contract_that_a_plan_brought_is_used(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    edge = yaml.safe_load(Path(config).read_text())
    Path(config).write_text(yaml.safe_dump({**edge, "contract": None, "approve": "any"}))
    named = ["--instance", INSTANCES[0]]
    assert main(["export", "grafana", "--config", config, *named]) == Exit.NOT_FOUND
    assert "no contract is known yet" in capsys.readouterr().err
    with remember(config) as store:
        store.put("contract", json.dumps(BOARDS).encode())
        assert "Solder defects: berlin" in exported(capsys, "grafana", "--config", config, *named)


@pytest.mark.parametrize(("approve", "title"), [("any", "Boards of the plan"), ("contract", "Solder defects")])
def test_a_plans_word_counts_more_than_a_file_where_any_plan_is_followed(
    config: str, capsys: pytest.CaptureFixture[str], approve: str, title: str
) -> None:
    edge = yaml.safe_load(Path(config).read_text())
    Path(config).write_text(yaml.safe_dump({**edge, "approve": approve}))
    with remember(config) as store:
        store.put("contract", json.dumps({**BOARDS, "title": "Boards of the plan"}).encode())
    assert f"{title}: berlin" in exported(capsys, "grafana", "--config", config, "--instance", INSTANCES[0])


def test_what_mqtt_engine_needs_is_said_beside_the_tags(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "ignition", "--config", config, "--instance", INSTANCES[0]]) == Exit.OK
    said = capsys.readouterr().err
    assert f"  {INSTANCES[0]}/_inference/solder-defect/score\n" in said
    assert "each of . by _" in said


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ([], "no instance of 'acme/Werk Köln.2/smt/{line}' is known yet"),
        (["acme/elsewhere"], "'acme/elsewhere' is no instance of"),
    ],
)
def test_what_cannot_be_exported_ends_with_a_sentence(
    config: str, capsys: pytest.CaptureFixture[str], named: list[str], sentence: str
) -> None:
    words = [word for instance in named for word in ("--instance", instance)]
    assert main(["export", "telegraf", "--config", config, *words]) == Exit.USAGE
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_no_store(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(config).parent / "data" / "samples.sqlite").write_bytes(b"not a database" * 100)
    assert main(["export", "telegraf", "--config", config]) == Exit.USAGE
    assert "samples.sqlite" in capsys.readouterr().err
