"""The brokers and client libraries that the `Session` interface is tested on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.memory import MemoryBroker
from broker_bridge.network import ProxyConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Connector
from tests.servers import Certificates, Server, amqtt_server, make_certificates, mosquitto, tinyproxy


class RunningBroker(Protocol):
    """A broker that a test talks to."""

    def connector(self, username: str | None = None, password: str | None = None) -> Connector: ...

    def freeze(self) -> None:
        """Stop answering while connections stay open, where that differs from being killed."""

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Backend:
    """A client library on a broker, in a protocol version."""

    library: Literal["memory", "aiomqtt", "paho"]
    server: Literal["memory", "amqtt", "mosquitto"]
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    way: Literal["tcp", "ws", "wss", "proxy"] = "tcp"
    """How it gets there: `wss` and `proxy` with a client certificate, `proxy` with credentials of its own too."""

    def __str__(self) -> str:
        if self.library == "memory":
            return "memory"
        return "-".join([self.library, self.server, self.protocol, *([] if self.way == "tcp" else [self.way])])

    @contextmanager
    def broker(self, passwords: dict[str, str] | None = None) -> Iterator[RunningBroker]:
        """Start the broker for the length of the context."""
        if self.server == "memory":
            yield _Memory(MemoryBroker(credentials=passwords))
        elif self.server == "amqtt":
            assert passwords is None, "the embedded broker lets everybody in"
            with amqtt_server() as server:
                yield _Network(self, server)
        else:
            with ExitStack() as stack:
                certificates = None
                if self.way in {"wss", "proxy"}:
                    folder = stack.enter_context(TemporaryDirectory(prefix="certificates-"))
                    certificates = make_certificates(Path(folder))
                server = stack.enter_context(
                    mosquitto(passwords=passwords, certificates=certificates, websockets=self.way in {"ws", "wss"})
                )
                way = {} if certificates is None else with_certificates(certificates)
                if self.way == "proxy":
                    proxy = stack.enter_context(tinyproxy(server.port, users={"plant": "let-me-out"}))
                    (proxy.directory / "password").write_text("let-me-out\n", "utf-8")
                    way["proxy"] = ProxyConfig(
                        url=proxy.url, username="plant", password_file=proxy.directory / "password"
                    )
                yield _Network(self, server, way)


def with_certificates(certificates: Certificates) -> dict[str, Any]:
    """The fields of a configuration that trusts the authority and shows the client's certificate."""
    return {
        "ca_file": certificates.ca,
        "client_certificate_file": certificates.client,
        "client_key_file": certificates.client_key,
    }


MEMORY = Backend("memory", "memory")
MOSQUITTO = [Backend(library, "mosquitto", protocol) for library in ("aiomqtt", "paho") for protocol in ("3.1.1", "5")]
"""Mosquitto does everything that the suite asks for."""
WEBSOCKET = [
    *(replace(backend, way="ws") for backend in MOSQUITTO),
    Backend("aiomqtt", "mosquitto", "5", "wss"),
    Backend("paho", "mosquitto", "3.1.1", "wss"),
]
PROXY = [Backend("aiomqtt", "mosquitto", "5", "proxy"), Backend("paho", "mosquitto", "3.1.1", "proxy")]
AMQTT = [Backend("aiomqtt", "amqtt"), Backend("paho", "amqtt")]
"""amqtt speaks MQTT 3.1.1 only and, as embedded, asks for no credentials."""
EVERY = [MEMORY, *AMQTT, *MOSQUITTO, *WEBSOCKET, *PROXY]
WITH_CREDENTIALS = [MEMORY, *MOSQUITTO, *WEBSOCKET, *PROXY]


class _Memory:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def connector(self, username: str | None = None, password: str | None = None) -> Connector:
        return self._broker.connector(username=username, password=password)

    def freeze(self) -> None:
        pass  # an acknowledgement here takes a turn of the loop: there is time to kill it in between

    def kill(self) -> None:
        self._broker.stop()


class _Network:
    def __init__(self, backend: Backend, server: Server, way: dict[str, Any] | None = None) -> None:
        self._backend = backend
        self._server = server
        self._way = way or {}

    def connector(self, username: str | None = None, password: str | None = None) -> Connector:
        password_file = None
        if password is not None:
            password_file = self._server.directory / f"{username}.password"
            password_file.write_text(f"{password}\n", "utf-8")
        config = BrokerConfig(
            url=self._server.url,
            username=username,
            password_file=password_file,
            protocol=self._backend.protocol,
            **self._way,
        )
        return network_connector(self._backend, config)

    def freeze(self) -> None:
        self._server.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._server.kill()


def network_connector(backend: Backend, config: BrokerConfig) -> Connector:
    """Return the backend's connector for a configuration."""
    return AiomqttConnector(config) if backend.library == "aiomqtt" else PahoConnector(config)
