"""`headgate model new` and `headgate model show`."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from headgate.cli import main
from headgate.exits import Exit
from tests.support.tiny_template import tiny_contract, tiny_model, tiny_template
from uns_topics.template import read_model_file

CONTRACT: dict[str, Any] = {
    "contract": 1,
    "federation": "oven",
    "features": [
        {"name": "zone1", "unit": "degC", "minimum": 100, "maximum": 300},
        {"name": "speed", "unit": "mm/s", "minimum": 0, "maximum": 30, "optional": True},
    ],
    "label": {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"},
    "sample": {"kind": "event", "key": "board"},
    "metric": "average_precision",
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump({**CONTRACT, **changes}))
    return path


def test_tensors_that_stay_local_are_named_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    contract, out = write(tmp_path), tmp_path / "oven.onnx"
    new = ["model", "new", str(contract), "--hidden", "8", "--out", str(out)]
    code, _, said = ended(main([*new, "--local", "network.nine"]), capsys)
    assert code != Exit.OK
    assert "no tensor is named network.nine; there are network.layers.1.weight" in said
    code, _, _ = ended(main([*new, "--local", "network.layers.2.*", "--local", "network.layers.5.bias"]), capsys)
    assert code == Exit.OK
    made = read_model_file(out.read_bytes())
    assert made.template.info.network.local == ("network.layers.2.*", "network.layers.5.bias")
    code, said, _ = ended(main(["model", "show", str(out)]), capsys)
    assert "stays local network.layers.2.weight, network.layers.2.bias, network.layers.5.bias" in said


def ended(code: int, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_new_model_is_proven_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    contract, out = write(tmp_path), tmp_path / "oven.onnx"
    arguments = ["model", "new", str(contract), "--kind", "mlp", "--hidden", "8,4", "--seed", "3", "--out", str(out)]
    code, said, _ = ended(main(arguments), capsys)
    assert code == Exit.OK
    assert said.count("\n") == 1
    assert "proven" in said
    model = read_model_file(out.read_bytes())
    assert model.template.info.network.hidden == (8, 4)
    assert model.version.version == 0
    assert model.version.lineage.origin == "new"

    code, said, _ = ended(main(["model", "show", str(out), "--json"]), capsys)
    assert code == Exit.OK
    shown = json.loads(said)
    assert shown["sha256"] == model.sha256
    assert shown["contract_sha256"] == model.template.contract.meaning_sha256
    assert [(f["name"], f["unit"]) for f in shown["inputs"]] == [("zone1", "degC"), ("speed", "mm/s")]
    assert shown["parameters"]["local"] == 2


def test_show_prints_what_a_person_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model())
    code, said, _ = ended(main(["model", "show", str(path)]), capsys)
    assert code == Exit.OK
    for text in ("tiny version 0", "mlp (3)", "x0", "x1", "score", tiny_template().sha256, "weight 13"):
        assert text in " ".join(said.split()), text
    assert f"sha256 {tiny_template().sha256}\n" in said  # in one line, to be copied


def test_a_changed_file_is_an_integrity_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model() + b"\x08\x0a")
    code, said, complaint = ended(main(["model", "show", str(path)]), capsys)
    assert (code, said) == (Exit.INTEGRITY, "")
    assert str(path) in complaint
    assert "changed" in complaint


def test_files_that_are_missing_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none"
    code, _, complaint = ended(main(["model", "show", str(missing)]), capsys)
    assert (code, complaint) == (Exit.NOT_FOUND, f"headgate: {missing}: no such file\n")
    code, _, complaint = ended(main(["model", "new", str(missing), "--out", str(tmp_path / "x.onnx")]), capsys)
    assert (code, complaint) == (Exit.NOT_FOUND, f"headgate: {missing}: no such file\n")


def test_each_problem_of_a_contract_has_a_line_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = [{"name": "zone 1", "unit": "degC", "minimum": 5, "maximum": 3}, {"name": "b", "unit": ""}]
    path = write(tmp_path, features=features, colour="blue")
    code, _, complaint = ended(main(["model", "new", str(path), "--out", str(tmp_path / "x.onnx")]), capsys)
    assert code == Exit.USAGE
    for text in ("features[0].name: ", "features[1].minimum: ", "features[1].maximum: ", "colour: unknown key"):
        assert f"{path}: {text}" in complaint
    assert len(complaint.splitlines()) >= 4


def test_a_network_that_does_not_fit_the_contract_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    arguments = ["model", "new", str(write(tmp_path)), "--kind", "gru", "--out", str(tmp_path / "x.onnx")]
    code, _, complaint = ended(main(arguments), capsys)
    assert code == Exit.USAGE
    assert "window" in complaint
    assert not (tmp_path / "x.onnx").exists()


def test_without_torch_the_sentence_names_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("edge.training"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    arguments = ["model", "new", str(write(tmp_path)), "--out", str(tmp_path / "x.onnx")]
    code, said, complaint = ended(main(arguments), capsys)
    assert (code, said) == (Exit.FAILURE, "")
    assert complaint == "headgate: making a model needs torch, which is not installed: pip install 'headgate[train]'\n"


@pytest.mark.parametrize("widths", ["64,x", "0", "-3,4"])
def test_widths_are_positive_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str], widths: str) -> None:
    with pytest.raises(SystemExit) as ended_with:
        main(["model", "new", str(write(tmp_path)), f"--hidden={widths}", "--out", str(tmp_path / "x.onnx")])
    assert ended_with.value.code == Exit.USAGE
    assert "--hidden" in capsys.readouterr().err


def test_the_tiny_contract_reads_back_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_model())
    main(["model", "show", str(path), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["contract_sha256"] == tiny_contract().meaning_sha256
