"""`headgate assess` on recordings: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.assess.recording import Heard, encode_line
from headgate.cli import main
from headgate.commands.assess import keeping
from headgate.exits import Exit
from tests.edge.assess.plant import ALL_FAULTS, CONTRACT, SIGNAL_MAP, messages
from tests.support.tiny_template import tiny_template
from uns_topics.contract import Contract
from uns_topics.sparkplug import Metric, Payload, encode_payload


def record(path: Path, heard: Iterable[Heard]) -> Path:
    path.write_text("".join(encode_line(one) for one in heard), "utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An edge of the line with a good and a bad recording beside it."""
    for name, content in (("contract.yaml", CONTRACT), ("map.yaml", SIGNAL_MAP)):
        (tmp_path / name).write_text(yaml.safe_dump(content), "utf-8")
    record(tmp_path / "good.jsonl", messages(200))
    record(tmp_path / "bad.jsonl", messages(400, faults=ALL_FAULTS))
    return configured(tmp_path)


def configured(folder: Path, **settings: Any) -> Path:
    content = {
        "federation": "solder-defect", "participant": "berlin", "data_dir": "data", "broker": {},
        "signal_map": "map.yaml", "contract": "contract.yaml", **settings,
    }  # fmt: skip
    (folder / "edge.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return folder / "edge.yaml"


def assess(config: Path, recording: str, *more: str) -> int:
    return main(["assess", "--config", str(config), "--data", str(config.parent / recording), *more])


def test_a_good_plant(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert assess(config, "good.jsonl", "--no-training") == Exit.OK
    out = capsys.readouterr().out
    assert "ready: nothing was found" in out
    assert "samples   100, 100 with a label of 100 that came" in out
    assert not (config.parent / "data").exists()


def test_findings_in_a_terminal_as_json_and_as_a_page(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = config.parent / "report.html"
    assert assess(config, "bad.jsonl", "--no-training", "--html", str(page)) == Exit.FINDINGS
    out = capsys.readouterr().out
    assert "not ready: 5 findings" in out
    assert "looks like degF where the map says degC" in out
    assert "TOMBSTONE" in page.read_text("utf-8")
    assert assess(config, "bad.jsonl", "--no-training", "--json") == Exit.FINDINGS
    content = json.loads(capsys.readouterr().out)
    assert content["ready"] is False
    assert {f["check"] for f in content["findings"]} == {"unit", "gap", "duplicates", "clock", "label-code"}


def test_topics_and_numbers_are_whole_in_eighty_columns(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert assess(config, "good.jsonl", "--no-training") == Exit.OK
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert "paste_height  acme/berlin/smt/line1/spi" in lines
    assert "acme/berlin/smt/line1/printer/temperature" in lines
    assert not [line for line in lines if "…" in line]


def test_it_stops_at_its_limits(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert assess(config, "good.jsonl", "--no-training", "--json", "--max-messages", "300") == Exit.OK
    assert json.loads(capsys.readouterr().out)["messages"] == 300
    assert assess(config, "good.jsonl", "--no-training", "--json", "--max-mb", "0.01") == Exit.OK
    assert json.loads(capsys.readouterr().out)["payload_bytes"] < 11_000


def test_a_training_step_is_timed_by_the_edges_own_trainer(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = Contract.model_validate(CONTRACT)
    template = tiny_template(contract)
    models = config.parent / "data" / "models"
    models.mkdir(parents=True)
    (models / f"skeleton-{template.sha256}.onnx").write_bytes(template.skeleton)
    trainer = {"command": [sys.executable, "-m", "tests.support.numpy_trainer"]}
    assert assess(configured(config.parent, trainer=trainer), "good.jsonl", "--json") == Exit.OK
    step = json.loads(capsys.readouterr().out)["step"]
    assert step["milliseconds"] > 0
    assert step["network"].startswith("mlp, ")


@pytest.mark.parametrize(
    ("trainer", "found", "text"),
    [
        ({"enabled": False}, Exit.OK, "training is switched off"),
        ({"command": ["/nowhere/trainer"]}, Exit.OK, "can't be started"),
        ({"command": [sys.executable, "-c", "raise SystemExit(7)"]}, Exit.FINDINGS, "ended with code 7"),
    ],
)
def test_a_training_step_that_is_none(
    config: Path, trainer: dict[str, Any], found: Exit, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tiny_template(Contract.model_validate(CONTRACT))
    models = config.parent / "data" / "models"
    models.mkdir(parents=True)
    (models / f"skeleton-{template.sha256}.onnx").write_bytes(template.skeleton)
    assert assess(configured(config.parent, trainer=trainer), "good.jsonl", "--json") == found
    step = json.loads(capsys.readouterr().out)["step"]
    assert text in (step["skipped"] or step["failed"])


def test_without_torch_it_says_so(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert assess(config, "good.jsonl") == Exit.OK
    assert "training  not measured: torch is not installed here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ([], Exit.USAGE, "name the edge's configuration"),
        (["--config", "nowhere.yaml"], Exit.NOT_FOUND, "nowhere.yaml: no such file"),
        (["--config", "EDGE", "--data", "gone.jsonl"], Exit.NOT_FOUND, "gone.jsonl: no such file"),
        (["--config", "EDGE", "--data", "EDGE"], Exit.USAGE, "line 1"),
        (["--config", "EDGE", "--contract", "gone.yaml", "--data", "EDGE"], Exit.NOT_FOUND, "gone.yaml: no such file"),
        (["--config", "EDGE", "--data", "good.jsonl", "--html", "/nowhere/a.html"], Exit.FAILURE, "can't be written"),
        (["--config", "EDGE", "--data", "good.jsonl", "--record", "/nowhere/a"], Exit.FAILURE, "can't be written"),
        (["--config", "EDGE", "--data", "gone.jsonl", "--html", "/nowhere/a.html"], Exit.FAILURE, "can't be written"),
        (["--config", "EDGE", "--data", "good.jsonl", "--record", "good.jsonl"], Exit.USAGE, "is the recording"),
    ],
)
def test_what_cannot_be_used(
    config: Path, more: list[str], code: Exit, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"EDGE": str(config), "good.jsonl": str(config.parent / "good.jsonl")}
    assert main(["assess", "--no-training", *(named.get(word, word) for word in more)]) == code
    assert sentence in capsys.readouterr().err


def test_a_recording_is_not_written_over_by_itself(config: Path) -> None:
    before = (config.parent / "good.jsonl").read_bytes()
    assert assess(config, "good.jsonl", "--record", str(config.parent / "good.jsonl")) == Exit.USAGE
    assert (config.parent / "good.jsonl").read_bytes() == before


def test_an_empty_recording(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(config.parent / "empty.jsonl", [])
    assert assess(config, "empty.jsonl") == Exit.USAGE
    assert "no message in it" in capsys.readouterr().err


def test_a_map_that_does_not_fit_is_told_with_its_place(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {**SIGNAL_MAP, "sources": SIGNAL_MAP["sources"][1:]}
    (config.parent / "map.yaml").write_text(yaml.safe_dump(broken), "utf-8")
    assert assess(config, "good.jsonl") == Exit.USAGE
    assert "nothing feeds the required feature 'ambient_temperature'" in capsys.readouterr().err


def test_sparkplug_data_before_a_birth_are_told_as_such(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = encode_payload(Payload(1_700_000_000_000, (Metric(alias=1, value=21.5),), 3))
    heard = [m for m in messages(100) if not m.topic.endswith("temperature")]
    heard += [Heard(heard[0].time_s, "spBv1.0/berlin/DDATA/line1/printer", data)]
    record(config.parent / "unborn.jsonl", heard)
    source = {
        "topic": "spBv1.0/berlin/+/{line}/printer", "form": "sparkplug",
        "features": [{"feature": "ambient_temperature", "field": "Temperature", "unit": "degC"}],
    }  # fmt: skip
    sources = {**SIGNAL_MAP, "sources": [source, *SIGNAL_MAP["sources"][1:]]}
    (config.parent / "map.yaml").write_text(yaml.safe_dump(sources), "utf-8")
    assert assess(config, "unborn.jsonl", "--no-training") == Exit.FINDINGS
    assert "said data and no birth while this listened" in capsys.readouterr().out
    assert assess(config, "unborn.jsonl", "--suggest") == Exit.FINDINGS
    assert "Sparkplug data came before a birth (1 times)" in capsys.readouterr().err


# Proposing a signal map -----------------------------------------------------------------------------------------------


def test_a_proposed_map_is_what_an_edge_starts_with(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, contract = str(config.parent / "good.jsonl"), str(config.parent / "contract.yaml")
    assert main(["assess", "--suggest", "--contract", contract, "--data", recording, "acme/#"]) == Exit.OK
    (config.parent / "map.yaml").write_text(capsys.readouterr().out, "utf-8")
    assert assess(config, "good.jsonl", "--no-training") == Exit.OK
    assert "ready: nothing was found" in capsys.readouterr().out


def test_a_proposal_that_lacks_something_is_a_finding(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(config.parent / "some.jsonl", [m for m in messages(100) if not m.topic.endswith("force")])
    command = ["assess", "--suggest", "--config", str(config), "--data", str(config.parent / "some.jsonl")]
    assert main(command) == Exit.FINDINGS
    said = capsys.readouterr()
    assert "# squeegee_force (N): NO TAG LOOKS LIKE IT" in said.out
    assert "still to do: sources: nothing feeds the required feature 'squeegee_force'" in said.err
    assert main([*command, "nothing/here"]) == Exit.FINDINGS
    said = capsys.readouterr()
    assert said.out == ""
    assert "no tag looked like a feature" in said.err


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ([], Exit.USAGE, "name the plant's broker"),
        (["--broker", "http://here"], Exit.USAGE, "is no broker URL"),
        (["--broker", "mqtt://here", "--config", "EDGE"], Exit.USAGE, "name a broker each"),
        (["--broker", "mqtt://here", "a/#/b"], Exit.USAGE, "topic filter 'a/#/b'"),
        (["--broker", "mqtt://here", "--json"], Exit.USAGE, "prints YAML"),
        (["--data", "EDGE"], Exit.NOT_FOUND, "no contract is known"),
    ],
)
def test_a_proposal_that_cannot_be_made(
    config: Path, more: list[str], code: Exit, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"EDGE": str(config)}
    assert main(["assess", "--suggest", *(named.get(word, word) for word in more)]) == code
    assert sentence in capsys.readouterr().err


def test_filters_are_for_proposals(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assess", "--config", str(config), "acme/#"]) == Exit.USAGE
    assert "for --suggest" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("count", [1, 200])
def test_a_recording_that_the_disk_has_no_room_for_costs_nothing_else(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[Heard] = []
    with keeping(Path("/dev/full"), heard.append) as hear:
        for number in range(count):
            hear(Heard(float(number), "acme/line1", b"x" * 1000))
    assert len(heard) == count
    assert capsys.readouterr().err == "/dev/full is not complete: No space left on device\n"
