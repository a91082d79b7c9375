"""Sockets as the paho driver uses them: what they have in common, and the plain or TLS one with a read buffer."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Protocol

from broker_bridge._ready import readable

_READ_BYTES = 64 * 1024
_MAX_READ_BYTES = 256 * 1024


class Wire(Protocol):
    """An open connection to a broker: non-blocking, with the methods that paho wants of a socket and a few more."""

    @property
    def error(self) -> OSError | None:
        """What the last read or write failed with, which paho writes to its log alone."""

    @property
    def unsent(self) -> bool:
        """Whether bytes that `send` took still wait here: `flush` them once the socket is writable."""

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream. Raises: BlockingIOError, OSError."""

    def send(self, data: bytes | bytearray) -> int:
        """Take what fits. Raises: BlockingIOError, OSError."""

    def flush(self) -> None:
        """Write what waits here, as far as it fits; a failure is kept in `error`."""

    def pending(self) -> int:
        """Return how much `recv` has to give that no readiness of the file descriptor will tell of."""

    def close(self) -> None:
        """Close the connection, or only its writing half after `half_close`; again does nothing."""

    def release(self) -> None:
        """Close both halves; again does nothing."""

    def half_close(self) -> None:
        """Let `close`, which paho calls after DISCONNECT, shut the writing half only."""

    async def read_to_end(self) -> None:
        """Read and forget what still comes until the other side closes."""

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""

    def setblocking(self, flag: bool) -> None:
        """Set the mode, as paho does once."""


class ReadAheadSocket:
    """A non-blocking socket that reads ahead.

    paho asks for one byte, one byte and the rest of each packet: three system calls for each sensor value. With a
    buffer in between, one call brings hundreds of them.

    Args:
        sock: the open connection.
        through_proxy: leave it to the broker to end the connection after DISCONNECT. A proxy that sees the end of our
            half closes the other connection at once, with what it hasn't read: a reset that overtakes the DISCONNECT.
    """

    unsent = False

    def __init__(self, sock: socket.socket, *, through_proxy: bool = False) -> None:
        self._sock = sock
        self._through_proxy = through_proxy
        self._ahead = b""
        self._position = 0
        self._half_close = False
        self.error: OSError | None = None
        """What the last read or write failed with, which paho writes to its log alone."""

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream. Raises: BlockingIOError, OSError."""
        position = self._position
        if position < len(self._ahead):
            data = self._ahead[position : position + size]
            self._position = position + len(data)
            return data
        data = self._receive(min(max(size, _READ_BYTES), _MAX_READ_BYTES))
        if len(data) <= size:
            return data
        self._ahead, self._position = data, size
        return data[:size]

    def send(self, data: bytes | bytearray) -> int:
        """Write what fits. Raises: BlockingIOError, OSError."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Nothing is kept here."""

    def pending(self) -> int:
        """Return the bytes that were read already, which no readiness of the file descriptor will tell of."""
        decrypted = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) and self.fileno() >= 0 else 0
        return len(self._ahead) - self._position + decrypted

    def close(self) -> None:
        """Close the connection, or only its writing half after `half_close`; again does nothing."""
        if not self._half_close:
            self.release()
            return
        self._ahead, self._position = b"", 0
        if self._through_proxy:
            return
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def release(self) -> None:
        """Close both halves; again does nothing."""
        self._ahead, self._position = b"", 0
        self._sock.close()

    def half_close(self) -> None:
        """Let `close`, which paho calls after DISCONNECT, shut the writing half only.

        Closing a socket with unread data makes the kernel send RST, and a broker that sees it before it has read the
        DISCONNECT publishes the will of a session that left properly.
        """
        self._half_close = True

    async def read_to_end(self) -> None:
        """Read and forget what still comes until the other side closes."""
        while True:
            try:
                if not self._sock.recv(_READ_BYTES):
                    return
            except (BlockingIOError, ssl.SSLWantReadError):
                await readable(self._sock)
            except OSError:
                return

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Set the mode, as paho does once."""
        self._sock.setblocking(flag)

    def _receive(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.error = error
            raise
