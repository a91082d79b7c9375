"""The command line: help that starts with what to type, exit codes, sentences instead of tracebacks."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headgate import __version__
from headgate.cli import build_parser, main
from headgate.commands.config import KINDS
from headgate.exits import Exit
from headgate.parsers import Parser
from tests.support.tiny_template import tiny_model

CONTRACT: dict[str, Any] = {
    "contract": 1,
    "federation": "oven",
    "features": [{"name": "zone1", "unit": "degC", "minimum": 100, "maximum": 300}],
    "label": {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"},
    "sample": {"kind": "event", "key": "board"},
    "metric": "average_precision",
}
SIGNAL_MAP: dict[str, Any] = {
    "signal_map": 1,
    "instance": "acme/berlin/smt/line1",
    "sources": [
        {
            "topic": "acme/berlin/smt/line1/oven",
            "form": "flat",
            "key": "board",
            "keys": {"timestamp": "timestamp_ms"},
            "features": [{"feature": "zone1", "field": "zone1", "unit": "degC"}],
        }
    ],
}


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Parser]]:
    assert isinstance(parser, Parser)
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from commands(sub, (*path, name))


ALL = dict(commands(build_parser()))


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """A broker URL at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"mqtt://127.0.0.1:{held.getsockname()[1]}"


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def edge(folder: Path, signal_map: Any = SIGNAL_MAP, **settings: Any) -> Path:
    """The configuration of an edge with its files."""
    write(folder / "contract.yaml", CONTRACT)
    write(folder / "map.yaml", signal_map)
    config = {"federation": "oven", "participant": "berlin", "data_dir": "data", "contract": "contract.yaml"}
    return write(folder / "edge.yaml", {**config, "signal_map": "map.yaml", "broker": {}, **settings})


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command that ends by itself."""
    code = main(list(arguments))
    return code, capsys.readouterr().err


def failing_service(caplog: pytest.LogCaptureFixture, *arguments: str) -> tuple[int, str]:
    """Exit code and last log line of a service that can't start; no stack trace comes with it."""
    code = main(list(arguments))
    assert caplog.records[-1].exc_info is None
    return code, caplog.records[-1].getMessage()


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_starts_with_two_examples_that_can_be_typed(path: tuple[str, ...]) -> None:
    lines = ALL[path].format_help().splitlines()
    assert lines[0] == "Examples:"
    assert lines[3] == ""
    for line in lines[1:3]:
        words = [word for word in shlex.split(line.partition(" > ")[0]) if not word.startswith("HEADGATE_")]
        assert words[0] == "headgate"
        assert tuple(words[1 : 1 + len(path)]) == path
        assert callable(build_parser().parse_args(words[1:]).run)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_fits_eighty_columns_but_for_what_is_typed(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, ALL[path].format_help().splitlines()[3:])) <= 80


