"""What the rest of Headgate knows of MQTT: one session with one broker, behind one small interface.

A `Connector` opens sessions; a `Session` is one connection from CONNACK to its end. Three connectors exist: aiomqtt
(control plane), paho (sensor hot path) and an in-memory broker for tests. One conformance suite runs on all of them.

Errors:
    SessionError
    ├── BrokerUnreachable    no connection: wait and try again
    ├── BrokerRefused        the broker or a proxy answered no (credentials, authorisation): trying again won't help
    ├── BrokerMisconfigured  a file that the configuration names can't be used: trying again won't help
    ├── SessionLost          the connection ended while in use
    └── PublishRefused       the broker took the packet and refused it (MQTT 5 reason code), or it is over the limit
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


class SessionError(Exception):
    """Root of what a session can raise."""


class BrokerUnreachable(SessionError):
    """No connection could be made: network, name, TLS handshake, or a broker that is starting."""


class BrokerRefused(SessionError):
    """The broker, or a proxy on the way, refused for a reason that trying again won't change (credentials)."""


class BrokerMisconfigured(SessionError):
    """A password, certificate or key file that the configuration names is missing or can't be used."""


class SessionLost(SessionError):
    """The connection ended: a publish in flight may or may not have arrived."""


class PublishRefused(SessionError):
    """The broker refused this message (MQTT 5 reason code 0x80 and above, or larger than it announced)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One PUBLISH as received; `retain` is set only on copies that the broker kept from before the subscription."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a session that ends without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


OnMessage = Callable[[Message], None]


class Session(Protocol):
    """One connection to a broker. Messages arrive through the connector's `on_message`, on the event loop's thread."""

    @property
    def max_packet_bytes(self) -> int | None:
        """The largest packet that may be sent: what the broker announced (MQTT 5), at most 60,000 over WebSocket; None
        for no known limit.
        """

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish; at QoS 1 return after PUBACK. A PUBACK is no proof of durability.

        Raises: SessionLost: the connection ended first. PublishRefused: the broker said no.
        """

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Subscribe and return after SUBACK. Raises: SessionLost; BrokerRefused: a filter was not granted."""

    async def unsubscribe(self, *filters: str) -> None:
        """Unsubscribe and return after UNSUBACK. Raises: SessionLost."""

    async def wait_closed(self) -> None:
        """Return never while the session lives. Raises: SessionLost with the cause when it ends by itself."""


class Connector(Protocol):
    """Opens sessions with one broker."""

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """Open a session (clean start). Leaving the context sends DISCONNECT, so the will is not published;
        leaving it through SessionLost doesn't.

        Raises: BrokerUnreachable, BrokerRefused, BrokerMisconfigured.
        """
