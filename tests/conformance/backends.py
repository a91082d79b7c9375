"""The brokers and client libraries that the `Session` interface is tested on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.memory import MemoryBroker
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Connector
from tests.servers import Server, amqtt_server, mosquitto


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

    def __str__(self) -> str:
        return "memory" if self.library == "memory" else f"{self.library}-{self.server}-{self.protocol}"

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
            with mosquitto(passwords=passwords) as server:
                yield _Network(self, server)


MEMORY = Backend("memory", "memory")
MOSQUITTO = [Backend(library, "mosquitto", protocol) for library in ("aiomqtt", "paho") for protocol in ("3.1.1", "5")]
"""Mosquitto does everything that the suite asks for."""
AMQTT = [Backend("aiomqtt", "amqtt"), Backend("paho", "amqtt")]
"""amqtt speaks MQTT 3.1.1 only and, as embedded, asks for no credentials."""
EVERY = [MEMORY, *AMQTT, *MOSQUITTO]
WITH_CREDENTIALS = [MEMORY, *MOSQUITTO]


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
    def __init__(self, backend: Backend, server: Server) -> None:
        self._backend = backend
        self._server = server

    def connector(self, username: str | None = None, password: str | None = None) -> Connector:
        password_file = None
        if password is not None:
            password_file = self._server.directory / f"{username}.password"
            password_file.write_text(f"{password}\n", "utf-8")
        config = BrokerConfig(
            url=self._server.url, username=username, password_file=password_file, protocol=self._backend.protocol
        )
        return network_connector(self._backend, config)

    def freeze(self) -> None:
        self._server.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._server.kill()


def network_connector(backend: Backend, config: BrokerConfig) -> Connector:
    """Return the backend's connector for a configuration."""
    return AiomqttConnector(config) if backend.library == "aiomqtt" else PahoConnector(config)
