"""amqtt's broker with two of its departures from MQTT 3.1.1 and one waste of time put right (found in amqtt 0.12.1).

The overrides are of private methods; the conformance suite fails if a newer amqtt no longer calls the first two.
"""

from __future__ import annotations

from amqtt.broker import Broker
from amqtt.session import Session


class _Unprinted(bytes):
    """A payload that is cheap to format."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class DemoBroker(Broker):  # type: ignore[misc] # amqtt has no type information
    """A broker that keeps to itself what a client didn't subscribe to, and ends a session that is taken over."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        # At each CONNECT amqtt sends the newcomer the retained messages of everybody's subscriptions; and while it
        # waits for their acknowledgement, anybody's SUBSCRIBE breaks its loop and leaves the newcomer unserved.
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber is session for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _delete_session(self, client_id: str) -> None:
        # amqtt forgets the older session's subscriptions but leaves its connection open: a client that hears nothing
        # and isn't told (MQTT-3.1.4-2). Closed like this, its will is published as well.
        _, handler = self._sessions.get(client_id, (None, None))
        await super()._delete_session(client_id)
        if handler is not None:
            await handler.handle_connection_closed()

    async def _broadcast_message(
        self, session: Session | None, topic: str | None, data: bytes | bytearray | None, force_qos: int | None = None
    ) -> None:
        # amqtt formats each message for a debug line, read or not: 2 ms for 256 KiB, most of its time on a model.
        await super()._broadcast_message(session, topic, _Unprinted(data or b""), force_qos)
