"""`headgate ledger`: what it shows, what it finds, what it could not search, and how it ends."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_bridge.bridge.ledger import Departure, Ledger, Transfer
from headgate.cli import main
from headgate.exits import Exit
from uns_topics.encodings import encoding
from uns_topics.transfers import MIN_CHUNK_BYTES, chunk_of, encode_chunk, make_manifest
from uns_topics.update import TensorGroup, UpdateHeader, encode_update

NOON = datetime(2026, 11, 25, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()
PLANTED = 271.8281


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


def update() -> bytes:
    """Three chunks, a planted element in the middle one."""
    values = np.random.default_rng(3).normal(0, 0.01, 3 * MIN_CHUNK_BYTES // 4 - 200).astype(np.float32)
    values[5_000] = PLANTED
    body = encoding("f32").encode(values)
    groups = (TensorGroup(name="delta", encoding="f32", elements=values.size, bytes=len(body)),)
    header = UpdateHeader(
        federation="solder", participant="berlin", round_number=1, attempt=1, base="a" * 64, generation=1,
        num_examples=720, num_steps=100, groups=groups,
    )  # fmt: skip
    return encode_update(header, body)


UPDATE = update()
MANIFEST = make_manifest(UPDATE, "update", MIN_CHUNK_BYTES)


def departures() -> list[list[Departure]]:
    """Two days: a status of each participant, and an update of berlin."""
    line, whole = "allow[0]", Transfer(MANIFEST.sha256, UPDATE)
    path = f"fl/v1/solder/up/berlin/update/{MANIFEST.id}"
    sent = [(f"{path}/manifest", MANIFEST.model_dump_json().encode())]
    sent += [(f"{path}/{i}", encode_chunk(chunk_of(UPDATE, MANIFEST, i))) for i in range(len(MANIFEST.chunks))]
    return [
        [
            Departure("solder", "berlin", "fl/v1/solder/up/berlin/status", "status", line, b'{"samples":7531}'),
            Departure("solder", "lyon", "fl/v1/solder/up/lyon/status", "status", "allow[1]", b'{"note":"Lot 4711"}'),
        ],
        [Departure("solder", "berlin", topic, "update", line, payload, whole) for topic, payload in sent],
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bridge's data folder `data` beside its configuration."""
    clock = Clock()
    ledger = Ledger(tmp_path / "data" / "ledger", "dmz", clock)
    for day in departures():
        ledger.record(day)
        clock.now += 86_400
    ledger.close()
    (tmp_path / "bridge.yaml").write_text("bridge: dmz\ndata_dir: data\nplant: {}\n")
    return tmp_path / "data" / "ledger"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["ledger", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_show_lists_messages_newest_last_in_100_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "show", "--config", folder.parent.parent / "bridge.yaml")
    assert (code, err) == (Exit.OK, "")
    lines = out.splitlines()
    assert lines[0].split() == ["n", "time", "participant", "topic", "bytes", "policy"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert lines[2].split() == ["2", "2026-11-25", "12:00:00", "lyon", "status", "19", "allow[1]"]
    assert lines[4].split()[4] == f"update/{MANIFEST.id}/0"
    assert max(map(len, lines)) <= 100


def test_long_names_stay_within_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a" * 64
    ledger = Ledger(tmp_path, "dmz", Clock())
    topic = f"fl/v1/{name}/up/{name}/update/{MANIFEST.id}/manifest"
    ledger.record([Departure(name, name, topic, "update", "allow[0]", b"x" * 10_000)])
    ledger.close()
    for action in ("show", "summary"):
        _, out, _ = run(capsys, action, "--dir", tmp_path)
        assert max(map(len, out.splitlines())) <= 100
        assert "10,000" in out


def test_show_as_json_gives_the_lines_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "show", "--dir", folder, "--json")
    assert out == "".join(file.read_text() for file in sorted(folder.glob("*.jsonl")))
    _, out, _ = run(capsys, "show", "--dir", folder, "--json", "--last", "2")
    assert [json.loads(line)["n"] for line in out.splitlines()] == [5, 6]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--kind", "status"], [1, 2]),
        (["--participant", "lyon"], [2]),
        (["--since", "2026-11-26"], [3, 4, 5, 6]),
        (["--until", "2026-11-25"], [1, 2]),
        (["--until", "2026-11-26"], [1, 2, 3, 4, 5, 6]),
        (["--until", "2026-11-25T12:00:00Z"], []),
        (["--since", "2026-11-25T13:00:00.250+01:00", "--until", "2026-11-25T12:00:01"], [1, 2]),
        (["--since", "2026-11-25T12:00:01"], [3, 4, 5, 6]),
    ],
)
def test_selections(folder: Path, options: list[str], expected: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "--dir", folder, "--json", *options)
    assert code == Exit.OK
    assert [json.loads(line)["n"] for line in out.splitlines()] == expected


