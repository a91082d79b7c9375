"""The brokers of `deploy/` as real Mosquitto processes: their own files, with other paths and another port."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker_bridge.config import BrokerConfig
from broker_bridge.embedded import free_port
from tests.servers import Server, mosquitto_on

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
PROBE = "probe"
"""A user whom tests add: it may do everything, and sees what others could do."""


def make_secrets(folder: Path, *arguments: str) -> None:
    """Run `deploy/make-certificates`."""
    subprocess.run([DEPLOY / "make-certificates", folder, *arguments], check=True, capture_output=True, timeout=60)


@contextmanager
def broker(conf: Path, acl: Path, secrets: Path, folder: Path, extra: str = "", port: int = 0) -> Iterator[Server]:
    """Run a broker of `deploy/mosquitto`.

    Args:
        conf, acl: its files as they stand in the repository.
        secrets: certificates and passwords (`FOLDER/NAME/broker` of make-certificates).
        folder: where its data and the access rules with the probe's go.
        extra: further lines of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    rules = folder / "acl"
    rules.write_text(f"{acl.read_text('utf-8')}\nuser {PROBE}\ntopic readwrite #\n", "utf-8")
    text = substituted(
        conf.read_text("utf-8") + extra,
        {
            "listener 8883\n": f"listener {port} 127.0.0.1\n",
            "/mosquitto/headgate/": f"{secrets}/",
            "/mosquitto/config/headgate.acl": str(rules),
            "/mosquitto/data/": f"{folder}/",
        },
    )
    with mosquitto_on(text, port) as server:
        yield server


def substituted(text: str, names: dict[str, str]) -> str:
    """The text with names in place of others; each of them has to occur."""
    for old, new in names.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def login(server: Server, secrets: Path, name: str, user: str) -> BrokerConfig:
    """A user's way to a broker, with what make-certificates made."""
    home = secrets / name / user
    return BrokerConfig(url=server.url, username=user, password_file=home / "password", ca_file=home / "ca.pem")
