"""Waiting for a socket without blocking the event loop, and the system's reasons in words."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Protocol


class HasFileno(Protocol):
    """A socket, or what wraps one."""

    def fileno(self) -> int:
        """Return the file descriptor."""


async def readable(sock: HasFileno) -> None:
    """Wait until the socket has something to read, or has ended."""
    loop = asyncio.get_running_loop()
    await _ready(sock.fileno(), loop.add_reader, loop.remove_reader)


async def writable(sock: HasFileno) -> None:
    """Wait until the socket takes bytes, or has ended."""
    loop = asyncio.get_running_loop()
    await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)


def reason_of(error: OSError | ValueError) -> str:
    """Say in a few words of the system what went wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.errno is not None and text.startswith("Connect call failed"):  # asyncio puts the address in its place
            text = os.strerror(error.errno)
        return text[0].lower() + text[1:]
    return str(error) or type(error).__name__


async def _ready(fd: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]) -> None:
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