def test_summary_counts_by_day_kind_and_participant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = departures()
    code, out, _ = run(capsys, "summary", "--dir", folder, "--json")
    assert code == Exit.OK
    sizes = Counter({"berlin": len(first[0].payload), "lyon": len(first[1].payload)})
    sent = sum(len(departure.payload) for departure in second)
    assert json.loads(out) == {
        "days": [
            {"day": "2026-11-25", "kind": "status", "messages": 2, "bytes": sizes.total()},
            {"day": "2026-11-26", "kind": "update", "messages": 4, "bytes": sent},
        ],
        "participants": [
            {"federation": "solder", "participant": "berlin", "messages": 5, "bytes": sizes["berlin"] + sent},
            {"federation": "solder", "participant": "lyon", "messages": 1, "bytes": sizes["lyon"]},
        ],
        "messages": 6,
        "bytes": sizes.total() + sent,
        "damaged": 0,
    }
    _, out, _ = run(capsys, "summary", "--dir", folder)
    assert f"total: 6 messages, {sizes.total() + sent:,} bytes" in out


def canary(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, "canary", *arguments, "--json")
    return code, json.loads(out)


def test_nothing_found_says_how_much_was_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "canary", "--dir", folder, "SECRET-RECIPE", "98765.4321")
    assert code == Exit.OK
    first, second = departures()
    size = sum(len(d.payload) for d in (*first, second[0])) + len(UPDATE)
    assert "nothing found in what could be searched" in out
    assert f"searched: 6 messages, 4 different payloads, {size:,} bytes" in out
    assert "NOT" not in out


def test_a_value_in_a_transfer_is_found_once_with_all_its_messages(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = canary(capsys, "--dir", folder, str(PLANTED))
    assert code == Exit.FINDINGS
    found = {find["how"]: find for find in result["finds"]}
    assert set(found) == {"tensor in f32, exact", "float32, little-endian"}
    tensor = found["tensor in f32, exact"]
    assert (tensor["place"], tensor["kind"], tensor["messages"]) == ("element 5000 of delta", "update", 3)
    assert tensor["time"] == "2026-11-26T12:00:00.250Z"
    code, out, _ = run(capsys, "canary", "--dir", folder, str(PLANTED).replace(".", ","))
    assert code == Exit.FINDINGS
    assert "found '271,8281' as tensor in f32, exact: 2026-11-26T12:00:00.250Z update" in out
    assert f"  fl/v1/solder/up/berlin/update/{MANIFEST.id}/0, element 5000 of delta, in 3 messages" in out


def test_values_from_a_file_and_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = folder.parent / "values.txt"
    values.write_text("\ufeffLOT 4711\n\n  nothing \n", "utf-8")
    code, result = canary(capsys, "--dir", folder, "7531.0", "--values-file", values)
    assert code == Exit.FINDINGS
    assert {(find["value"], find["how"]) for find in result["finds"]} == {
        ("7531.0", "number in text"),
        ("LOT 4711", "text"),
    }


def test_topics_left_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = canary(capsys, "--dir", folder, "Lyon", "--kind", "status")
    assert code == Exit.FINDINGS
    assert [(find["how"], find["messages"]) for find in result["finds"]] == [("text, in the topic", 1)]


def test_contents_no_longer_kept_are_never_taken_as_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path, "dmz", Clock(), keep_contents_bytes=1000)
    for day in departures():
        ledger.record(day)
    ledger.close()
    code, out, _ = run(capsys, "canary", "--dir", tmp_path, str(PLANTED))
    assert code == Exit.OK
    assert "3 messages could NOT be searched: what left with them is no longer kept" in out
    (tmp_path / "contents.sqlite").unlink()
    code, result = canary(capsys, "--dir", tmp_path, str(PLANTED))
    assert code == Exit.OK
    assert result["searched"]["not_kept"] == 6
    assert result["searched"]["messages"] == 0


def test_altered_contents_are_never_taken_as_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = sqlite3.connect(folder / "contents.sqlite")
    with db:
        db.execute("UPDATE contents SET content = x'00' WHERE bytes = 16")
    db.close()
    _, out, _ = run(capsys, "canary", "--dir", folder, "7531")
    assert "1 messages could NOT be searched: what left with them is no longer kept (1 contents were altered)" in out


