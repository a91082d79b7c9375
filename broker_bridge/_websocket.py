"""MQTT in WebSocket frames (MQTT 5, section 6): the upgrade, and a socket-like object over an open connection."""

from __future__ import annotations

import asyncio
import errno
import ssl

from websockets.client import ClientProtocol
from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_TEXT, CloseCode, Frame
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from broker_bridge._http import NoHttp, ResponseHead, printable
from broker_bridge._ready import readable, reason_of, writable
from broker_bridge._socket import ReadAheadSocket
from broker_bridge.config import BrokerConfig
from broker_bridge.network import wire_host
from broker_bridge.session import BrokerRefused, BrokerUnreachable

MAX_PACKET_BYTES = 60_000
"""The largest packet sent over WebSocket: the libwebsockets in Mosquitto 2.0.11 hands out 4 KiB every 100 ms, so that
60 kB hold up what comes behind them for 1.4 s and 256 KiB for 6 s, where they don't stall altogether."""

_MQTT = Subprotocol("mqtt")
_READ_BYTES = 64 * 1024
_FRAME_BYTES = 64 * 1024
_MAX_RECEIVED = 256 * 1024 * 1024 + 4
"""MQTT's largest packet (2.1.4: 268,435,455 bytes after a header of 5): brokers send one packet in one message."""
_MAX_UNSENT = 4 * _FRAME_BYTES
"""More than a frame and its answers to pings wait only if a broker pings without reading."""


class WebSocket:
    """An upgraded connection as paho uses a socket: a stream of bytes, whatever frames they come in.

    What `send` takes is bounded by one frame: until that has left, the next call raises BlockingIOError.

    Args:
        sock: the connection beneath.
        protocol: its WebSocket state, open.
        ahead: frames that came right behind the upgrade.
    """

    def __init__(self, sock: ReadAheadSocket, protocol: ClientProtocol, ahead: bytes = b"") -> None:
        self._sock = sock
        self._protocol = protocol
        self._payload = b""
        self._position = 0
        self._out = bytearray()
        self._half_close = False
        self._over = False
        self._error: OSError | None = None
        if ahead:
            self._feed(ahead)

    @property
    def error(self) -> OSError | None:
        """What the last read or write failed with, or how the broker closed the WebSocket."""
        return self._error or self._sock.error

    @property
    def unsent(self) -> bool:
        """Whether bytes of a frame still wait to be written."""
        return bool(self._out)

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream. Raises: BlockingIOError, OSError."""
        if self._position >= len(self._payload) and not self._over:
            self._read()
        data = self._payload[self._position : self._position + size]
        if data:
            self._position += len(data)
            return data
        if not self._over:
            raise BlockingIOError(errno.EAGAIN, "no whole frame yet")
        return b""

    def send(self, data: bytes | bytearray) -> int:
        """Take what goes into one frame. Raises: BlockingIOError: the last one hasn't left yet; OSError."""
        self.flush()
        if self._out:
            raise BlockingIOError(errno.EAGAIN, "the last frame hasn't left yet")
        if self.error is not None:
            raise self.error
        if self._protocol.state is not State.OPEN:
            raise BrokenPipeError(errno.EPIPE, "the WebSocket is closing")
        frame = bytes(data[:_FRAME_BYTES])
        self._protocol.send_binary(frame)
        self.flush()
        return len(frame)

    def flush(self) -> None:
        """Write what waits here, as far as it fits; a failure is kept in `error`, and the next `send` raises it."""
        self._out += b"".join(self._protocol.data_to_send())
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._out.clear()

    def pending(self) -> int:
        """Return how much `recv` has to give that no readiness of the file descriptor will tell of."""
        return len(self._payload) - self._position + int(self._over) + self._sock.pending()

    def close(self) -> None:
        """Close the connection, or only its writing half after `half_close`; again does nothing."""
        self._payload, self._position = b"", 0
        if not self._half_close:
            self.release()
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self.flush()
        if not self._out:
            self._sock.close()

    def release(self) -> None:
        """Close both halves; again does nothing."""
        self._payload, self._position = b"", 0
        self._out.clear()
        self._sock.release()

    def half_close(self) -> None:
        """Let `close` say goodbye and shut the writing half only, as `ReadAheadSocket.half_close` explains."""
        self._half_close = True
        self._sock.half_close()

    async def read_to_end(self) -> None:
        """Write what waits here, and read and forget what still comes until the other side closes."""
        finishing = asyncio.create_task(self._finish(), name="last WebSocket frames")
        try:
            await self._sock.read_to_end()
        finally:
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Set the mode, as paho does once."""
        self._sock.setblocking(flag)

    async def _finish(self) -> None:
        while self._out:
            await writable(self)
            self.flush()
        self._sock.close()

    def _read(self) -> None:
        """Read once, and answer pings. Raises: BlockingIOError, OSError."""
        data = self._sock.recv(_READ_BYTES)
        if not data:
            self._over = True
            return
        self._feed(data)
        self.flush()
        if len(self._out) > _MAX_UNSENT:
            self._fail("pings without reading the answers")

    def _feed(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        parts: list[bytes] = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame) or self._over:
                continue
            if event.opcode in {OP_BINARY, OP_CONT}:
                parts.append(bytes(event.data))
            elif event.opcode is OP_TEXT:
                self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
                self._fail("sent WebSocket text, and MQTT is binary")
            elif event.opcode is OP_CLOSE:
                self._on_close()
        if self._protocol.parser_exc is not None and not self._over:
            self._fail(f"broke the WebSocket protocol: {self._protocol.parser_exc}")
        self._payload, self._position = b"".join(parts), 0

    def _on_close(self) -> None:
        close = self._protocol.close_rcvd
        self._over = True
        if close is not None and close.code not in {CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RCVD}:
            reason = printable(close.reason.encode())
            text = f"closed by the broker: WebSocket code {close.code}"
            self._error = ConnectionAbortedError(f"{text} ({reason})" if reason else text)

    def _fail(self, what: str) -> None:
        self._over = True
        self._error = ConnectionAbortedError(f"the broker {what}")


async def upgrade(sock: ReadAheadSocket, config: BrokerConfig) -> WebSocket:
    """Ask an open connection for a WebSocket that carries MQTT.

    Raises:
        BrokerUnreachable: the server gives none.
        BrokerRefused: it wants HTTP credentials.
    """
    protocol = client_protocol(config)
    protocol.send_request(protocol.connect())
    head = ResponseHead()
    try:
        await _send(sock, b"".join(protocol.data_to_send()))
        ahead = b""
        while not head.done:
            data = await _receive(sock)
            if not data:
                raise _unreachable(config, "closed the connection without an answer")
            ahead = data[head.feed(data) :]
    except NoHttp as error:
        raise _unreachable(config, f"doesn't answer as a WebSocket server does: {error}") from error
    except OSError as error:
        raise _unreachable(config, f"ended the connection: {reason_of(error)}") from error
    check_upgrade(head, protocol, config)
    return WebSocket(sock, protocol, ahead)


def client_protocol(config: BrokerConfig) -> ClientProtocol:
    """The client's side of a WebSocket to this broker, before the upgrade."""
    uri = WebSocketURI(config.tls, wire_host(config.host), config.port, config.path, "")
    return ClientProtocol(uri, subprotocols=[_MQTT], max_size=_MAX_RECEIVED)


