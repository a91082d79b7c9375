"""`deploy/systemd`: systemd itself reads the units, and what they say of Headgate is so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from aggregator.config import AggregatorConfig
from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.settings import override
from edge.config import EdgeConfig
from headgate.cli import build_parser
from headgate.exits import Exit
from tests.deploy.deployed import DEPLOY

UNITS = {path.name: path.read_text("utf-8") for path in sorted((DEPLOY / "systemd").iterdir())}
PROGRAM = "/opt/headgate/bin/headgate"
CONFIGS: dict[str, type[BaseModel]] = {
    "headgate-edge": EdgeConfig,
    "headgate-aggregator": AggregatorConfig,
    "headgate-bridge": BridgeConfig,
}
MAX_EXPOSURE = 2.0
"""Of 10, by systemd's own count."""

every_unit = pytest.mark.parametrize("name", UNITS)
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def settings(name: str) -> dict[str, list[str]]:
    """Values by setting, in order; one name may stand several times."""
    found: dict[str, list[str]] = {}
    for line in UNITS[name].splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_each_service() -> None:
    assert list(UNITS) == ["headgate-aggregator.service", "headgate-bridge@.service", "headgate-edge@.service"]


@every_unit
def test_a_unit_starts_a_command_that_exists(name: str) -> None:
    (start,) = settings(name)["ExecStart"]
    program, *words = start.split()
    assert program == PROGRAM
    assert callable(build_parser().parse_args(words).run)


@every_unit
def test_a_unit_restarts_what_a_restart_can_mend(name: str) -> None:
    said = settings(name)
    assert said["Restart"] == ["on-failure"]
    prevented = {int(code) for code in said["RestartPreventExitStatus"][0].split()}
    assert prevented == {Exit.USAGE, Exit.BROKER, Exit.INTEGRITY}
    assert (said["Type"], said["NotifyAccess"]) == (["notify"], ["main"])
    assert int(said["WatchdogSec"][0]) > 0


@every_unit
def test_what_a_unit_overrides_is_a_setting(name: str) -> None:
    """The environment sets data_dir to the unit's own folder, and password files to its credentials."""
    said = settings(name)
    environment = dict(expanded(one).split("=", 1) for one in said["Environment"])
    fields = frozenset(CONFIGS[name.partition("@")[0].removesuffix(".service")].model_fields)
    content: dict[str, object] = {}
    override(content, environment, fields)
    assert content.pop("data_dir") == f"/var/lib/{expanded(said['StateDirectory'][0])}"
    ((group, given),) = content.items()
    assert group in fields
    assert isinstance(given, dict)
    credentials = {one.partition(":")[0] for one in said["LoadCredential"]}
    assert given["password_file"].removeprefix("/run/credentials/unit/") in credentials


def expanded(text: str) -> str:
    """With systemd's specifiers as they are for instance `berlin`."""
    return text.replace("%d", "/run/credentials/unit").replace("%S", "/var/lib").replace("%i", "berlin")


def installed(name: str, folder: Path) -> Path:
    """The unit with a program that exists, as an instance where it is a template."""
    path = folder / name.replace("@.", "@berlin.")
    path.write_text(UNITS[name].replace(PROGRAM, f"{sys.executable} -m headgate"), "utf-8")
    return path


@needs_systemd
@every_unit
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", installed(name, tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about_this = [line for line in ended.stderr.splitlines() if str(tmp_path) in line or "headgate" in line]
    assert (ended.returncode, about_this) == (0, [])


@needs_systemd
def test_a_line_that_systemd_does_not_know_is_found(tmp_path: Path) -> None:
    """So that the test above can fail."""
    path = installed("headgate-aggregator.service", tmp_path)
    path.write_text(path.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystm=strict"), "utf-8")
    command = ["systemd-analyze", "verify", "--man=no", path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "ProtectSystm" in ended.stderr


@needs_systemd
@every_unit
def test_a_unit_is_confined(name: str, tmp_path: Path) -> None:
    limit = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=true", limit, installed(name, tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout[-300:]
    assert "MemoryMax" in settings(name)
