"""TCP connections with the configured socket options, without blocking the event loop."""

from __future__ import annotations

import asyncio
import socket

from broker_bridge._ready import reason_of
from broker_bridge.network import SocketConfig


async def connect(host: str, port: int, options: SocketConfig) -> socket.socket:
    """Try each address of the host in turn. Raises: OSError of the last one."""
    loop = asyncio.get_running_loop()
    own = options.bind_address
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if own is not None and family != (socket.AF_INET if own.version == 4 else socket.AF_INET6):
            if "no address" in str(failure):
                failure = OSError(f"{host} has no IPv{own.version} address, and 'socket.bind_address' is {own}")
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            _set(sock, options)
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


def _set(sock: socket.socket, options: SocketConfig) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.tcp_keepalive_s is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, options.tcp_keepalive_s)
    if options.tcp_user_timeout_s is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(options.tcp_user_timeout_s * 1000))
    # Buffers before connecting: the window that TCP can grow to is agreed on in the first packets.
    if options.send_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer_bytes)
    if options.receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer_bytes)
    if options.bind_address is not None:
        try:
            sock.bind((str(options.bind_address), 0))
        except OSError as error:
            raise OSError(
                f"can't connect from 'socket.bind_address' {options.bind_address}: {reason_of(error)}"
            ) from error
