"""Fixtures for brokers. They last for a test module: starting one takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Certificates, Server, amqtt_server, make_certificates, mosquitto

collect_ignore = ["interop"]
"""`make interop` runs these: they need programs beside Headgate."""


@pytest.fixture(scope="module")
def mosquitto_server() -> Iterator[Server]:
    """A Mosquitto that lets everybody in."""
    with mosquitto() as server:
        yield server


@pytest.fixture(scope="module")
def embedded_server() -> Iterator[Server]:
    """The embedded broker in a process of its own."""
    with amqtt_server() as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority with a server and a client."""
    directory: Path = tmp_path_factory.mktemp("certificates")
    return make_certificates(directory)
