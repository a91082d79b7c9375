"""Opening a connection to a broker: TCP, then the proxy's tunnel, TLS and WebSocket, as configured.

paho connects and shakes hands in blocking calls; behind a firewall that drops packets such a call holds a thread for
the whole timeout and can't be cancelled. So the connection is made here and paho gets it ready.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from broker_bridge._proxy import open_tunnel
from broker_bridge._ready import reason_of
from broker_bridge._socket import ReadAheadSocket, Wire
from broker_bridge._tcp import connect
from broker_bridge._tls import encrypt, tls_context
from broker_bridge._websocket import upgrade
from broker_bridge.config import BrokerConfig
from broker_bridge.session import BrokerUnreachable


@dataclass
class Stage:
    """How far a connection has come, for whoever bounds it and says what was waited for."""

    waiting_for: str = "its name or TCP"


async def open_socket(config: BrokerConfig, stage: Stage) -> Wire:
    """Connect all the way up to MQTT.

    Raises:
        BrokerUnreachable: with the reason. No timeout of its own: the caller bounds the whole connection.
        BrokerRefused: the proxy or the WebSocket server wants other credentials.
        BrokerMisconfigured: a certificate or password file can't be used.
    """
    context = await asyncio.to_thread(tls_context, config) if config.tls else None
    sock = await _connect(config, stage)
    if context is not None:
        stage.waiting_for = "the TLS handshake"
        sock = await encrypt(sock, context, config)
    wire = ReadAheadSocket(sock, through_proxy=config.proxy is not None)
    if not config.websocket:
        stage.waiting_for = "MQTT's CONNACK"
        return wire
    stage.waiting_for = "the WebSocket upgrade"
    try:
        websocket = await upgrade(wire, config)
    except BaseException:
        wire.release()
        raise
    stage.waiting_for = "MQTT's CONNACK"
    return websocket


async def _connect(config: BrokerConfig, stage: Stage) -> socket.socket:
    proxy = config.proxy
    if proxy is None:
        try:
            return await connect(config.host, config.port, config.socket)
        except OSError as error:
            raise BrokerUnreachable(f"broker {config.address} unreachable: {reason_of(error)}") from error
    stage.waiting_for = f"TCP with proxy {proxy.address}"
    try:
        sock = await connect(proxy.host, proxy.port, config.socket)
    except OSError as error:
        raise BrokerUnreachable(
            f"broker {config.address} unreachable: proxy {proxy.address}: {reason_of(error)}"
        ) from error
    stage.waiting_for = f"proxy {proxy.address} to open the way"
    try:
        await open_tunnel(sock, proxy, config)
    except BaseException:
        sock.close()
        raise
    return sock
