"""Configuration files: errors name file and path, the environment overrides, paths count from the file's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.settings import ConfigError, load
from edge.config import EdgeConfig

EDGE = """
federation: solder-defect
participant: berlin
data_dir: data
broker: {url: mqtt://127.0.0.1, username: berlin, password_file: secrets/berlin}
signal_map: signal-map.yaml
contract: ../contract.yaml
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "edge.yaml"
    path.write_text(text)
    return path


def test_relative_paths_count_from_the_files_folder(tmp_path: Path) -> None:
    config = load(EdgeConfig, write(tmp_path, EDGE), {})
    assert config.data_dir == tmp_path / "data"
    assert config.broker.password_file == tmp_path / "secrets/berlin"
    assert config.contract == tmp_path / "../contract.yaml"


def test_an_unknown_key_is_refused_with_file_and_path(tmp_path: Path) -> None:
    path = write(tmp_path, EDGE.replace("username: berlin", "user: berlin"))
    with pytest.raises(ConfigError) as error:
        load(EdgeConfig, path, {})
    assert f"{path}: broker.user: unknown key" in str(error.value).splitlines()


def test_every_problem_has_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, EDGE.replace("berlin\ndata_dir: data", "Berlin!\nmax_samples: 3"))
    with pytest.raises(ConfigError) as error:
        load(EdgeConfig, path, {})
    lines = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["participant", "data_dir", "max_samples"]


def test_an_override_that_is_no_yaml_is_text(tmp_path: Path) -> None:
    config = load(EdgeConfig, write(tmp_path, EDGE), {"HEADGATE_HEALTH__LISTEN": "[::1]:9464"})
    assert config.health.address == ("::1", 9464)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environment = {
        "HEADGATE_BROKER__URL": "mqtts://broker.acme:8884",
        "HEADGATE_MAX_SAMPLES": "500",
        "HEADGATE_INFERENCE__MAX_BATCH": "8",
        "HEADGATE_SOMETHING_ELSE": "x",
        "OTHER_MAX_SAMPLES": "7",
    }
    config = load(EdgeConfig, write(tmp_path, EDGE), environment)
    assert (config.broker.port, config.max_samples, config.inference.max_batch) == (8884, 500, 8)


def test_an_override_that_is_unknown_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"broker\.colour: unknown key"):
        load(EdgeConfig, write(tmp_path, EDGE), {"HEADGATE_BROKER__COLOUR": "red"})


@pytest.mark.parametrize(
    ("text", "expected"), [("a: [", "not YAML"), ("- a", "a mapping of keys was expected, not list")]
)
def test_what_is_no_configuration_is_said(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(BrokerConfig, write(tmp_path, text), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        load(EdgeConfig, tmp_path / "nothing.yaml", {})
