"""Through an HTTP proxy: the request, its answers, a real tinyproxy and proxies that misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from broker_bridge._http import ResponseHead
from broker_bridge._proxy import check_tunnel, connect_request
from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.network import ProxyConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerMisconfigured, BrokerRefused, BrokerUnreachable, SessionLost
from tests.aio import Inbox, run
from tests.servers import Certificates, free_port, mosquitto, tinyproxy

PROXY = ProxyConfig(url="http://proxy:3128")
BROKER = BrokerConfig(url="mqtts://broker.example")
ACCEPTED = bytes([0x20, 2, 0, 0])


def test_the_request_names_the_broker_and_leaves_its_resolution_to_the_proxy() -> None:
    assert connect_request(PROXY, BROKER, None) == (
        b"CONNECT broker.example:8883 HTTP/1.1\r\nHost: broker.example:8883\r\nUser-Agent: headgate\r\n\r\n"
    )
    request = connect_request(PROXY, BrokerConfig(url="wss://[fd00::1]"), None)
    assert request.startswith(b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n")


def test_credentials_are_basic() -> None:
    proxy = ProxyConfig(url="http://proxy:3128", username="Aladdin", password_file=Path("secret"))
    # RFC 7617, section 2.
    assert b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in connect_request(
        proxy, BROKER, "open sesame"
    )


@pytest.mark.parametrize(
    ("answer", "error", "complaint"),
    [
        ("403 Filtered", BrokerUnreachable, "opens no way: 403 Filtered; have the proxy allow CONNECT to broker"),
        ("502 Bad Gateway", BrokerUnreachable, "can't reach broker.example:8883"),
        ("302 Found", BrokerUnreachable, "is this an HTTP proxy"),
        ("407 Auth", BrokerRefused, "set 'proxy.username' and 'proxy.password_file'"),
        ("407 Auth\r\nProxy-Authenticate: NTLM", BrokerRefused, "asks for NTLM, and Headgate knows Basic only"),
        ("407 Auth\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic", BrokerRefused, "set 'proxy.username'"),
    ],
)
def test_a_refusal_names_proxy_status_and_what_to_do(answer: str, error: type[Exception], complaint: str) -> None:
    head = ResponseHead()
    head.feed(f"HTTP/1.1 {answer}\r\n\r\n".encode())
    with pytest.raises(error, match=complaint) as refusal:
        check_tunnel(head, PROXY, BROKER)
    assert "proxy http://proxy:3128" in str(refusal.value)
    assert "broker mqtts://broker.example:8883" in str(refusal.value)


# A real proxy ---------------------------------------------------------------------------------------------------------


async def fails(config: BrokerConfig, error: type[Exception], complaint: str) -> None:
    for library in (AiomqttConnector, PahoConnector):
        with pytest.raises(error, match=complaint):
            async with library(config).connect("one", on_message=Inbox()):
                pass


@pytest.mark.broker
def test_tinyproxy_refuses_a_port(tmp_path: Path) -> None:
    port = free_port()
    with tinyproxy(1) as proxy:
        config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}", proxy=ProxyConfig(url=proxy.url))
        run(fails(config, BrokerUnreachable, rf"proxy {proxy.url} opens no way: 403 .* allow CONNECT to 127.0.0.1:"))


@pytest.mark.broker
def test_tinyproxy_cannot_reach_the_broker() -> None:
    port = free_port()
    with tinyproxy(port) as proxy:
        config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}", proxy=ProxyConfig(url=proxy.url))
        run(fails(config, BrokerUnreachable, rf"proxy {proxy.url} opens no way: 5\d\d .* can't reach 127.0.0.1:"))


@pytest.mark.broker
def test_tinyproxy_demands_credentials(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("let-me-out\n", "utf-8")
    wrong.write_text("guess\n", "utf-8")

    async def main() -> None:
        with mosquitto() as server, tinyproxy(server.port, users={"plant": "let-me-out"}) as proxy:

            def config(username: str | None, password_file: Path | None) -> BrokerConfig:
                way = ProxyConfig(url=proxy.url, username=username, password_file=password_file)
                return BrokerConfig(url=server.url, proxy=way)

            await fails(config(None, None), BrokerRefused, "407 .* set 'proxy.username'")
            await fails(
                config("plant", wrong), BrokerRefused, "401 .* check user name 'plant' and the password in .*wrong"
            )
            await fails(config("plant", tmp_path / "none"), BrokerMisconfigured, "none can't be read")
            async with PahoConnector(config("plant", right)).connect("one", on_message=Inbox()) as session:
                await session.publish("t", b"through")

    run(main())


@pytest.mark.broker
def test_a_proxy_resolves_the_name_and_tls_checks_the_brokers(certificates: Certificates) -> None:
    """The name is the broker's and not the proxy's, in SNI and in the certificate."""

    async def main() -> None:
        inbox = Inbox()
        with mosquitto(certificates=certificates) as server, tinyproxy(server.port) as proxy:
            config = BrokerConfig(
                url=f"mqtts://localhost:{server.port}",
                ca_file=certificates.ca,
                client_certificate_file=certificates.client,
                client_key_file=certificates.client_key,
                proxy=ProxyConfig(url=proxy.url),
            )
            async with PahoConnector(config).connect("one", on_message=inbox) as session:
                await session.subscribe("t")
                await session.publish("t", bytes(1 << 20))
                await inbox.count(1)
            other = config.model_copy(update={"tls_server_name": "other.example"})
            await fails(other, BrokerUnreachable, "certificate refused: Hostname mismatch.* 'other.example'")
            assert f"CONNECT localhost:{server.port}" in proxy.log.read_text("utf-8")

    run(main())


@pytest.mark.broker
@pytest.mark.parametrize("library", [AiomqttConnector, PahoConnector])
def test_a_tunnel_that_is_cut_ends_the_session(library: type[PahoConnector]) -> None:
    async def main() -> None:
        with mosquitto() as server, tinyproxy(server.port) as proxy:
            config = BrokerConfig(url=server.url, proxy=ProxyConfig(url=proxy.url))
            async with library(config).connect("one", on_message=Inbox()) as session:
                await session.publish("t", b"arrives")
                proxy.kill()
                with pytest.raises(SessionLost, match=f"connection to broker {server.url} lost"):
                    await session.wait_closed()
            await fails(config, BrokerUnreachable, f"broker {server.url} unreachable: proxy {proxy.url}: .*refused")

    run(main())


# Proxies that misbehave -----------------------------------------------------------------------------------------------

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ProxyConfig]:
    """A proxy that reads the request and then does as it likes; a script that fails fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield ProxyConfig(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 ", "closed the connection without an answer"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "doesn't answer as an HTTP proxy does: it starts with"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "its head is longer than 16384 bytes"),
    ],
)
def test_rubbish_is_said(answer: bytes, complaint: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.write_eof()
        with suppress(ConnectionResetError):  # it was left with unread rubbish
            await reader.read()

    async def main() -> None:
        async with scripted(script) as proxy:
            await fails(BrokerConfig(proxy=proxy), BrokerUnreachable, f"proxy {proxy.url} .*{complaint}")

    run(main())


def test_a_proxy_that_never_answers_is_named() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with scripted(script) as proxy:
            config = BrokerConfig(proxy=proxy, connect_timeout_s=0.1)
            await fails(config, BrokerUnreachable, rf"no answer within 0\.1 s, waiting for proxy {proxy.url} to open")

    run(main())


@pytest.mark.parametrize("library", [AiomqttConnector, PahoConnector])
@pytest.mark.parametrize("size", [1, 10, 1000])
def test_bytes_right_behind_the_answer_are_the_brokers(library: type[PahoConnector], size: int) -> None:
    """An impatient broker's CONNACK in the same segment as the proxy's answer, whole and in small pieces."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n" + ACCEPTED
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async def main() -> None:
        async with scripted(script) as proxy, library(BrokerConfig(proxy=proxy)).connect("one", on_message=Inbox()):
            pass

    run(main())


def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        proxy = ProxyConfig(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        run(fails(BrokerConfig(proxy=proxy), BrokerUnreachable, f"proxy {proxy.url}: connection refused"))
