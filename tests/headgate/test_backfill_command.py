"""`headgate edge backfill`: what it prints, what it leaves alone, how it ends."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.store import SampleStore
from headgate.cli import main
from headgate.exits import Exit
from tests.edge.backfill.exports import boards, write
from tests.edge.examples import solder_contract, solder_map


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An edge of the solder line, with 300 boards in `export.csv`."""
    contract = solder_contract(quality={"min_samples": 50}).model_dump(mode="json")
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(contract), "utf-8")
    (tmp_path / "map.yaml").write_text(
        yaml.safe_dump(solder_map().model_dump(mode="json", exclude_defaults=True)), "utf-8"
    )
    content = {
        "federation": "solder-defect", "participant": "berlin", "data_dir": "data", "broker": {},
        "signal_map": "map.yaml", "contract": "contract.yaml",
    }  # fmt: skip
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump(content), "utf-8")
    write(tmp_path / "export.csv", ("time", "tag", "value"), boards(300))
    return tmp_path / "edge.yaml"


def backfill(config: Path, *more: str, file: str = "export.csv") -> int:
    return main(["edge", "backfill", "--config", str(config), "--from", str(config.parent / file), *more])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content = json.loads(capsys.readouterr().out)
    assert isinstance(content, dict)
    return content


def test_a_plant_with_history_can_train_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill(config, "--json") == Exit.OK
    first = said(capsys)
    assert (first["samples_made"], first["samples_added"], first["labelled"]) == (300, 300, 300)
    assert first["classes"] == {"good": 226, "defect": 57}
    assert first["training"] == {"possible": True, "because": None}
    assert (first["from"], first["to"]) == ("2023-11-14T22:13:20Z", "2023-11-15T03:12:50Z")
    assert backfill(config) == Exit.OK
    text = capsys.readouterr().out
    assert "300 made, 0 new in the store" in text
    assert "training  possible: 169 samples to train on, 50 needed" in text


def test_a_dry_run_leaves_no_trace(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill(config, "--dry-run", "--json") == Exit.OK
    content = said(capsys)
    assert (content["dry_run"], content["samples_added"]) == (True, 300)
    assert not (config.parent / "data").exists()
    assert backfill(config, "--dry-run") == Exit.OK
    assert "300 would be new in an empty store" in capsys.readouterr().out


def test_too_little_is_a_finding(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(config.parent / "short.csv", ("time", "tag", "value"), [*boards(20), (1.7e9, "a", 1), (1.7e9, "b", 1)])
    assert backfill(config, file="short.csv") == Exit.FINDINGS
    text = capsys.readouterr().out
    assert "training  not yet: 1 matured samples to train on, and the contract wants 50" in text
    assert "not read  a: 1" in text
    assert "sorted by time first: short.csv" in text


def test_a_running_edge_has_its_store_to_itself(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / "data"
    folder.mkdir()
    with SampleStore(folder / "samples.sqlite"):
        assert backfill(config) == Exit.INTEGRITY
        assert "samples.sqlite is in use: its edge runs, or a backfill does; stop that first" in capsys.readouterr().err
        assert backfill(config, "--dry-run") == Exit.OK
    assert backfill(config) == Exit.OK


def test_a_contract_that_a_plan_brought_will_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(config.read_text("utf-8"))
    del content["contract"]
    config.write_text(yaml.safe_dump(content | {"approve": "any"}), "utf-8")
    assert backfill(config) == Exit.NOT_FOUND
    assert "no contract is known" in capsys.readouterr().err
    (config.parent / "data").mkdir()
    with SampleStore(config.parent / "data" / "samples.sqlite") as store:
        store.put("contract", solder_contract().model_dump_json().encode())
    assert backfill(config, "--dry-run") == Exit.OK
    with SampleStore(config.parent / "data" / "samples.sqlite"):
        assert backfill(config, "--dry-run") == Exit.OK


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--map", "nowhere.yaml"], Exit.NOT_FOUND, "nowhere.yaml: no such file"),
        (["--zone", "Mars"], Exit.USAGE, "'Mars' is no time zone"),
        (["--from", "gone.csv"], Exit.NOT_FOUND, "gone.csv: no such file"),
    ],
)
def test_what_cannot_be_used(
    config: Path, more: list[str], code: Exit, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backfill(config, *more) == code
    assert sentence in capsys.readouterr().err


def test_an_export_must_be_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge", "backfill", "--config", str(config)]) == Exit.USAGE
    assert "--from" in capsys.readouterr().err


def test_a_tag_map_is_read_strictly(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = config.parent / "tags.yaml"
    tags.write_text("tags: {A: {topic: a, feld: b}}", "utf-8")
    assert backfill(config, "--map", str(tags)) == Exit.USAGE
    assert "tags.yaml: tags.A" in capsys.readouterr().err


def test_parquet_without_pyarrow(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert backfill(config, file="export.parquet") == Exit.USAGE
    assert "pip install 'headgate[parquet]'" in capsys.readouterr().err


def test_progress_goes_from_pass_to_pass(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr("headgate.commands.backfill._progress", lambda: nullcontext(lambda *said: told.append(said)))
    write(config.parent / "tags.csv", ("time", "tag", "value"), sorted(boards(300), key=lambda reading: reading[1]))
    monkeypatch.setattr("edge.backfill.order.RUN_READINGS", 500)
    monkeypatch.setattr("edge.backfill.feed.BATCH_EFFECTS", 100)
    assert backfill(config, file="tags.csv") == Exit.OK
    whats = [what for what, _ in told]
    assert list(dict.fromkeys(whats)) == ["sorting by time", "filling the store"]
    filling = [share for what, share in told if what == "filling the store"]
    assert filling == sorted(filling)
    assert 0 < filling[0] < 0.5
    assert filling[-1] == 1.0


def test_a_second_edge_on_one_store_ends_with_a_sentence(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    (config.parent / "data").mkdir()
    with SampleStore(config.parent / "data" / "samples.sqlite"):
        assert main(["edge", "--config", str(config)]) == Exit.USAGE
    assert "samples.sqlite is in use: its edge runs" in caplog.records[-1].getMessage()
