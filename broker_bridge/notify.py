"""What systemd is told of a service: `sd_notify(3)`, datagrams of `NAME=value` lines to the socket in $NOTIFY_SOCKET.

Without that variable nothing is said. A datagram that can't be sent is logged once and never ends anything: the service
manager draws its own conclusions from silence.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Self

_LOG = logging.getLogger(__name__)

PINGS_PER_INTERVAL = 3
"""sd_watchdog_enabled(3) recommends half the interval; a third leaves room for a ping that is late."""


class Notifier:
    """One service's line to its service manager.

    Args:
        address: path of a datagram socket, or `@name` for an abstract one; None: nobody listens.
        watchdog_s: seconds without a ping after which systemd ends the service; None: it doesn't watch.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._failed = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, pid: int | None = None) -> Self:
        """As systemd set it up for this process (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID)."""
        given = os.environ if environ is None else environ
        address = given.get("NOTIFY_SOCKET") or None
        if address is None:
            return cls()
        if not address.startswith(("/", "@")) or len(address) < 2:
            _LOG.warning("NOTIFY_SOCKET is %r: only paths and abstract sockets (@name) are spoken to", address)
            return cls()
        return cls(address, _watchdog_s(given, os.getpid() if pid is None else pid))

    @property
    def is_active(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    @property
    def ping_s(self) -> float | None:
        """Seconds between two pings of the watchdog; None where it doesn't watch."""
        return None if self._watchdog_s is None else self._watchdog_s / PINGS_PER_INTERVAL

    def ready(self) -> bool:
        """The service is up: systemd starts what waits for it. Returns: it was sent."""
        return self.send("READY=1")

    def stopping(self) -> bool:
        """The service is about to end by itself or was asked to. Returns: it was sent."""
        return self.send("STOPPING=1")

    def ping(self) -> bool:
        """The watchdog's sign of life; nothing is sent where it doesn't watch. Returns: it was sent."""
        return self._watchdog_s is not None and self.send("WATCHDOG=1")

    def send(self, *assignments: str) -> bool:
        """Send `NAME=value` lines in one datagram, without waiting. Returns: it was sent."""
        if self._address is None:
            return False
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            if not self._failed:
                _LOG.warning("systemd can't be told %s at %s: %s", assignments[0], self._address, error)
            self._failed = True
            return False
        self._failed = False
        return True


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    text, of = environ.get("WATCHDOG_USEC"), environ.get("WATCHDOG_PID")
    if not text or (of and of != str(pid)):  # meant for another process, whose environment we inherited
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        _LOG.warning("WATCHDOG_USEC is %r, which is no number of microseconds: the watchdog gets no pings", text)
        return None
    return int(text) / 1e6
