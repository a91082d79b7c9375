"""A very small HTTP server for a few pages that anybody may read: GET and HEAD, one request a connection.

It runs on the service's own event loop on purpose: a loop that is blocked answers nothing, and whoever asks sees it.
Size, time and number of connections are bounded. No library serves just this: the frameworks bring routing, bodies and
keep-alive, and prometheus_client's own server has a thread that would answer for a loop that stands still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

_LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES = 8 * 1024
"""Request line and headers together; a longer one is refused with 431."""
EXCHANGE_S = 5.0
"""From the connection to the last byte of the answer; whoever is slower is cut off."""
MAX_CONNECTIONS = 16
"""Served at one time; a further one is answered 503."""
MAX_REFUSALS = 48
"""Being answered 503 at one time; a further connection is reset."""
DRAINED_BYTES = 64 * 1024
"""What is still read of a refused request: a connection closed with unread bytes is reset, and its answer lost."""

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: status, body, type of the body."""

    status: int
    body: bytes
    content_type: str = TEXT


Page = Callable[[], Response]


class BadRequest(Exception):
    """A request that is not answered with a page, and the status that says why."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def parse_head(head: bytes) -> tuple[str, str]:
    """Method (GET or HEAD) and path of a request, without its query. Raises: BadRequest: 400, 405 or 505."""
    try:
        line = head.split(b"\r\n", 1)[0].decode("ascii")
        method, target, version = line.split(" ")
    except ValueError:  # UnicodeDecodeError is one
        raise BadRequest(HTTPStatus.BAD_REQUEST) from None
    if not version.startswith("HTTP/"):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if method not in ("GET", "HEAD"):
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    return method, target.split("?", 1)[0]


def encode(response: Response, *, with_body: bool) -> bytes:
    """The bytes of an answer; HEAD gets the same headers without the body."""
    status = HTTPStatus(response.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"\r\n"
    return head + response.body if with_body else head


def plain(status: HTTPStatus) -> Response:
    """An answer that is its status alone."""
    return Response(status, f"{status.value} {status.phrase}\n".encode())


class HttpServer:
    """Serves pages by path.

    Args:
        pages: made anew for each request, on the event loop; one that raises is answered 500, and logged.
    """

    def __init__(
        self, pages: Mapping[str, Page], *, exchange_s: float = EXCHANGE_S, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._pages = pages
        self._exchange_s = exchange_s
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is listened on, which differs from the one asked for where that was 0."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises: OSError: the address is taken, or not one of this machine."""
        self._server = await asyncio.start_server(self._on_connection, host, port, limit=MAX_HEAD_BYTES)

    async def close(self) -> None:
        """Stop listening, and cut off who is still connected."""
        if self._server is not None:
            self._server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_busy = len(self._open) >= self._max_connections
        if len(self._open) >= self._max_connections + MAX_REFUSALS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, is_busy), name="health connection")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_busy: bool) -> None:
        try:
            async with asyncio.timeout(self._exchange_s):
                if is_busy:
                    await _send(reader, writer, encode(plain(HTTPStatus.SERVICE_UNAVAILABLE), with_body=True))
                else:
                    await self._exchange(reader, writer)
        except (TimeoutError, OSError):
            pass  # too slow, or gone
        finally:
            writer.transport.abort()  # nothing is left to send, or nobody takes it

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return  # it left before it had asked
        except asyncio.LimitOverrunError:
            response, method = plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), ""
        else:
            response, method = self._answer(head)
        await _send(reader, writer, encode(response, with_body=method != "HEAD"))

    def _answer(self, head: bytes) -> tuple[Response, str]:
        try:
            method, path = parse_head(head)
        except BadRequest as error:
            return plain(error.status), "HEAD" if head.startswith(b"HEAD ") else ""
        page = self._pages.get(path)
        if page is None:
            return plain(HTTPStatus.NOT_FOUND), method
        try:
            return page(), method
        except Exception:
            _LOG.exception("%s can't be answered", path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR), method


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Send the last bytes of a connection, and return once the other side has left, too."""
    writer.transport.set_write_buffer_limits(high=0)  # so that drain waits until all is handed on
    writer.write(answer)
    await writer.drain()
    writer.write_eof()
    left = DRAINED_BYTES
    while left > 0 and (some := await reader.read(left)):
        left -= len(some)
