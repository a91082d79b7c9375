"""What both network sessions share: a paho client run by the event loop, without a thread.

paho keeps the protocol (packets, packet ids, keepalive). This module keeps what it leaves to its user: the socket's
readiness, the timer, and an answer for everybody who waits when the connection ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker_bridge._open import Stage
from broker_bridge._socket import Wire
from broker_bridge._websocket import MAX_PACKET_BYTES
from broker_bridge.config import BrokerConfig
from broker_bridge.session import (
    BrokerRefused,
    BrokerUnreachable,
    PublishRefused,
    SessionLost,
)

MAX_INFLIGHT = 64
"""Publishes of one session that wait for their end at the same time; further ones wait for their turn."""

T = TypeVar("T")

_DISCONNECT_S = 1.0
_MISC_S = 1.0
_READS_PER_TURN = 256
_CLOSED = "the session was closed"
# Reasons that a further attempt meets again (MQTT 5, section 3.2.2.2). paho translates the codes of 3.1.1 to these.
_PERMANENT = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x9A, 0x9B, 0x9D})


def protocol_version(config: BrokerConfig) -> MQTTProtocolVersion:
    """Return paho's name of the configured protocol version."""
    return MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311


def clean_session(config: BrokerConfig) -> bool | None:
    """Return paho's `clean_session`; with MQTT 5 it is unset, and each client's first connection is a clean start."""
    return None if config.protocol == "5" else True


def requests(config: BrokerConfig, filters: tuple[str, ...], qos: int) -> list[Any]:
    """Return filters as paho wants them in the configured protocol version."""
    if config.protocol == "5":
        return [(topic_filter, SubscribeOptions(qos=qos)) for topic_filter in filters]
    return [(topic_filter, qos) for topic_filter in filters]


def check_granted(config: BrokerConfig, filters: tuple[str, ...], answers: list[ReasonCode]) -> None:
    """Raise BrokerRefused with the filters that a SUBACK didn't grant."""
    refused = [
        f"{topic_filter!r} ({str(answer).lower()})"
        for topic_filter, answer in zip(filters, answers, strict=False)
        if answer.is_failure
    ]
    if refused or len(answers) < len(filters):
        named = ", ".join(refused) or "some filters"
        raise BrokerRefused(f"broker {config.address} refused the subscription to {named}")


@asynccontextmanager
async def answer_in_time(config: BrokerConfig) -> AsyncIterator[Stage]:
    """Bound everything up to CONNACK; what is waited for stands in the stage. Raises: BrokerUnreachable."""
    stage = Stage()
    try:
        async with asyncio.timeout(config.connect_timeout_s):
            yield stage
    except TimeoutError:
        raise BrokerUnreachable(
            f"broker {config.address} unreachable: no answer within {config.connect_timeout_s:g} s, "
            f"waiting for {stage.waiting_for}"
        ) from None