def check_upgrade(head: ResponseHead, protocol: ClientProtocol, config: BrokerConfig) -> None:
    """Open the protocol by the server's answer. Raises: BrokerRefused, BrokerUnreachable."""
    if head.status == 401:
        raise BrokerRefused(
            f"broker {config.address} refused the WebSocket: {head}; the server in front of it wants HTTP credentials, "
            "and Headgate has MQTT's only: have it let the path through"
        )
    if head.status != 101:
        if 300 <= head.status < 400:
            advice = f"it points to {head.header('Location') or 'another address'}: write the final address into 'url'"
        elif head.status == 404:
            advice = f"check the path in 'url' ({config.path}); brokers often have their WebSocket at /mqtt, /ws or /"
        else:
            advice = "check port and path in 'url', and what stands in front of the broker"
        raise _unreachable(config, f"gives no WebSocket: {head}; {advice}")
    protocol.receive_data(head.raw)
    protocol.events_received()
    if protocol.handshake_exc is not None:
        raise _unreachable(config, f"gives no WebSocket for MQTT: {protocol.handshake_exc}")
    if protocol.subprotocol != _MQTT:
        raise _unreachable(
            config, f"opened a WebSocket without the subprotocol 'mqtt': check the path in 'url' ({config.path})"
        )


async def _send(sock: ReadAheadSocket, data: bytes) -> None:
    while data:
        try:
            data = data[sock.send(data) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            await writable(sock)
        except ssl.SSLWantReadError:
            await readable(sock)


async def _receive(sock: ReadAheadSocket) -> bytes:
    while True:
        try:
            return sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            await readable(sock)
        except ssl.SSLWantWriteError:
            await writable(sock)


def _unreachable(config: BrokerConfig, what: str) -> BrokerUnreachable:
    return BrokerUnreachable(f"broker {config.address} unreachable: it {what}")