def test_payloads_from_files_are_searched_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = folder.parent / "recorded"
    (recorded / "deep").mkdir(parents=True)
    (recorded / "deep" / "a.bin").write_bytes(b"\xff\x00SECRET-RECIPE")
    code, result = canary(capsys, "--dir", folder, "secret-recipe", "--payloads", recorded)
    assert code == Exit.FINDINGS
    assert [(f["topic"], f["time"], f["place"]) for f in result["finds"]] == [
        (str(recorded / "deep" / "a.bin"), None, "byte 2")
    ]
    assert (result["searched"]["files"], result["searched"]["undecodable"]) == (1, 1)
    code, _ = canary(capsys, "--dir", folder, "secret-recipe", "--payloads", recorded / "deep" / "a.bin")
    assert code == Exit.FINDINGS
    code, _, err = run(capsys, "canary", "--dir", folder, "x", "--payloads", recorded / "nowhere")
    assert (code, "no such file or folder" in err) == (Exit.NOT_FOUND, True)


def test_what_chance_alone_hits_is_said_and_looked_for_on_demand(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "large.bin").write_bytes(b"\xff" + b"\x01\x02\x03\x04" * 50_000 + (54_321).to_bytes(2, "big"))
    options = ["--dir", folder, "54321", "--payloads", folder.parent / "large.bin"]
    code, out, _ = run(capsys, "canary", *options)
    assert code == Exit.OK
    assert "not looked for" in out
    assert "uint16, big-endian" in out
    code, result = canary(capsys, *options, "--all")
    assert code == Exit.FINDINGS
    assert "uint16, big-endian" in {find["how"] for find in result["finds"]}
    assert result["left_out"] == {}


def test_damaged_lines_are_counted_never_hidden(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = sorted(folder.glob("*.jsonl"))
    first.write_bytes(b"nonsense\n" + first.read_bytes())
    last.write_bytes(last.read_bytes()[:-40])
    for action in (["show"], ["summary"], ["canary", "98765.4321"]):
        code, _, err = run(capsys, *action, "--dir", folder)
        assert code == Exit.OK
        assert "damaged lines: 1 (a power cut, or a change by hand): 2026-11-25.jsonl line 1" in err
        assert "the last line is not complete" in err
    assert canary(capsys, "98765.4321", "--dir", folder)[1]["searched"]["damaged"] == 2
    assert json.loads(run(capsys, "summary", "--dir", folder, "--json")[1])["damaged"] == 2


@pytest.mark.parametrize("action", [["show"], ["summary"], ["canary", "1"]])
def test_no_ledger_there(tmp_path: Path, action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bridge.yaml").write_text("data_dir: data")
    for where in (["--dir", tmp_path], ["--config", tmp_path / "bridge.yaml"], ["--config", tmp_path / "none.yaml"]):
        code, out, err = run(capsys, *action, *where)
        assert (code, out) == (Exit.NOT_FOUND, "")
        assert err.startswith("headgate: ")


@pytest.mark.parametrize("text", ["", "- 1", "bridge: dmz", "data_dir: 7"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bridge.yaml").write_text(text)
    code, _, err = run(capsys, "show", "--config", tmp_path / "bridge.yaml")
    assert (code, "data_dir" in err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["show", "--dir", ".", "--config", "bridge.yaml"],
        ["show", "--dir", ".", "--last", "0"],
        ["show", "--dir", ".", "--since", "yesterday"],
        ["show", "--dir", ".", "--until", "2026-13-01"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *arguments])
    assert ended.value.code == Exit.USAGE


@pytest.mark.parametrize("values", [[], [" "], ["x" * 5000]])
def test_values_that_are_none(folder: Path, values: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "canary", "--dir", folder, *values)
    assert (code, "search for" in err or "searched for" in err) == (Exit.USAGE, True)


def test_it_reads_while_a_bridge_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    clock.now += 2 * 86_400
    ledger = Ledger(folder, "dmz", clock)
    for i in range(5):
        ledger.record([Departure("solder", "berlin", "t", "status", "allow[0]", b'{"value":%d.5}' % (99_000 + i))])
        code, result = canary(capsys, "--dir", folder, f"{99_000 + i}.50")
        assert code == Exit.FINDINGS
        assert result["searched"]["messages"] == 7 + i
    ledger.close()


def test_no_framework_is_loaded_for_it(folder: Path) -> None:
    program = (
        "import sys\nfrom headgate.cli import main\n"
        "code = main(['ledger', 'canary', '--dir', sys.argv[1], 'SECRET-RECIPE'])\n"
        "loaded = {'torch', 'onnx', 'onnxruntime', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(code if not loaded else f'loaded: {loaded}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert (done.returncode, done.stderr) == (0, "")