def test_every_command_of_the_readme_is_there() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    listed = re.search(r"`headgate --help` lists the commands \(([^)]*)\)", readme)
    assert listed is not None
    assert sorted(re.findall(r"`([a-z]+)`", listed[1])) == sorted({path[0] for path in ALL if path})


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        [],
        ["demo", "--rounds", "0"],
        ["demo", "--scenario", "nope"],
        ["edge"],
        ["broker", "--port", "70000"],
        ["broker", "--host", "somewhere"],
        ["config", "schema", "nonsense"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == Exit.USAGE
    assert "error" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"headgate {__version__}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_config_schema_is_json_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema", kind]) == Exit.OK
    schema = json.loads(capsys.readouterr().out)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["properties"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["demo", "--plants", "1"], "1 solder plants: choose 2 to 8"),
        (["demo", "--plants", "9"], "9 solder plants: choose 2 to 8"),
        (["demo", "--broker", "http://here"], "'http://here' is no broker URL"),
        (["demo", "--scenario", "turbofan"], "--data DIR"),
        (["tree", "a/#/b"], "topic filter 'a/#/b'"),
        (["config", "access", "plant"], "a plant's rules need --edge and --pause"),
        (["config", "access", "enterprise", "--pause", "a"], "an enterprise broker's have neither"),
        (["config", "access", "enterprise", "--federation", "a#"], "'#' must be the whole last segment"),
        (["replay", "--data", ".", "--speed", "0"], "--speed must be above 0"),
        (["edge", "--config", "edge.yaml", "--dry-run"], "--dry-run is not for `edge run`"),
        (["edge", "leave", "--config", "edge.yaml", "--dry-run"], "--dry-run is not for `edge leave`"),
        (["edge", "--config", "edge.yaml", "--from", "week.csv"], "--from is not for `edge run`"),
        (["edge", "release", "--config", "edge.yaml", "--json"], "--json is not for `edge release`"),
        (["bridge", "resume", "--config", "bridge.yaml", "--dry-run"], "--dry-run is not for `bridge resume`"),
    ],
)
def test_usage_that_only_a_command_can_judge(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = failing(capsys, *arguments)
    assert code == Exit.USAGE
    assert sentence in said


def test_turbofan_says_where_its_data_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = failing(capsys, "demo", "--scenario", "turbofan")
    assert "NASA Prognostics Data Repository" in said
    code, said = failing(capsys, "demo", "--scenario", "turbofan", "--data", str(tmp_path))
    assert code == Exit.NOT_FOUND
    assert "train_FD001.txt" in said
    assert "NASA Prognostics Data Repository" in said
    code, said = failing(capsys, "replay", "--data", str(tmp_path), "--subset", "FD003")
    assert code == Exit.NOT_FOUND
    assert "RUL_FD003.txt" in said


def test_turbofan_has_four_plants_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["demo", "--scenario", "turbofan", "--data", str(tmp_path), "--plants", "5"]
    assert failing(capsys, *command) == (
        Exit.USAGE,
        "headgate: 5 turbofan plants: the data has subsets for 1 to 4\n",
    )


@pytest.mark.parametrize("command", ["edge", "aggregator"])
def test_a_missing_configuration_is_not_found(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, command, "--config", "nowhere.yaml") == (
        Exit.NOT_FOUND,
        "headgate: nowhere.yaml: no such file\n",
    )


def test_an_unknown_key_is_refused_with_file_and_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = edge(tmp_path, broker={"urll": "mqtt://here"})
    assert failing(capsys, "edge", "--config", str(path)) == (
        Exit.USAGE,
        f"headgate: {path}: broker.urll: unknown key\n",
    )


def test_a_signal_map_that_does_not_fit_ends_the_edge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = [{**SIGNAL_MAP["sources"][0], "features": [{"feature": "zone1", "field": "zone1", "unit": "quux"}]}]
    path = edge(tmp_path, {**SIGNAL_MAP, "sources": sources})
    code, said = failing_service(caplog, "edge", "--config", str(path))
    assert code == Exit.USAGE
    assert "sources[0].features[0].unit: unknown unit 'quux'" in said


def test_a_damaged_sample_store_ends_the_edge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = edge(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "samples.sqlite").write_bytes(b"garbage" * 100)
    code, said = failing_service(caplog, "edge", "--config", str(path))
    assert code == Exit.USAGE
    assert "samples.sqlite" in said


def test_a_data_folder_that_cannot_be_made_ends_the_edge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = edge(tmp_path, data_dir="contract.yaml/data")
    code, said = failing_service(caplog, "edge", "--config", str(path))
    assert code == Exit.USAGE
    assert str(tmp_path / "contract.yaml" / "data") in said


def test_a_port_for_health_that_is_taken_ends_the_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "base.onnx").write_bytes(tiny_model())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        health = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        config = {"federation": "tiny", "model": "base.onnx", "data_dir": "aggregator", "health": health}
        files = {"edge": edge(tmp_path, health=health), "aggregator": write(tmp_path / "aggregator.yaml", config)}
        for command, path in files.items():
            code, said = failing_service(caplog, command, "--config", str(path))
            assert code == Exit.USAGE
            assert f"health.listen: {health['listen']} can't be listened on" in said


def test_a_model_that_is_none_ends_the_aggregator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "base.onnx").write_text("contract: 1")
    path = write(tmp_path / "aggregator.yaml", {"federation": "tiny", "model": "base.onnx", "data_dir": "data"})
    code, said = failing(capsys, "aggregator", "--config", str(path))
    assert code == Exit.USAGE
    assert f"{tmp_path / 'base.onnx'}: not an ONNX file" in said


def test_an_aggregator_needs_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"federation": "tiny", "model": "base.onnx", "data_dir": "data"}
    path = write(tmp_path / "aggregator.yaml", config)
    code, said = failing(capsys, "aggregator", "--config", str(path))
    assert code == Exit.NOT_FOUND
    assert f"{tmp_path / 'base.onnx'}: no such file" in said
    (tmp_path / "base.onnx").write_bytes(tiny_model())
    code, said = failing(capsys, "aggregator", "--config", str(path), "--from", str(tmp_path / "old.onnx"))
    assert code == Exit.NOT_FOUND
    assert "old.onnx" in said


@pytest.mark.parametrize("arguments", [["tree", "--once"], ["demo", "--once"]])
def test_a_broker_that_is_not_there_ends_with_4(
    arguments: list[str], nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = failing(capsys, *arguments, "--broker", nobody)
    assert code == Exit.BROKER
    assert f"broker {nobody} unreachable" in said
    assert said.count("\n") == 1


def test_a_password_file_that_is_not_there_is_a_matter_of_configuration(
    nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = failing(
        capsys, "tree", "--once", "--broker", nobody, "--username", "berlin", "--password-file", "nowhere"
    )
    assert code == Exit.USAGE
    assert "password file nowhere" in said


def test_the_embedded_broker_stays_on_loopback(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = failing(capsys, "broker", "--host", "192.0.2.1")
    assert code == Exit.FAILURE
    assert "loopback only" in said


def test_a_taken_port_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = failing(capsys, "broker", "--port", str(taken.getsockname()[1]))
    assert code == Exit.FAILURE
    assert "can't listen on" in said


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.OK)])
def test_a_service_ends_on_a_signal(how: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "headgate", "broker", "--port", str(_free_port())], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on mqtt://127.0.0.1:")
        process.send_signal(how)
        assert process.wait(10) == code


def test_a_reader_that_leaves_is_no_failure() -> None:
    command = f"{shlex.quote(sys.executable)} -m headgate config schema edge | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{\n", "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
