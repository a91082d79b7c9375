"""`headgate aggregator` before it runs: a base model that plants would refuse makes no plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.cli import main
from headgate.exits import Exit
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


def _offset(raw: bytes, name: str) -> bytes:
    """The table's word on where a tensor lies in the file."""
    start = raw.index(b'"file_offset":', raw.index(b'"name":"' + name.encode() + b'"'))
    return raw[start : raw.index(b"}", start)]
