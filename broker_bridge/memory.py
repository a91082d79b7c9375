"""A broker inside the process: the twin of a real one for tests and simulations, without sockets and without time.

It follows MQTT 3.1.1 where a client can see it: retained messages and their flag, wills, takeover of a client id,
wildcards, overlapping subscriptions (one copy, at the highest QoS granted). Delivery is asynchronous, one turn of the
event loop later, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Literal

from broker_bridge._dispatch import dispatch
from broker_bridge.session import (
    BrokerRefused,
    BrokerUnreachable,
    Message,
    OnMessage,
    PublishRefused,
    Session,
    SessionLost,
    Will,
)
from uns_topics.filters import matches, validate_filter, validate_topic

_ADDRESS = "memory://broker"

OverLimit = Literal["announce", "drop", "disconnect"]


class MemoryBroker:
    """One broker; its knobs are plain attributes and may be turned while it runs.

    Args:
        credentials: passwords by user name; None lets everybody in.
        max_packet_bytes: the largest payload taken; None for no limit.
        over_limit: what happens above it. `announce`: sessions know the limit and refuse to send (MQTT 5). `drop`: the
            message is acknowledged and thrown away (Mosquitto's `message_size_limit`). `disconnect`: the connection
            ends (Mosquitto's `max_packet_size` towards MQTT 3.1.1).
        duplicate: deliver each QoS 1 message twice, as a broker may.
    """

    def __init__(
        self,
        *,
        credentials: Mapping[str, str] | None = None,
        max_packet_bytes: int | None = None,
        over_limit: OverLimit = "announce",
        duplicate: bool = False,
    ) -> None:
        self.credentials = credentials
        self.max_packet_bytes = max_packet_bytes
        self.over_limit: OverLimit = over_limit
        self.duplicate = duplicate
        self.reachable = True
        """Whether new connections are answered."""
        self.blocked: frozenset[str] = frozenset()
        """Clients whose connections are not answered, as if the way to them was cut."""
        self.denied_filters: frozenset[str] = frozenset()
        """Filters that a SUBACK refuses."""
        self.denied_topics: frozenset[str] = frozenset()
        """Topics whose publishers get a refusal."""
        self.record: list[Message] = []
        """Every message published so far, wills included, in order."""
        self.retained: dict[str, Message] = {}
        self._sessions: dict[str, _MemorySession] = {}

    @property
    def clients(self) -> tuple[str, ...]:
        """Client ids of the open sessions."""
        return tuple(self._sessions)

    def connector(self, *, username: str | None = None, password: str | None = None) -> MemoryConnector:
        """Return a connector of this broker that shows these credentials."""
        return MemoryConnector(self, username, password)

    def drop(self, client_id: str, reason: str = "connection reset") -> None:
        """End a session abnormally: its will is published and everything that waits on it raises SessionLost.

        Raises: KeyError: no such session.
        """
        session = self._sessions.pop(client_id)
        session.end(reason)
        self._publish_will(session)

    def stop(self, *, forget: bool = True) -> None:
        """Go away as a killed broker does: no wills, sessions lost, new connections unanswered.

        Args:
            forget: lose the retained messages too, like a broker without persistence.
        """
        self.reachable = False
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.end("broker stopped")
        if forget:
            self.retained.clear()

    def start(self) -> None:
        """Answer connections again."""
        self.reachable = True

    def open(self, client_id: str, username: str | None, password: str | None, session: _MemorySession) -> None:
        """Let a session in; one of the same client id is taken over. Raises: BrokerUnreachable, BrokerRefused."""
        if not self.reachable or client_id in self.blocked:
            raise BrokerUnreachable(f"broker {_ADDRESS} unreachable: connection refused")
        if self.credentials is not None and (
            username is None or password is None or self.credentials.get(username) != password
        ):
            raise BrokerRefused(f"broker {_ADDRESS} refused the connection: bad user name or password")
        if client_id in self._sessions:
            self.drop(client_id, "another session took over the client id")
        self._sessions[client_id] = session

    def close(self, session: _MemorySession, *, clean: bool) -> None:
        """End a session from the client's side; without DISCONNECT its will is published."""
        if self._sessions.get(session.client_id) is not session:
            return
        del self._sessions[session.client_id]
        session.end("the session was closed")
        if not clean:
            self._publish_will(session)

    def route(self, message: Message, *, retain: bool) -> None:
        """Record, retain and deliver one published message."""
        self.record.append(replace(message, retain=retain))
        if retain:
            if message.payload:
                self.retained[message.topic] = replace(message, retain=True)
            else:
                self.retained.pop(message.topic, None)
        for session in self._sessions.values():
            granted = [qos for want, qos in session.filters.items() if matches(want, message.topic)]
            if granted:
                session.enqueue(replace(message, qos=min(message.qos, max(granted))))

    def deliveries(self, client_id: str, message: Message) -> Sequence[float]:
        """Seconds after which a client gets this message, once for each; a subclass may lose and delay some."""
        del client_id
        return (0.0, 0.0) if self.duplicate and message.qos else (0.0,)

    def replay(self, topic_filter: str, qos: int, session: _MemorySession) -> None:
        """Deliver what is retained under a filter that was just subscribed to."""
        for topic, message in self.retained.items():
            if matches(topic_filter, topic):
                session.enqueue(replace(message, qos=min(message.qos, qos)))

    def _publish_will(self, session: _MemorySession) -> None:
        will = session.will
        if will is not None:
            self.route(Message(will.topic, will.payload, will.qos), retain=will.retain)


class MemoryConnector:
    """Opens sessions with a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, username: str | None = None, password: str | None = None) -> None:
        self._broker = broker
        self._username = username
        self._password = password

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """Open a session, as `Connector.connect` says."""
        return self._connect(client_id, on_message, will)

    @asynccontextmanager
    async def _connect(self, client_id: str, on_message: OnMessage, will: Will | None) -> AsyncIterator[Session]:
        await asyncio.sleep(0)  # a real CONNECT never returns within the same turn either
        session = _MemorySession(self._broker, client_id, on_message, will)
        self._broker.open(client_id, self._username, self._password, session)
        clean = True
        try:
            yield session
        except (SessionLost, GeneratorExit):
            clean = False
            raise
        finally:
            self._broker.close(session, clean=clean)


class _MemorySession:
    def __init__(self, broker: MemoryBroker, client_id: str, on_message: OnMessage, will: Will | None) -> None:
        self.client_id = client_id
        self.will = will
        self.filters: dict[str, int] = {}
        self._broker = broker
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._reason = ""

    @property
    def max_packet_bytes(self) -> int | None:
        return self._broker.max_packet_bytes if self._broker.over_limit == "announce" else None

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._check()
        validate_topic(topic)
        broker = self._broker
        if topic in broker.denied_topics:
            raise PublishRefused(f"broker {_ADDRESS} refused the message on {topic!r}: not authorised")
        limit = broker.max_packet_bytes
        if limit is None or len(payload) <= limit:
            broker.route(Message(topic, bytes(payload), qos), retain=retain)
        elif broker.over_limit == "announce":
            raise PublishRefused(f"{len(payload)} bytes on {topic!r} are more than the broker's limit of {limit}")
        elif broker.over_limit == "disconnect":
            broker.drop(self.client_id, "packet too large")
        await self._turn()

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        self._check()
        for topic_filter in filters:
            validate_filter(topic_filter)
        granted = [topic_filter for topic_filter in filters if topic_filter not in self._broker.denied_filters]
        for topic_filter in granted:
            self.filters[topic_filter] = qos
            self._broker.replay(topic_filter, qos, self)
        await self._turn()
        if len(granted) < len(filters):
            refused = ", ".join(repr(name) for name in filters if name not in granted)
            raise BrokerRefused(f"broker {_ADDRESS} refused the subscription to {refused}: not authorised")

    async def unsubscribe(self, *filters: str) -> None:
        self._check()
        for topic_filter in filters:
            self.filters.pop(topic_filter, None)
        await self._turn()

    async def wait_closed(self) -> None:
        await self._ended.wait()
        self._check()

    def enqueue(self, message: Message) -> None:
        """Deliver in a later turn of the loop, as often and as late as the broker says."""
        for after_s in self._broker.deliveries(self.client_id, message):
            if after_s:
                self._loop.call_later(after_s, self._deliver, message)
            else:
                self._loop.call_soon(self._deliver, message)

    def end(self, reason: str) -> None:
        """Mark the session as ended: nothing is delivered from here on."""
        self._reason = reason
        self._ended.set()

    def _deliver(self, message: Message) -> None:
        if not self._ended.is_set():
            dispatch(self._loop, self._on_message, message)

    async def _turn(self) -> None:
        """Wait for the acknowledgement, which comes a turn later and only if the session still lives."""
        await asyncio.sleep(0)
        self._check()

    def _check(self) -> None:
        if self._ended.is_set():
            raise SessionLost(f"connection to broker {_ADDRESS} lost: {self._reason}")
