"""A broker for demonstrations, in the calling process: amqtt, MQTT 3.1.1, on loopback only, asking for no password.

It keeps nothing over a restart, speaks no MQTT 5, delivers at the subscription's QoS whatever the publisher chose, and
acknowledges faster than it delivers, so a subscriber that is too slow grows its memory. Plants run a real broker.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

DEFAULT_PORT = 1883

# Only the plugin that lets clients in. Each further one (packet log, $SYS) costs a task for each packet.
_PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
_LOGGERS = ("amqtt", "transitions")


class EmbeddedBrokerError(Exception):
    """The embedded broker couldn't be started; the text says why and what to do."""


def free_port(preferred: int = DEFAULT_PORT, host: str = "127.0.0.1") -> int:
    """Return `preferred` if nobody listens there, else a port that the system picks.

    Raises: EmbeddedBrokerError: the host isn't an address of this machine.
    """
    for port in (preferred, 0):
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EmbeddedBrokerError(f"no port of {host} can be listened on: is it an address of this machine?")


async def serve(
    host: str = "127.0.0.1", port: int = DEFAULT_PORT, ready: Callable[[int], None] = lambda _port: None
) -> None:
    """Run the broker until cancelled.

    Args:
        host: a loopback address: the broker asks nobody for a password.
        port: exactly this one; see `free_port`.
        ready: called with the port once clients can connect.

    Raises:
        EmbeddedBrokerError: amqtt isn't installed, the address isn't loopback, or the port is taken.
    """
    if not ipaddress.ip_address(host).is_loopback:
        raise EmbeddedBrokerError(f"the embedded broker lets everybody in, so it listens on loopback only, not {host}")
    try:
        from amqtt.errors import BrokerError

        from broker_bridge._amqtt import DemoBroker
    except ImportError as error:
        raise EmbeddedBrokerError(
            "the embedded broker needs amqtt: pip install 'headgate[demo]', or use a broker of your own"
        ) from error
    for name in _LOGGERS:
        # amqtt warns of each client that leaves without good-bye, which is what sessions and wills are for.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    broker = DemoBroker({"listeners": {"default": {"type": "tcp", "bind": bind}}, "plugins": dict(_PLUGINS)})
    try:
        await broker.start()
    except BrokerError as error:
        raise EmbeddedBrokerError(f"the embedded broker can't listen on {bind}: {_cause(error)}") from error
    try:
        ready(port)
        await asyncio.Event().wait()
    finally:
        await broker.shutdown()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _cause(error: BaseException) -> str:
    """Return the innermost reason: amqtt wraps the system's error twice."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
