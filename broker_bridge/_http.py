"""The head of an HTTP response, read piece by piece: what a proxy or a WebSocket server answers first."""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 16 * 1024
"""Proxies add a few hundred bytes of headers; whoever sends more is no proxy."""

_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: (.*))?", re.DOTALL)
_START = b"HTTP/1."
_MAX_REASON = 80


class NoHttp(Exception):
    """What came is no head of an HTTP/1 response; the text says why."""


class ResponseHead:
    """Takes bytes up to the empty line and leaves what follows to whoever comes next."""

    def __init__(self) -> None:
        self.status = 0
        self.reason = ""
        self.done = False
        self._read = bytearray()
        self._headers: dict[str, str] = {}

    @property
    def raw(self) -> bytes:
        """The bytes taken so far."""
        return bytes(self._read)

    def feed(self, data: bytes) -> int:
        """Take bytes; return how many belong to the head.

        Raises:
            NoHttp: they can't be the head of a response, or it is longer than `MAX_HEAD_BYTES`.
        """
        known = len(self._read)
        self._read += data
        end = self._read.find(_END, max(0, known - len(_END) + 1))
        taken = len(self._read) if end < 0 else end + len(_END)
        del self._read[taken:]
        if not self._read.startswith(_START[: len(self._read)]):
            raise NoHttp(f"it starts with {bytes(self._read[:16])!r}")
        if taken > MAX_HEAD_BYTES:
            raise NoHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
        if end >= 0:
            self._parse(bytes(self._read[:end]))
        return taken - known

    def header(self, name: str) -> str:
        """Return a header's value, several of one name joined by commas; empty if there is none."""
        return self._headers.get(name.lower(), "")

    def __str__(self) -> str:
        return f"{self.status} {self.reason}".strip()

    def _parse(self, head: bytes) -> None:
        first, *rest = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise NoHttp(f"its first line is {first[:80]!r}")
        self.status, self.reason = int(match[1]), printable(match[2] or b"")[:_MAX_REASON]
        for line in rest:
            name, _, value = printable(line).partition(":")
            known = self._headers.get(name.lower())
            self._headers[name.lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
        self.done = True


def printable(text: bytes) -> str:
    """Return bytes of a stranger as text that does no harm in a log."""
    return "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace")).strip()
