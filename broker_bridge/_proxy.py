"""A tunnel through an HTTP proxy (RFC 9110, section 9.3.6): the proxy resolves the broker's name and connects."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode

from broker_bridge._http import MAX_HEAD_BYTES, NoHttp, ResponseHead
from broker_bridge._password import read_password
from broker_bridge._ready import readable, reason_of
from broker_bridge.config import BrokerConfig
from broker_bridge.network import ProxyConfig, bracketed, wire_host
from broker_bridge.session import BrokerRefused, BrokerUnreachable


async def open_tunnel(sock: socket.socket, proxy: ProxyConfig, config: BrokerConfig) -> None:
    """Ask the proxy behind an open socket for the way to the broker; afterwards the socket leads there.

    Raises:
        BrokerUnreachable: the proxy didn't open the tunnel, or isn't one.
        BrokerRefused: it wants other credentials.
        BrokerMisconfigured: the password file can't be read.
    """
    request = connect_request(proxy, config, await asyncio.to_thread(read_password, proxy.password_file))
    try:
        await asyncio.get_running_loop().sock_sendall(sock, request)
        head = await _answer(sock)
    except NoHttp as error:
        raise _unreachable(proxy, config, f"doesn't answer as an HTTP proxy does: {error}") from error
    except OSError as error:
        raise _unreachable(proxy, config, f"ended the connection: {reason_of(error)}") from error
    if head is None:
        raise _unreachable(proxy, config, "closed the connection without an answer")
    check_tunnel(head, proxy, config)


def connect_request(proxy: ProxyConfig, config: BrokerConfig, password: str | None) -> bytes:
    """The request for a tunnel to the broker."""
    target = _target(config)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: headgate"]
    if proxy.username is not None:
        lines.append(f"Proxy-Authorization: Basic {b64encode(f'{proxy.username}:{password}'.encode()).decode('ascii')}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def check_tunnel(head: ResponseHead, proxy: ProxyConfig, config: BrokerConfig) -> None:
    """Raise BrokerRefused or BrokerUnreachable unless the proxy opened the tunnel."""
    if 200 <= head.status < 300:
        return
    # tinyproxy says 401 to wrong credentials, and 407 where there are none.
    if head.status in {401, 407}:
        schemes = head.header("Proxy-Authenticate") or head.header("WWW-Authenticate")
        if schemes and "basic" not in schemes.lower():
            advice = f"it asks for {schemes.split()[0]}, and Headgate knows Basic only"
        elif proxy.username is None:
            advice = "set 'proxy.username' and 'proxy.password_file'"
        else:
            advice = f"check user name {proxy.username!r} and the password in {proxy.password_file}"
        raise BrokerRefused(f"proxy {proxy.address} opens no way to broker {config.address}: {head}; {advice}")
    if head.status in {403, 405}:
        advice = f"have the proxy allow CONNECT to {_target(config)}"
    elif head.status >= 500:
        advice = f"the proxy can't reach {_target(config)}: check the broker's name and port, and the way behind it"
    else:
        advice = "is this an HTTP proxy that allows CONNECT?"
    raise _unreachable(proxy, config, f"opens no way: {head}; {advice}")


async def _answer(sock: socket.socket) -> ResponseHead | None:
    head = ResponseHead()
    while not head.done:
        await readable(sock)
        try:
            # What lies behind the head belongs to the broker, and TLS reads it from the socket itself: look first,
            # then take no more than the head.
            seen = sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not seen:
            return None
        sock.recv(head.feed(seen))
    return head


def _target(config: BrokerConfig) -> str:
    return f"{bracketed(wire_host(config.host))}:{config.port}"


def _unreachable(proxy: ProxyConfig, config: BrokerConfig, what: str) -> BrokerUnreachable:
    return BrokerUnreachable(f"broker {config.address} unreachable: proxy {proxy.address} {what}")
