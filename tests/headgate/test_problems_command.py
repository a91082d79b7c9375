"""`headgate edge problems`: a table or JSON, exit codes, and nothing that a terminal or rich would obey."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from edge.effects import Problem
from edge.problem_file import FILE, write_problems
from edge.problem_log import ProblemLog
from headgate.cli import main

TOPIC = "acme/berlin/[red]line 1/spi"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "edge.yaml"
    content = {
        "federation": "tiny", "participant": "berlin", "data_dir": "data", "broker": {"url": "mqtt://127.0.0.1:1"},
        "signal_map": "map.yaml", "approve": "any",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def keep(folder: Path, *payloads: bytes, good: bytes | None = b'{"h": 1.5}') -> None:
    log = ProblemLog()
    if good is not None:
        log.took(TOPIC, good, 1_700_000_000.0)
    for payload in payloads:
        log.refused(TOPIC, payload, [Problem("undecodable", TOPIC, "not JSON")], 1_700_000_060.0)
    folder.mkdir(exist_ok=True)
    write_problems(folder, log.dump())


def test_a_directory_without_an_edge_is_not_found(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge", "problems", "--config", str(config)]) == 3
    assert "no edge has run on this directory" in capsys.readouterr().err


def test_without_problems_it_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "data").mkdir()
    assert main(["edge", "problems", "--config", str(config)]) == 0
    assert "No problems" in capsys.readouterr().out
    assert main(["edge", "problems", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"topics": [], "forgotten": 0}


def test_problems_are_shown_with_both_payloads(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(config.parent / "data", b"{", b'{"h": 1.5')
    assert main(["edge", "problems", "--config", str(config)]) == 6
    shown = capsys.readouterr().out
    assert "undecodable" in shown
    assert "2023-11-14T22:14:20Z" in shown
    assert f"{TOPIC}: not JSON" in shown
    assert '  bad   2023-11-14T22:14:20Z  {"h": 1.5  (9 bytes)' in shown
    assert '  good  2023-11-14T22:13:20Z  {"h": 1.5}  (10 bytes)' in shown


def test_the_table_fits_eighty_columns(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(config.parent / "data", b"{")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["edge", "problems", "--config", str(config)]) == 6
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    assert any(TOPIC in line and "undecodable" in line and "2023-11-14T22:14:20Z" in line for line in table)


def test_binary_and_control_characters_are_hex(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(config.parent / "data", b"\x1b[2Jgone", good=None)
    assert main(["edge", "problems", "--config", str(config)]) == 6
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "hex 1b5b324a676f6e65" in shown
    assert "none was seen" in shown


def test_json_has_all_of_it(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(config.parent / "data", b"\xff" * 2000)
    assert main(["edge", "problems", "--config", str(config), "--json"]) == 6
    (found,) = json.loads(capsys.readouterr().out)["topics"]
    assert (found["topic"], found["counts"], found["last"]) == (TOPIC, {"undecodable": 1}, "undecodable")
    assert found["bad"] == {"time": "2023-11-14T22:14:20Z", "bytes": 2000, "hex": "ff" * 512}
    assert found["good"] == {"time": "2023-11-14T22:13:20Z", "bytes": 10, "text": '{"h": 1.5}'}


def test_a_damaged_file_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(config.parent / "data", b"{")
    (config.parent / "data" / FILE).write_text("{")
    assert main(["edge", "problems", "--config", str(config)]) == 5
    assert FILE in capsys.readouterr().err
