"""Brokers by name: how each is started, what it speaks, how it says its version. Each ends with its test."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interop.programs import HERE, first_of, node_module, program
from tests.servers import Server, amqtt_server, free_port, mosquitto, wait_until_listening


@dataclass(frozen=True)
class Broker:
    """One broker that the full loop and the probes run on.

    Attributes: protocols: MQTT versions that it speaks. start: a fresh one on a free port. version: as it says itself.
    """

    name: str
    protocols: tuple[str, ...]
    start: Callable[[], AbstractContextManager[Server]]
    version: Callable[[], str]


@contextmanager
def _process(
    command: list[str], port: int, directory: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """A broker that may start processes of its own: all of them end with it."""
    output = directory / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        wait_until_listening(process, "127.0.0.1", port, output)
        yield Server("127.0.0.1", port, process, directory, log=output)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # nothing of it is needed again
        process.wait()


@contextmanager
def aedes() -> Iterator[Server]:
    """aedes in Node.js."""
    node_module("aedes")
    port = free_port()
    command = [program("node"), str(HERE / "js" / "aedes.js"), str(port)]
    with TemporaryDirectory(prefix="aedes-") as name, _process(command, port, Path(name)) as server:
        yield server


@contextmanager
def nats() -> Iterator[Server]:
    """NATS server with MQTT, which needs JetStream for QoS 1 and for what is retained."""
    port = free_port()
    with TemporaryDirectory(prefix="nats-") as name:
        directory = Path(name)
        config = directory / "nats.conf"
        config.write_text(
            f'server_name: interop\nlisten: "127.0.0.1:{free_port()}"\n'
            f'jetstream {{ store_dir: "{directory / "jetstream"}" }}\nmqtt {{ listen: "127.0.0.1:{port}" }}\n'
        )
        with _process([program("nats-server"), "-c", str(config)], port, directory) as server:
            yield server


@contextmanager
def rabbitmq() -> Iterator[Server]:
    """RabbitMQ with its MQTT plugin, and an Erlang port mapper of its own."""
    script = first_of("rabbitmq_server-*/sbin/rabbitmq-server", "/usr/lib/rabbitmq/lib", "rabbitmq-server")
    port, mapper_port = free_port(), free_port()
    with TemporaryDirectory(prefix="rabbitmq-") as name:
        directory = Path(name)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{free_port()}\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\n"
            "mqtt.allow_anonymous = true\nlog.console = true\nlog.file = false\n"
        )
        (directory / "plugins").write_text("[rabbitmq_mqtt].\n")
        environment = {
            "HOME": name,
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"interop{port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2",
        }
        mapper = [program("epmd"), "-port", str(mapper_port), "-address", "127.0.0.1"]
        with _process(mapper, mapper_port, directory), _process([str(script)], port, directory, environment) as server:
            yield server


def _said(command: str, *arguments: str, pattern: str) -> str:
    done = subprocess.run([program(command), *arguments], capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    assert found is not None, done
    return found[1]


def _npm(name: str) -> str:
    return str(json.loads((node_module(name) / "package.json").read_text())["version"])


def _rabbitmq_version() -> str:
    script = first_of("rabbitmq_server-*/sbin/rabbitmq-server", "/usr/lib/rabbitmq/lib", "rabbitmq-server")
    return script.parts[-3].removeprefix("rabbitmq_server-")


BROKERS = (
    Broker("Mosquitto", ("3.1.1", "5"), mosquitto, lambda: _said("mosquitto", "-h", pattern=r"version (\S+)")),
    Broker("amqtt", ("3.1.1",), amqtt_server, lambda: version("amqtt")),
    Broker("aedes", ("3.1.1",), aedes, lambda: _npm("aedes")),
    Broker("NATS server", ("3.1.1",), nats, lambda: _said("nats-server", "-v", pattern=r"v(\d\S+)")),
    Broker("RabbitMQ", ("3.1.1",), rabbitmq, _rabbitmq_version),
)
RUNS = [(broker, protocol) for broker in BROKERS for protocol in broker.protocols]
"""Every broker with every MQTT version that it speaks."""


def label(run: tuple[Broker, str]) -> str:
    """A run's name in a test's id."""
    return f"{run[0].name.split()[0].lower()}-{run[1]}"