class Driver:
    """Runs one paho client for the length of one connection.

    Args:
        client: a paho client that isn't connected yet; its callbacks are called on after the driver's own.
        sock: the open connection to the broker; the driver closes it.
        config: the broker's address for messages to people.
    """

    def __init__(self, client: mqtt.Client, sock: Wire, config: BrokerConfig) -> None:
        self.max_packet_bytes = _packet_limit(config, None)
        self._client = client
        self._sock = sock
        self._fd = sock.fileno()
        self._config = config
        self._address = config.address  # put together from the URL each time that it is asked
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[list[ReasonCode] | None]] = {}
        self._slots = asyncio.Semaphore(MAX_INFLIGHT)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._reason = ""
        # paho has no public way to take a connection that is open already.
        client._create_socket = lambda: sock  # type: ignore[method-assign] # noqa: SLF001
        client.max_inflight_messages_set(MAX_INFLIGHT)
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_connect = _both(self._on_connect, client.on_connect)
        client.on_publish = _both(self._on_publish, client.on_publish)
        self._next_on_disconnect: Callable[..., Any] | None = client.on_disconnect
        client.on_disconnect = self._on_disconnect

    def check(self) -> None:
        """Raise SessionLost with the cause if the connection is over."""
        if self._over.done():
            raise self._lost()

    async def accepted(self) -> None:
        """Wait for CONNACK. Raises: BrokerRefused, BrokerUnreachable."""
        await _first(self._connack, self._over)
        address = self._address
        if not self._connack.done():
            hint = " (does it speak MQTT 5?)" if self._config.protocol == "5" else ""
            raise BrokerUnreachable(f"broker {address} unreachable: {self._reason} before it answered{hint}")
        answer = self._connack.result()
        if answer.value in _PERMANENT:
            raise BrokerRefused(f"broker {address} refused the connection: {str(answer).lower()}")
        if answer.is_failure:
            raise BrokerUnreachable(f"broker {address} took no connection: {str(answer).lower()}")

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish; at QoS 0 return when it is written, at QoS 1 after PUBACK. Raises: SessionLost, PublishRefused."""
        self.check()
        address, limit = self._address, self.max_packet_bytes
        # The fixed header takes up to 5 bytes; topic length, packet id and the length of properties take 5 more.
        if limit is not None and len(payload) + len(topic.encode()) + 10 > limit:
            why = "over WebSocket" if limit == MAX_PACKET_BYTES and self._config.websocket else "it announced"
            raise PublishRefused(
                f"{len(payload)} bytes on {topic!r} are more than broker {address} takes: {why} {limit}"
            )
        slots = self._slots
        await slots.acquire()
        try:
            self.check()
            info = self._client.publish(topic, payload, qos, retain)
            if info.rc == mqtt.MQTT_ERR_NO_CONN:
                raise self._lost()
            if info.rc != mqtt.MQTT_ERR_SUCCESS:
                raise PublishRefused(f"the message on {topic!r} wasn't sent: {mqtt.error_string(info.rc)}")
        except BaseException:
            slots.release()
            raise
        acknowledgement = self._expect(info.mid)
        # The slot belongs to the packet, not to its publisher: one who gives up waiting doesn't make room.
        acknowledgement.add_done_callback(lambda _: slots.release())
        (answer,) = await self._answer(acknowledgement)
        if answer.is_failure:
            raise PublishRefused(f"broker {address} refused the message on {topic!r}: {str(answer).lower()}")

    async def answer(self, mid: int) -> list[ReasonCode]:
        """Wait for the acknowledgement of a packet that paho was just given. Raises: SessionLost."""
        return await self._answer(self._expect(mid))

    def acknowledge(self, mid: int, answers: list[ReasonCode]) -> None:
        """Wake who waits for this packet id."""
        acknowledgement = self._waiting.pop(mid, None)
        if acknowledgement is not None:
            acknowledgement.set_result(answers)

    def _expect(self, mid: int) -> asyncio.Future[list[ReasonCode] | None]:
        acknowledgement: asyncio.Future[list[ReasonCode] | None] = self._loop.create_future()
        self._waiting[mid] = acknowledgement
        return acknowledgement

    async def _answer(self, acknowledgement: asyncio.Future[list[ReasonCode] | None]) -> list[ReasonCode]:
        await _settled(acknowledgement)
        answers = acknowledgement.result()
        if answers is None:
            raise self._lost()
        return answers

    async def unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that wouldn't notice the end of the connection. Raises: SessionLost."""
        task = asyncio.ensure_future(work)
        try:
            await _first(task, self._over)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise self._lost()
        return task.result()

    async def wait_closed(self) -> None:
        """Wait for the end of the connection. Raises: SessionLost."""
        await asyncio.wait({self._over})
        self.check()

    async def leave(self, disconnect: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Send DISCONNECT after what is queued, wait until the broker closes, at most a second in all; then close.

        Args:
            disconnect: how a client on top of paho says it.
        """
        if not self._over.done():
            self._sock.half_close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_DISCONNECT_S):
                    if disconnect is None:
                        self._client.disconnect()
                        await asyncio.wait({self._over})
                    else:
                        with suppress(SessionLost):
                            await self.unless_lost(disconnect())
                    await self._sock.read_to_end()
        self.abort()

    def abort(self, reason: str = _CLOSED) -> None:
        """Close the socket without DISCONNECT and end every wait; again does nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._detach()
        self._sock.release()
        self._end(reason)
        client = self._client
        client.on_socket_open = client.on_socket_close = None
        client.on_socket_register_write = client.on_socket_unregister_write = None

    def _end(self, reason: str) -> None:
        if self._over.done():
            return
        self._reason = reason
        self._over.set_result(None)
        waiting, self._waiting = self._waiting, {}
        for acknowledgement in waiting.values():
            acknowledgement.set_result(None)

    def _lost(self) -> SessionLost:
        return SessionLost(f"connection to broker {self._address} lost: {self._reason or 'not connected'}")

    def _on_connect(
        self, _client: mqtt.Client, _userdata: Any, _flags: mqtt.ConnectFlags, code: ReasonCode, properties: Properties
    ) -> None:
        self.max_packet_bytes = _packet_limit(self._config, getattr(properties, "MaximumPacketSize", None))
        # paho doesn't heed this announcement, and a broker ends the connection of a client that sends more.
        announced = getattr(properties, "ReceiveMaximum", None)
        if announced is not None and announced < MAX_INFLIGHT:
            self._slots = asyncio.Semaphore(announced)
        if not self._connack.done():
            self._connack.set_result(code)

    def _on_disconnect(
        self, client: mqtt.Client, userdata: Any, flags: mqtt.DisconnectFlags, code: ReasonCode, properties: object
    ) -> None:
        error = self._sock.error
        if flags.is_disconnect_packet_from_server:
            self._end(f"ended by the broker: {str(code).lower()}")
        elif error is not None:
            self._end((error.strerror or str(error)).lower())
        elif not code.is_failure:
            self._end(_CLOSED)
            # A client on top hears of a clean end only: who waits in it for anything else is woken by `unless_lost`.
            if self._next_on_disconnect is not None:
                self._next_on_disconnect(client, userdata, flags, code, properties)
        elif code.getName() == "Unspecified error":
            self._end("closed by the broker")
        else:
            self._end(code.getName().lower())

    def _on_publish(self, _client: mqtt.Client, _userdata: Any, mid: int, code: ReasonCode, _rest: object) -> None:
        self.acknowledge(mid, [code])

    def _on_socket_open(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        self._soon(self._attach)

    def _on_socket_close(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        self._detach()

    def _on_register_write(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        # Most writes fit into the socket's buffer: write in the next turn, and wait for readiness if one doesn't fit.
        self._soon(self._write)

    def _on_unregister_write(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        self._watch_writing(wanted=False)  # paho calls it while it writes: `_write` looks at what the socket keeps

    def _soon(self, call: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            self._loop.call_soon(call)
        else:  # aiomqtt connects in a thread of its own
            self._loop.call_soon_threadsafe(call)

    def _attach(self) -> None:
        if not self._over.done():
            self._loop.add_reader(self._fd, self._read)
            self._timer = self._loop.call_later(_MISC_S, self._misc)

    def _detach(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            if not self._step(self._client.loop_read):
                return
            if not self._sock.pending():
                break
        else:
            self._loop.call_soon(self._read)  # the rest has been read already: no readiness will tell of it
        if self._sock.unsent:  # reading makes a WebSocket answer pings, and an answer may not fit
            self._watch_writing(wanted=True)

    def _write(self) -> None:
        # A readiness may come for what the socket keeps alone, which paho knows nothing of.
        self._sock.flush()
        if self._step(self._client.loop_write):
            self._watch_writing(wanted=self._client.want_write() or self._sock.unsent)

    def _watch_writing(self, *, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._fd, self._write)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._fd)
        self._writing = wanted

    def _misc(self) -> None:
        if self._step(self._client.loop_misc):
            self._timer = self._loop.call_later(_MISC_S, self._misc)

    def _step(self, step: Callable[[], MQTTErrorCode]) -> bool:
        """Let paho do one thing; return whether the connection goes on."""
        if not self._over.done():
            try:
                step()
            except Exception as error:  # what paho raises on packets that it can't parse has many types
                self.abort(f"the broker sent something that can't be read ({type(error).__name__}: {error})")
        return not self._over.done()


@asynccontextmanager
async def closing(
    driver: Driver, disconnect: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> AsyncIterator[None]:
    """Hold a connection; leaving sends DISCONNECT, leaving through SessionLost only closes."""
    try:
        yield
    except (SessionLost, GeneratorExit):
        raise
    except BaseException:
        await driver.leave(disconnect)
        raise
    else:
        await driver.leave(disconnect)
    finally:
        driver.abort()


def _packet_limit(config: BrokerConfig, announced: int | None) -> int | None:
    if not config.websocket:
        return announced
    return MAX_PACKET_BYTES if announced is None else min(announced, MAX_PACKET_BYTES)


async def _settled(future: asyncio.Future[Any]) -> None:
    """Wait for a future that others set, at half the cost of `asyncio.wait`; cancelling the wait leaves it alone."""
    if future.done():
        return
    waiter = future.get_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _both(ours: Callable[..., None], theirs: Callable[..., Any] | None) -> Callable[..., None]:
    if theirs is None:
        return ours

    def both(*arguments: Any) -> None:
        ours(*arguments)
        theirs(*arguments)

    return both
