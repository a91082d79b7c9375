"""What both network sessions share: a paho client run by the event loop, without a thread.

paho keeps the protocol (packets, packet ids, keepalive). This module keeps what it leaves to its user: the socket's
readiness, the timer, and an answer for everybody who waits when the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_bridge._dispatch import dispatch
from broker_bridge._socket import ReadAheadSocket
from broker_bridge.config import BrokerConfig
from broker_bridge.session import (
    BrokerMisconfigured,
    BrokerRefused,
    BrokerUnreachable,
    Message,
    OnMessage,
    PublishRefused,
    SessionLost,
)

PAHO_LOGGER = logging.getLogger("broker_bridge.paho")
"""Where paho writes. It reports each end of a connection as an error; sessions raise instead, so it is kept quiet."""
PAHO_LOGGER.setLevel(logging.CRITICAL)

MAX_INFLIGHT = 64
"""QoS 1 messages that wait for PUBACK at the same time; further publishers wait their turn."""

_DISCONNECT_S = 1.0
_MISC_S = 1.0
_PACKETS_PER_TURN = 256
# Reasons that a further attempt meets again (MQTT 5, section 3.2.2.2). paho translates the codes of 3.1.1 to these.
_PERMANENT = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x9A, 0x9B, 0x9D})


def protocol_version(config: BrokerConfig) -> MQTTProtocolVersion:
    """Return paho's name of the configured protocol version."""
    return MQTTProtocolVersion.MQTTv5 if config.protocol == "5" else MQTTProtocolVersion.MQTTv311


def read_password(config: BrokerConfig) -> str | None:
    """Read the password file, without its last line break. Raises: BrokerMisconfigured."""
    if config.password_file is None:
        return None
    try:
        return config.password_file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BrokerMisconfigured(f"the password file {config.password_file} can't be read: {reason}") from error


