"""C-MAPSS files in the format they are distributed in, and what a test bed makes of them."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.plants.cmapss import (
    SENSORS,
    SETTINGS,
    DataError,
    DataMalformed,
    DataMissing,
    emissions,
    read_subset,
)

# The first cycles of FD001's engine 1, as distributed: two spaces end each line.
FIRST = (
    "1 1 -0.0007 -0.0004 100.0 518.67 641.82 1589.70 1400.60 14.62 21.61 554.36 2388.06 9046.19 1.30 47.47 521.66 "
    "2388.02 8138.62 8.4195 0.03 392 2388 100.00 39.06 23.4190  "
)
SECOND = (
    "1 2 0.0019 -0.0003 100.0 518.67 642.15 1591.82 1403.14 14.62 21.61 553.75 2388.04 9044.07 1.30 47.49 522.28 "
    "2388.07 8131.49 8.4318 0.03 392 2388 100.00 39.00 23.4236  "
)
VALUES = FIRST.split()[2:]


def line(engine: int, cycle: int) -> str:
    return f"{engine} {cycle} {' '.join(VALUES)}  "


TRAIN = [FIRST, SECOND, line(1, 3), line(2, 1), line(2, 2)]
TEST = [line(1, 1), line(1, 2), line(2, 1)]
RUL = ["112 ", "98 "]

PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress}


def write(folder: Path, ending: str = "", changed: dict[str, list[str]] | None = None) -> Path:
    for part, lines in ({"train": TRAIN, "test": TEST, "RUL": RUL} | (changed or {})).items():
        text = "".join(f"{one}\n" for one in lines)
        (folder / f"{part}_FD001.txt{ending}").write_bytes(PACKED[ending](text.encode()))
    return folder


def said(folder: Path) -> list[tuple[float, str, dict[str, Any]]]:
    subset = read_subset(folder, "FD001")
    return [(e.time_s, e.topic, json.loads(e.payload)) for e in emissions(subset, "acme/fd001/testbed/bench1", 1e9)]


@pytest.mark.parametrize("ending", PACKED)
def test_reads_files_as_distributed(tmp_path: Path, ending: str) -> None:
    subset = read_subset(write(tmp_path, ending), "FD001")
    assert subset.name == "FD001"
    assert [(e.number, e.rows.shape) for e in subset.train] == [(1, (3, 24)), (2, (2, 24))]
    assert [(e.number, e.rows.shape) for e in subset.test] == [(1, (2, 24)), (2, (1, 24))]
    assert subset.test_rul.tolist() == [112, 98]
    assert subset.test_rul.dtype == np.int64
    row = dict(zip((*SETTINGS, *SENSORS), subset.train[0].rows[1], strict=True))
    assert (row["setting1"], row["T24"], row["Nc"], row["htBleed"], row["W32"]) == (
        0.0019, 642.15, 9044.07, 392.0, 23.4236,
    )  # fmt: skip


def test_a_cycle_is_one_flat_message(tmp_path: Path) -> None:
    time_s, topic, message = said(write(tmp_path))[1]
    assert (time_s, topic) == (1e9 + 60, "acme/fd001/testbed/bench1/engine")
    assert list(message) == ["timestamp_ms", "unit", "split", "cycle", *SETTINGS, *SENSORS]
    assert message["timestamp_ms"] == 1_000_000_060_000
    assert (message["unit"], message["split"], message["cycle"]) == ("train-1", "train", 2)
    assert (message["P30"], message["PCNfR_dmd"]) == (553.75, 100.0)


def test_engines_end_with_what_they_had_left(tmp_path: Path) -> None:
    messages = said(write(tmp_path))
    runs: dict[str, list[float]] = {}
    ended: dict[str, tuple[float, int]] = {}
    for time_s, topic, message in messages:
        if topic.endswith("/engine_end"):
            assert list(message) == ["timestamp_ms", "unit", "remaining_cycles"]
            assert message["timestamp_ms"] == time_s * 1000
            ended[message["unit"]] = (time_s, message["remaining_cycles"])
        else:
            assert message["unit"] not in ended
            runs.setdefault(message["unit"], []).append(time_s)
    assert {unit: left for unit, (_, left) in ended.items()} == {
        "train-1": 0,
        "train-2": 0,
        "test-1": 112,
        "test-2": 98,
    }
    assert list(runs) == list(ended) == ["train-1", "train-2", "test-1", "test-2"]
    for unit, times in runs.items():
        assert all(after - before == 60 for before, after in pairwise(times))
        assert times[-1] < ended[unit][0] < times[-1] + 60
    for before, after in pairwise(runs):
        assert runs[after][0] - ended[before][0] >= 3600


def test_prefers_nothing_but_finds_each_file_in_its_own_form(tmp_path: Path) -> None:
    write(tmp_path, ".xz")
    (tmp_path / "RUL_FD001.txt.xz").unlink()
    (tmp_path / "RUL_FD001.txt").write_text("1\n2\n")
    assert read_subset(tmp_path, "FD001").test_rul.tolist() == [1, 2]


def test_missing_file_is_named_with_its_origin(tmp_path: Path) -> None:
    (write(tmp_path) / "test_FD001.txt").unlink()
    with pytest.raises(DataMissing) as caught:
        read_subset(tmp_path, "FD001")
    text = str(caught.value)
    assert "test_FD001.txt" in text
    assert "train_FD001.txt" not in text
    assert str(tmp_path) in text
    assert "NASA Prognostics Data Repository" in text
    assert "Turbofan Engine Degradation Simulation Data Set" in text


def test_missing_folder_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"train_FD003\.txt, test_FD003\.txt, RUL_FD003\.txt"):
        read_subset(tmp_path / "nowhere", "FD003")


def test_unknown_subset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FD005"):
        read_subset(tmp_path, "FD005")


@pytest.mark.parametrize(
    ("part", "lines", "message"),
    [
        ("train", [FIRST, SECOND, "1 3 0.1"], r"train_FD001\.txt, line 3: 3 columns instead of 26"),
        ("train", [FIRST, SECOND.replace("553.75", "5x3")], r"line 2: column P30 is '5x3'"),
        ("test", [line(1, 1), line(2, 1).replace("39.06", "nan")], r"test_FD001\.txt, line 2: column W31 is 'nan'"),
        ("train", [line(1, 1), line(1, 3)], r"line 2: engine 1, cycle 3 where engine 1, cycle 2 should follow"),
        ("train", [line(1, 1), line(3, 1)], r"line 2: engine 3, cycle 1 where engine 2, cycle 1 should follow"),
        ("train", [line(1, 1), line(2, 2)], r"line 2: engine 2, cycle 2 where engine 2, cycle 1 should follow"),
        ("train", [line(2, 1)], r"line 1: engine 2, cycle 1 where engine 1, cycle 1 should follow"),
        ("train", [line(1, 1), "", line(1, 2), "x"], r"line 4: 1 columns"),
        ("train", [], r"train_FD001\.txt: empty"),
        ("RUL", ["112", "9.5"], r"RUL_FD001\.txt, line 2: '9\.5' is not one number"),
        ("RUL", ["112", "-1"], r"line 2: '-1'"),
        ("RUL", ["112"], r"RUL_FD001\.txt: 1 lines for the 2 engines"),
        ("train", [FIRST, "1 2 °"], r"line 2: not a text file of numbers"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, part: str, lines: list[str], message: str) -> None:
    with pytest.raises(DataMalformed, match=message):
        read_subset(write(tmp_path, changed={part: lines}), "FD001")


@pytest.mark.parametrize("ending", [".xz", ".gz"])
@pytest.mark.parametrize("damage", [lambda packed: b"no archive", lambda packed: packed[:-12]])
def test_damaged_archive_is_named(tmp_path: Path, ending: str, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, ending) / f"train_FD001.txt{ending}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train_FD001\.txt\.(xz|gz) can't be read"):
        read_subset(tmp_path, "FD001")
