"""`headgate aggregator` before it runs: a base model that plants would refuse makes no plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.cli import main
from headgate.exits import Exit
from tests.aggregator.test_aggregator_store import Process, play
from tests.support.tiny_template import tiny_model


def test_a_model_whose_table_names_other_bytes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tiny_model()
    scale, bias = (_offset(good, name) for name in ("calibration.scale", "calibration.bias"))
    assert len(scale) == len(bias)
    swapped = good.replace(scale, b"@").replace(bias, scale).replace(b"@", bias)
    (tmp_path / "model.onnx").write_bytes(swapped)
    config = tmp_path / "aggregator.yaml"
    config.write_text("federation: tiny\nmodel: model.onnx\ndata_dir: data\n")
    code = main(["aggregator", "--config", str(config)])
    said = capsys.readouterr().err
    assert code == Exit.USAGE
    assert "parameter calibration." in said
    assert "doesn't lie where the table says" in said
    assert not (tmp_path / "data").exists()


def test_backup_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _played(tmp_path)
    target = tmp_path / "aggregator.tar"
    assert main(["aggregator", "backup", "--config", str(config), "--to", str(target)]) == Exit.OK
    assert "federation tiny, generation 1, version 1 current after round 1; " in capsys.readouterr().out
    assert main(["aggregator", "restore", "--config", str(config), "--from", str(target)]) == Exit.INTEGRITY
    assert "there is a store already" in capsys.readouterr().err
    (tmp_path / "data").rename(tmp_path / "burnt")
    assert main(["aggregator", "restore", "--config", str(config), "--from", str(target)]) == Exit.OK
    assert "its epoch is 2 or more: participants will follow it" in capsys.readouterr().out
    assert (tmp_path / "data" / "aggregator.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["backup"], Exit.USAGE, "Name a file with --to"),
        (["backup", "--to", "nowhere/b.tar"], Exit.NOT_FOUND, "nowhere: no such folder"),
        (["backup", "--to", "b.tar"], Exit.FAILURE, "no aggregator has run on this directory"),
        (["restore"], Exit.USAGE, "Name the backup with --from"),
        (["restore", "--from", "b.tar"], Exit.NOT_FOUND, "b.tar: no such file"),
        (["run", "--to", "b.tar"], Exit.USAGE, "--to is for backup alone"),
    ],
)
def test_what_can_not_be_done_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: Exit,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aggregator.yaml").write_text("federation: tiny\nmodel: model.onnx\ndata_dir: data\n")
    assert main(["aggregator", *arguments, "--config", "aggregator.yaml"]) == code
    assert sentence in capsys.readouterr().err


def _played(folder: Path) -> Path:
    """The configuration of an aggregator that has run."""
    process = Process(folder)
    play(process)
    process.store.close()
    config = folder / "aggregator.yaml"
    config.write_text("federation: tiny\nmodel: model.onnx\ndata_dir: data\n")
    return config


def _offset(raw: bytes, name: str) -> bytes:
    """The table's word on where a tensor lies in the file."""
    start = raw.index(b'"file_offset":', raw.index(b'"name":"' + name.encode() + b'"'))
    return raw[start : raw.index(b"}", start)]