class Driver:
    """Runs one paho client for the length of one connection.

    Args:
        client: a paho client that isn't connected; its callbacks are chained, not replaced.
        sock: the open connection to the broker; the driver closes it.
        config: for messages to people.
    """

    def __init__(self, client: mqtt.Client, sock: ReadAheadSocket, config: BrokerConfig) -> None:
        self.max_packet_bytes: int | None = None
        self._client = client
        self._sock = sock
        self._fd = sock.fileno()
        self._address = config.address
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._acknowledgements: dict[int, asyncio.Future[ReasonCode]] = {}
        self._slots = asyncio.Semaphore(MAX_INFLIGHT)
        self._ended = asyncio.Event()
        self._reason = ""
        # paho has no public way to take a socket that is open already.
        client._create_socket = lambda: sock  # type: ignore[method-assign] # noqa: SLF001
        client.max_inflight_messages_set(MAX_INFLIGHT)
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_connect = _chain(self._on_connect, client.on_connect)
        client.on_disconnect = _chain(self._on_disconnect, client.on_disconnect)
        client.on_publish = _chain(self._on_publish, client.on_publish)

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        return self._ended.is_set()

    def check(self) -> None:
        """Raise SessionLost with the cause if the connection is over."""
        if self._ended.is_set():
            raise SessionLost(f"connection to broker {self._address} lost: {self._reason}")

    async def accepted(self) -> None:
        """Wait for CONNACK. Raises: BrokerRefused, BrokerUnreachable."""
        over = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({self._connack, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if not self._connack.done():
            raise BrokerUnreachable(f"broker {self._address} unreachable: {self._reason}")
        answer = self._connack.result()
        if answer.value in _PERMANENT:
            raise BrokerRefused(f"broker {self._address} refused the connection: {str(answer).lower()}")
        if answer.is_failure:
            raise BrokerUnreachable(f"broker {self._address} took no connection: {str(answer).lower()}")

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish; at QoS 0 return when it is written, at QoS 1 after PUBACK. Raises: SessionLost, PublishRefused."""
        self.check()
        limit = self.max_packet_bytes
        # Fixed header and its length take up to 5 bytes, topic length, packet id and properties length 5 more.
        if limit is not None and len(payload) + len(topic.encode()) + 10 > limit:
            raise PublishRefused(
                f"{len(payload)} bytes on {topic!r} are more than broker {self._address} takes: its limit is {limit}"
            )
        async with self._slots:
            self.check()
            info = self._client.publish(topic, payload, qos, retain)
            if info.rc != mqtt.MQTT_ERR_SUCCESS:
                raise PublishRefused(f"message on {topic!r} couldn't be sent: {mqtt.error_string(info.rc)}")
            answer = await self.answer(info.mid)
        if answer.is_failure:
            raise PublishRefused(
                f"broker {self._address} refused the message on {topic!r}: {str(answer).lower()}"
            )

    async def answer(self, mid: int) -> ReasonCode:
        """Wait for the acknowledgement of a packet that was just handed to paho. Raises: SessionLost."""
        acknowledgement: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._acknowledgements[mid] = acknowledgement
        try:
            return await acknowledgement
        finally:
            self._acknowledgements.pop(mid, None)

    def acknowledge(self, mid: int, answer: ReasonCode) -> None:
        """Wake who waits for this packet id."""
        acknowledgement = self._acknowledgements.get(mid)
        if acknowledgement is not None and not acknowledgement.done():
            acknowledgement.set_result(answer)

    async def wait_closed(self) -> None:
        """Wait for the end of the connection. Raises: SessionLost."""
        await self._ended.wait()
        self.check()

    async def disconnect(self) -> None:
        """Send DISCONNECT after what is queued, within a second, and close."""
        if not self._ended.is_set() and self._client.disconnect() == mqtt.MQTT_ERR_SUCCESS:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _DISCONNECT_S)
        self.abort("the session was closed")

    def abort(self, reason: str) -> None:
        """Close the socket without DISCONNECT and end every wait; again does nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._detach()
        self._sock.close()
        self._end(reason)
        client = self._client
        client.on_socket_open = client.on_socket_close = None
        client.on_socket_register_write = client.on_socket_unregister_write = None

    def _end(self, reason: str) -> None:
        if self._ended.is_set():
            return
        self._reason = reason
        self._ended.set()
        lost = f"connection to broker {self._address} lost: {reason}"
        for acknowledgement in self._acknowledgements.values():
            if not acknowledgement.done():
                acknowledgement.set_exception(SessionLost(lost))

    def _on_connect(
        self, _client: mqtt.Client, _userdata: Any, _flags: mqtt.ConnectFlags, code: ReasonCode, properties: Properties
    ) -> None:
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        # paho doesn't heed this announcement, and a broker ends the connection of a client that sends more.
        announced = getattr(properties, "ReceiveMaximum", None)
        if announced is not None and announced < MAX_INFLIGHT:
            self._slots = asyncio.Semaphore(announced)
        if not self._connack.done():
            self._connack.set_result(code)

    def _on_disconnect(
        self, _client: mqtt.Client, _userdata: Any, flags: mqtt.DisconnectFlags, code: ReasonCode, _properties: object
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"the broker ended it: {str(code).lower()}")
        elif self._sock.error is not None:
            self._end(self._sock.error.strerror or str(self._sock.error))
        elif not code.is_failure:
            self._end("the session was closed")
        elif code.getName() in ("Keep alive timeout", "Protocol error"):
            self._end(code.getName().lower())
        else:
            self._end("the broker closed it")

    def _on_publish(
        self, _client: mqtt.Client, _userdata: Any, mid: int, code: ReasonCode, _properties: object
    ) -> None:
        self.acknowledge(mid, code)

    def _on_socket_open(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        self._on_loop(self._attach)

    def _on_socket_close(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        self._detach()

    def _on_register_write(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        # Most writes fit into the socket's buffer: try in the next turn, and wait for readiness only if one doesn't.
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._write)
        else:
            self._loop.call_soon_threadsafe(self._write)

    def _on_unregister_write(self, _client: mqtt.Client, _userdata: Any, _sock: object) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _on_loop(self, call: Callable[[], None]) -> None:
        """Call now on the loop's thread, or there soon: aiomqtt connects in a thread of its own."""
        if threading.get_ident() == self._thread:
            call()
        else:
            self._loop.call_soon_threadsafe(call)

    def _attach(self) -> None:
        if not self._ended.is_set():
            self._loop.add_reader(self._fd, self._read)
            self._timer = self._loop.call_later(_MISC_S, self._misc)

    def _detach(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    def _read(self) -> None:
        for _ in range(_PACKETS_PER_TURN):
            if self._ended.is_set() or self._failed(self._client.loop_read):
                return
            if not self._sock.pending():
                return
        self._loop.call_soon(self._read)  # the rest has been read already: no readiness will come for it

    def _write(self) -> None:
        if self._ended.is_set() or self._failed(self._client.loop_write):
            return
        if self._client.want_write() and not self._writing and self._sock.fileno() >= 0:
            self._writing = True
            self._loop.add_writer(self._fd, self._write)

    def _misc(self) -> None:
        if self._ended.is_set() or self._failed(self._client.loop_misc):
            return
        self._timer = self._loop.call_later(_MISC_S, self._misc)

    def _failed(self, step: Callable[[], mqtt.MQTTErrorCode]) -> bool:
        try:
            step()
        except Exception as error:  # paho raises on packets that it can't parse, with many types
            self.abort(f"the broker's packet couldn't be understood ({type(error).__name__}: {error})")
            return True
        return False


@asynccontextmanager
async def closing(driver: Driver, disconnect: Callable[[], Any] | None = None) -> AsyncIterator[None]:
    """Hold a driver open; leaving sends DISCONNECT, leaving through SessionLost doesn't.

    Args:
        disconnect: a coroutine function that says good-bye in another way; the driver closes the socket after it.
    """
    try:
        yield
    except (SessionLost, GeneratorExit):
        driver.abort("the session was closed")
        raise
    except BaseException:
        await _leave(driver, disconnect)
        raise
    else:
        await _leave(driver, disconnect)


async def _leave(driver: Driver, disconnect: Callable[[], Any] | None) -> None:
    try:
        if disconnect is not None:
            await disconnect()
        else:
            await driver.disconnect()
    finally:
        driver.abort("the session was closed")


def hand_on(loop: asyncio.AbstractEventLoop, on_message: OnMessage, received: mqtt.MQTTMessage) -> None:
    """Give a received message to its handler; a topic that isn't UTF-8 is skipped."""
    try:
        topic = received.topic
    except UnicodeDecodeError:
        PAHO_LOGGER.critical("a message came on a topic that is not UTF-8; it is skipped")
        return
    dispatch(loop, on_message, Message(topic, bytes(received.payload), received.qos, received.retain))


def _chain(ours: Callable[..., None], theirs: Callable[..., Any] | None) -> Callable[..., None]:
    if theirs is None:
        return ours

    def both(*arguments: Any) -> None:
        ours(*arguments)
        theirs(*arguments)

    return both
