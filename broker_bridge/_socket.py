"""Opening a TCP or TLS connection without blocking the event loop, and a read buffer for paho.

paho connects and shakes hands in blocking calls; behind a firewall that drops packets such a call holds a thread for
the whole timeout and can't be cancelled. So the connection is made here and paho gets it ready.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from broker_bridge.config import BrokerConfig
from broker_bridge.session import BrokerMisconfigured, BrokerUnreachable

_READ_BYTES = 64 * 1024
_MAX_READ_BYTES = 256 * 1024


async def open_socket(config: BrokerConfig) -> ReadAheadSocket:
    """Resolve, connect and shake hands.

    Raises:
        BrokerUnreachable: with the system's reason. No timeout of its own: the caller bounds the whole connection.
        BrokerMisconfigured: a certificate file can't be used.
    """
    context = await asyncio.to_thread(_tls_context, config) if config.tls else None
    try:
        plain = await _connect(config.host, config.port)
    except OSError as error:
        raise BrokerUnreachable(f"broker {config.address} unreachable: {_reason(error)}") from error
    if context is None:
        return ReadAheadSocket(plain)
    try:
        encrypted = context.wrap_socket(plain, server_hostname=config.host, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        plain.close()
        raise BrokerUnreachable(f"broker {config.address} unreachable: TLS failed: {_reason(error)}") from error
    try:
        await _handshake(encrypted)
    except (OSError, ValueError) as error:
        encrypted.close()
        raise BrokerUnreachable(f"broker {config.address} unreachable: TLS failed: {_reason(error)}") from error
    except BaseException:
        encrypted.close()
        raise
    return ReadAheadSocket(encrypted)


class ReadAheadSocket:
    """A non-blocking socket that reads ahead.

    paho asks for one byte, one byte and the rest of each packet: three system calls for each sensor value. With a
    buffer in between, one call brings hundreds of them. It has the methods that paho wants of a socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
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
                loop = asyncio.get_running_loop()
                await _ready(self._sock, loop.add_reader, loop.remove_reader)
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


async def _connect(host: str, port: int) -> socket.socket:
    """Try each address of the host in turn. Raises: OSError of the last one."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _handshake(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(sock, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(sock, loop.add_writer, loop.remove_writer)
        else:
            return


async def _ready(
    sock: socket.socket,
    add: Callable[[int, Callable[[], None]], None],
    remove: Callable[[int], bool],
) -> None:
    ready = asyncio.Event()
    add(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock.fileno())


def _tls_context(config: BrokerConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise BrokerMisconfigured(f"the CA file {config.ca_file} can't be used: {_reason(error)}") from error
    if config.client_certificate_file is not None:
        try:
            context.load_cert_chain(config.client_certificate_file, config.client_key_file, _no_passphrase)
        except (OSError, ValueError) as error:
            raise BrokerMisconfigured(
                f"the client certificate {config.client_certificate_file} with the key {config.client_key_file} "
                f"can't be used: {_reason(error)}"
            ) from error
    return context


def _no_passphrase() -> str:
    # Without this OpenSSL asks on the terminal, and a service hangs.
    raise ValueError("the key is encrypted; write it unencrypted into a file that only this service may read")


def _reason(error: OSError | ValueError) -> str:
    """Say in a few words of the system what went wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error) or type(error).__name__
