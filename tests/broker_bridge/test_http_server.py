"""The small HTTP server over real sockets: what it answers, and whom it cuts off."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker_bridge.http_server import (
    DRAINED_BYTES,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MAX_REFUSALS,
    BadRequest,
    HttpServer,
    Response,
    encode,
    parse_head,
)
from tests.aio import run

LARGE = 20_000_000
"""Bytes of a page that no socket buffer holds."""


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[int]:
    """A server with a few pages; gives its port."""

    def broken() -> Response:
        raise RuntimeError("no page today")

    pages = {
        "/page": lambda: Response(200, b"hello\n"),
        "/none": lambda: Response(503, b"broker: away\n"),
        "/broken": broken,
        "/large": lambda: Response(200, bytes(LARGE)),
    }
    server = HttpServer(pages, **settings)
    await server.start("127.0.0.1", 0)
    try:
        yield server.port
    finally:
        await server.close()


async def ask(port: int, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of the answer to raw bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), body


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server cuts the connection off."""
    got = []
    try:
        while some := await reader.read(65_536):
            got.append(some)
    except ConnectionError:
        pass
    return b"".join(got)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", "/healthz")),
        (b"HEAD /readyz?verbose=1 HTTP/1.0\r\n\r\n", ("HEAD", "/readyz")),
        (b"GET / HTTP/1.1\r\n\r\n", ("GET", "/")),
    ],
)
def test_a_request_is_its_method_and_path(head: bytes, expected: tuple[str, str]) -> None:
    assert parse_head(head) == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /h\xffz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz FTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"get /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /healthz HTTP/2\r\n\r\n", 505),
    ],
)
def test_a_request_that_is_none_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_head(head)
    assert refused.value.status == status


def test_head_gets_the_headers_alone() -> None:
    response = Response(200, b"hello\n")
    assert encode(response, with_body=True) == encode(response, with_body=False) + b"hello\n"


def test_pages_are_served() -> None:
    async def main() -> None:
        async with serving() as port:
            status, headers, body = await ask(port, b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (status, body) == (b"HTTP/1.1 200 OK", b"hello\n")
            assert headers[b"Content-Length"] == b"6"
            assert headers[b"Connection"] == b"close"
            status, headers, body = await ask(port, b"HEAD /page HTTP/1.1\r\n\r\n")
            assert (status, headers[b"Content-Length"], body) == (b"HTTP/1.1 200 OK", b"6", b"")
            status, _, body = await ask(port, b"GET /none HTTP/1.1\r\n\r\n")
            assert (status, body) == (b"HTTP/1.1 503 Service Unavailable", b"broker: away\n")

    run(main())


def test_everything_else_is_refused() -> None:
    async def main() -> None:
        async with serving() as port:
            status, _, body = await ask(port, b"GET /../etc/passwd HTTP/1.1\r\n\r\n")
            assert (status, body) == (b"HTTP/1.1 404 Not Found", b"404 Not Found\n")
            status, headers, _ = await ask(port, b"POST /page HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
            assert (status, headers[b"Allow"]) == (b"HTTP/1.1 405 Method Not Allowed", b"GET, HEAD")
            status, _, _ = await ask(port, b"nonsense\r\n\r\n")
            assert status == b"HTTP/1.1 400 Bad Request"
            status, _, _ = await ask(port, b"GET /page HTTP/1.1\r\nX: " + b"x" * DRAINED_BYTES)
            assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
            room = MAX_HEAD_BYTES - len(b"GET /page HTTP/1.1\r\nX: \r\n\r\n")
            status, _, _ = await ask(port, b"GET /page HTTP/1.1\r\nX: " + b"x" * room + b"\r\n\r\n")
            assert status == b"HTTP/1.1 200 OK"

    run(main())


def test_a_page_that_fails_is_an_error_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as port:
            status, _, body = await ask(port, b"GET /broken HTTP/1.1\r\n\r\n")
            assert status == b"HTTP/1.1 500 Internal Server Error"
            assert b"no page today" not in body
            assert (await ask(port, b"GET /page HTTP/1.1\r\n\r\n"))[0] == b"HTTP/1.1 200 OK"

    run(main())
    assert "no page today" in caplog.text


def test_an_endless_request_is_cut_off() -> None:
    async def main() -> None:
        async with serving() as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)

            async def pour() -> None:
                while True:
                    writer.write(b"x" * 65_536)
                    await writer.drain()

            with pytest.raises(ConnectionError):
                await pour()
            writer.transport.abort()

    run(main())


@pytest.mark.parametrize("request_part", [b"", b"GET /page HT", b"GET /page HTTP/1.1\r\nX: y\r\n"])
def test_a_client_that_dawdles_is_cut_off(request_part: bytes) -> None:
    async def main() -> None:
        async with serving(exchange_s=0.1) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_part)
            assert await rest(reader) == b""
            writer.transport.abort()
            assert (await ask(port, b"GET /page HTTP/1.1\r\n\r\n"))[0] == b"HTTP/1.1 200 OK"

    run(main())


def test_a_client_that_does_not_read_is_cut_off() -> None:
    async def main() -> None:
        async with serving(exchange_s=0.2, max_connections=1) as port:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
                # The only place is taken by a client that reads nothing; then it is free without its doing.
                statuses = []
                while not statuses or statuses[-1] != b"HTTP/1.1 200 OK":
                    statuses.append((await ask(port, b"GET /page HTTP/1.1\r\n\r\n"))[0])
                assert statuses[0] == b"HTTP/1.1 503 Service Unavailable"

    run(main())


def test_connections_are_bounded_and_become_free_again() -> None:
    async def main() -> None:
        async with serving(max_connections=3) as port:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            # The server takes connections in order: once a fourth is refused, the three are held.
            status, _, _ = await ask(port, b"GET /page HTTP/1.1\r\n\r\n")
            assert status == b"HTTP/1.1 503 Service Unavailable"
            for reader, writer in held:
                writer.write(b"GET /page HTTP/1.1\r\n\r\n")
                assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 OK")
                writer.close()
                await writer.wait_closed()
            while True:  # the server sees the last one leave a moment later
                status, _, _ = await ask(port, b"GET /page HTTP/1.1\r\n\r\n")
                if status == b"HTTP/1.1 200 OK":
                    break

    run(main())


def test_a_crowd_is_answered_refused_or_reset_and_then_all_is_well() -> None:
    async def main() -> None:
        async with serving() as port:
            crowd = (ask(port, b"GET /page HTTP/1.1\r\n\r\n") for _ in range(MAX_CONNECTIONS + MAX_REFUSALS))
            statuses = [status for status, _, _ in await asyncio.gather(*crowd)]
            assert set(statuses) <= {b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"}
            assert statuses.count(b"HTTP/1.1 200 OK") >= MAX_CONNECTIONS
            mob = (ask(port, b"GET /page HTTP/1.1\r\n\r\n") for _ in range(300))
            for answer in await asyncio.gather(*mob, return_exceptions=True):
                assert isinstance(answer, tuple | ConnectionError)
            assert (await ask(port, b"GET /page HTTP/1.1\r\n\r\n"))[2] == b"hello\n"

    run(main())


def test_beyond_all_bounds_connections_are_reset() -> None:
    async def main() -> None:
        async with serving(max_connections=1, exchange_s=3600.0) as port:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1 + MAX_REFUSALS)]
            assert b" 503 " in await rest(held[-1][0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await rest(reader) == b""
            for _, one in [*held, (reader, writer)]:
                one.transport.abort()

    run(main())


def test_a_client_that_asks_and_then_only_listens_gets_all_of_a_large_page() -> None:
    async def main() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /large HTTP/1.1\r\n\r\n")
            writer.write_eof()
            answer = await rest(reader)
            assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE
            writer.close()
            await writer.wait_closed()

    run(main())


def test_a_refused_client_may_finish_what_it_says() -> None:
    async def main() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /page HTTP/1.1\r\nContent-Length: 3000\r\n\r\n")
            assert b" 405 " in await rest(reader)
            for _ in range(3):  # to a socket that was closed over there, the second one would fail
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0)
            assert not writer.is_closing()
            writer.transport.abort()

    run(main())


def test_close_cuts_off_who_is_connected() -> None:
    async def main() -> None:
        async with serving(exchange_s=3600.0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await ask(port, b"GET /page HTTP/1.1\r\n\r\n")  # connections are taken in order
        assert await rest(reader) == b""
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(main())


def test_a_loop_that_stands_still_answers_nobody() -> None:
    ports: list[int] = []
    started, asked, go_on = threading.Event(), threading.Event(), threading.Event()

    async def main() -> None:
        server = HttpServer({"/page": lambda: Response(200, b"hello\n")})
        await server.start("127.0.0.1", 0)
        ports.append(server.port)
        started.set()
        go_on.wait(20)  # on the loop's thread: nothing else runs
        await asyncio.to_thread(asked.wait, 20)
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(20)
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=0.2) as client:
            client.sendall(b"GET /page HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(20)
            go_on.set()
            assert client.recv(1) == b"H"
    finally:
        go_on.set()
        asked.set()
        thread.join()
