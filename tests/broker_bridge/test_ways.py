"""Ways to a broker with whole sessions: WebSocket servers of another make, IPv6, TLS names, socket options."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from broker_bridge._tcp import connect
from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.network import SocketConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerUnreachable, PublishRefused, SessionLost
from tests.aio import Inbox, run
from tests.servers import Certificates, make_certificates, mosquitto

CONNECTORS = pytest.mark.parametrize("library", [AiomqttConnector, PahoConnector])
ACCEPTED = bytes([0x20, 2, 0, 0])
Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def websocket_server(script: Script, **options: Any) -> AsyncIterator[str]:
    """A WebSocket server that answers CONNECT and goes on as the script says; yields its URL."""
    faults: list[BaseException] = []

    async def handle(connection: ServerConnection) -> None:
        try:
            first = await connection.recv()
        except ConnectionClosed:  # the client liked the upgrade's answer not
            return
        try:
            assert first[0] == 0x10
            await connection.send(ACCEPTED)
            await script(connection)
        except BaseException as error:
            faults.append(error)
            raise

    options = {"subprotocols": ["mqtt"], "compression": None, **options}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/mqtt"
    assert faults == []


async def nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


@CONNECTORS
def test_pings_are_answered_and_fragments_put_together(library: type[PahoConnector]) -> None:
    packet = bytes([0x30, 5, 0, 1]) + b"t42"

    async def script(connection: ServerConnection) -> None:
        await (await connection.ping(b"are you there"))
        await connection.send(packet)
        await connection.send([packet[:1], packet[1:3], b"", packet[3:]])
        for byte in packet:
            await connection.send(bytes([byte]))
        await connection.send(packet * 3)
        await connection.wait_closed()

    async def main() -> None:
        inbox = Inbox()
        async with (
            websocket_server(script) as url,
            library(BrokerConfig(url=url)).connect("one", on_message=inbox),
        ):
            await inbox.count(6)
            assert inbox.payloads == [b"42"] * 6

    run(main())


@CONNECTORS
def test_a_broker_that_reads_late_gets_everything_and_its_pong(library: type[PahoConnector]) -> None:
    """Our send buffers fill up: paho's packets wait, and a pong waits behind them, until the broker reads on."""
    payloads = [os.urandom(59_000) for _ in range(60)]

    async def main() -> None:
        reads_on, arrived = asyncio.Event(), asyncio.Event()

        async def script(connection: ServerConnection) -> None:
            await reads_on.wait()
            pong = await connection.ping()
            stream = b""
            while payloads[-1] not in stream:
                data = await connection.recv()
                assert isinstance(data, bytes)
                stream += data
            await pong
            assert [stream.count(payload) for payload in payloads] == [1] * len(payloads)
            arrived.set()
            await connection.wait_closed()

        async with websocket_server(script, max_queue=1) as url:
            config = BrokerConfig(url=url, socket=SocketConfig(send_buffer_bytes=4096))
            async with library(config).connect("one", on_message=Inbox()) as session:
                sends = [asyncio.create_task(session.publish("t", payload, qos=0)) for payload in payloads]
                await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
                assert not all(task.done() for task in sends), "the kernel took 3.5 MB at once: nothing was tested"
                reads_on.set()
                await asyncio.gather(*sends)
                await arrived.wait()

    run(main())


@CONNECTORS
def test_pongs_of_an_idle_session_leave_when_the_broker_reads_on(library: type[PahoConnector]) -> None:
    """Nothing of paho's waits to be written here: the answers alone have to wake the writer."""
    count, body = 1500, bytes(125)
    ping, message = bytes([0x89, len(body)]) + body, bytes([0x82, 5, 0x30, 3, 0, 1]) + b"t"

    async def main() -> None:
        inbox, answered = Inbox(), asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            (key,) = re.findall("Sec-WebSocket-Key: (.*)\r\n", request)
            upgrade = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_key(key)}"]
            lines = ["HTTP/1.1 101 S", *upgrade, "Sec-WebSocket-Protocol: mqtt", "", ""]
            writer.write("\r\n".join(lines).encode("ascii"))
            head = await reader.readexactly(2)
            await reader.readexactly(4 + (head[1] & 0x7F))  # CONNECT
            writer.write(bytes([0x82, 4]) + ACCEPTED + ping * count + message)
            await inbox.count(1)  # every ping is read; the answers don't fit
            await reader.readexactly(count * (2 + 4 + len(body)))
            answered.set()
            await reader.read()
            writer.close()

        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            async with await asyncio.start_server(script, sock=listener, limit=1024):
                url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
                config = BrokerConfig(url=url, socket=SocketConfig(send_buffer_bytes=4096))
                async with library(config).connect("one", on_message=inbox):
                    await answered.wait()

    run(main())


@CONNECTORS
def test_what_the_broker_closes_with_is_the_reason_of_the_loss(library: type[PahoConnector]) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.close(1008, "not today")

    async def main() -> None:
        async with (
            websocket_server(script) as url,
            library(BrokerConfig(url=url)).connect("one", on_message=Inbox()) as session,
        ):
            with pytest.raises(SessionLost, match=r"closed by the broker: websocket code 1008 \(not today\)"):
                await session.wait_closed()

    run(main())


@CONNECTORS
def test_text_frames_lose_the_session(library: type[PahoConnector]) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.wait_closed()
        assert connection.close_code == 1003

    async def main() -> None:
        async with (
            websocket_server(script) as url,
            library(BrokerConfig(url=url)).connect("one", on_message=Inbox()) as session,
        ):
            with pytest.raises(SessionLost, match="sent websocket text"):
                await session.wait_closed()

    run(main())


@CONNECTORS
def test_an_upgrade_that_is_refused_says_why(library: type[PahoConnector]) -> None:
    def not_here(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.NOT_FOUND, "no such page")

    async def main() -> None:
        for options, complaint in (
            ({"process_request": not_here}, r"404 Not Found; check the path in 'url' \(/mqtt\)"),
            ({"subprotocols": None}, "without the subprotocol 'mqtt'"),
        ):
            async with websocket_server(nothing, **options) as url:
                with pytest.raises(BrokerUnreachable, match=f"broker {url} unreachable: .*{complaint}"):
                    async with library(BrokerConfig(url=url)).connect("one", on_message=Inbox()):
                        pass

    run(main())


@CONNECTORS
def test_a_plain_mqtt_listener_is_no_websocket_server(library: type[PahoConnector], mosquitto_server: Any) -> None:
    async def main() -> None:
        config = BrokerConfig(url=f"ws://127.0.0.1:{mosquitto_server.port}")
        with pytest.raises(BrokerUnreachable, match=r"it (closed|ended) the connection"):
            async with library(config).connect("one", on_message=Inbox()):
                pass

    run(main())


@CONNECTORS
def test_a_server_that_never_upgrades_is_left_after_the_timeout(library: type[PahoConnector]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            config = BrokerConfig(url=f"ws://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=0.1)
            with pytest.raises(BrokerUnreachable, match=r"no answer within 0\.1 s, waiting for the WebSocket upgrade"):
                async with library(config).connect("one", on_message=Inbox()):
                    pass

    run(main())


@CONNECTORS
def test_more_than_sixty_thousand_bytes_are_refused_over_websocket(library: type[PahoConnector]) -> None:
    async def main() -> None:
        with mosquitto(websockets=True, max_packet_size=50_000) as server:
            for protocol, limit in (("3.1.1", 60_000), ("5", 50_000)):
                config = BrokerConfig.model_validate({"url": server.url, "protocol": protocol})
                async with library(config).connect("one", on_message=Inbox()) as session:
                    assert session.max_packet_bytes == limit
                    with pytest.raises(PublishRefused, match=f"{limit}$"):
                        await session.publish("t", bytes(limit))

    run(main())


# IPv6 -----------------------------------------------------------------------------------------------------------------


def loopback() -> str:
    """`::1` where this machine has it, and what it has instead where it hasn't."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return "::1"
    except OSError:
        return "127.0.0.1"


@pytest.mark.broker
@CONNECTORS
@pytest.mark.parametrize(("websockets", "tls"), [(False, False), (True, False), (False, True), (True, True)])
def test_an_ipv6_literal(library: type[PahoConnector], websockets: bool, tls: bool, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path) if tls else None
    files = {
        "ca_file": tmp_path / "ca.pem",
        "client_certificate_file": tmp_path / "client.pem",
        "client_key_file": tmp_path / "client.key",
    }

    async def main() -> None:
        with mosquitto(host=loopback(), websockets=websockets, certificates=certificates) as server:
            config = BrokerConfig.model_validate({"url": server.url, **(files if tls else {})})
            assert config.address.startswith(server.url)
            async with library(config).connect("one", on_message=Inbox()) as session:
                await session.publish("t", b"")

    run(main())


@CONNECTORS
def test_each_address_of_a_name_is_tried(library: type[PahoConnector], monkeypatch: pytest.MonkeyPatch) -> None:
    here = loopback()

    async def main() -> None:
        with socket.socket() as taken, mosquitto(host=here) as server:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: it refuses
            family = socket.AF_INET6 if ":" in here else socket.AF_INET
            addresses: list[tuple[Any, ...]] = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", taken.getsockname()),
                (family, socket.SOCK_STREAM, 6, "", (here, server.port)),
            ]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
            for _ in range(2):
                config = BrokerConfig(url=f"mqtt://both.example:{server.port}")
                async with library(config).connect("one", on_message=Inbox()) as session:
                    await session.publish("t", b"")
                addresses.reverse()

    run(main())


# TLS ------------------------------------------------------------------------------------------------------------------


@CONNECTORS
def test_alpn_and_server_name_are_offered(library: type[PahoConnector], certificates: Certificates) -> None:
    async def main() -> None:
        seen: list[tuple[str | None, str | None]] = []
        names: list[str | None] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server, certificates.server_key)
        context.set_alpn_protocols(["x-amzn-mqtt-ca"])
        context.sni_callback = lambda _socket, name, _context: names.append(name)

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tls = writer.get_extra_info("ssl_object")
            await reader.readexactly(2)
            seen.append((names[-1], tls.selected_alpn_protocol()))
            writer.write(ACCEPTED)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(script, "127.0.0.1", 0, ssl=context)
        async with server:
            config = BrokerConfig(
                url=f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                ca_file=certificates.ca,
                tls_server_name="localhost",
                alpn=("other", "x-amzn-mqtt-ca"),
            )
            async with library(config).connect("one", on_message=Inbox()):
                assert seen == [("localhost", "x-amzn-mqtt-ca")]
            wrong = config.model_copy(update={"tls_server_name": "other.example"})
            with pytest.raises(BrokerUnreachable, match="TLS failed: certificate refused: Hostname mismatch"):
                async with library(wrong).connect("one", on_message=Inbox()):
                    pass

    run(main())


# Socket options -------------------------------------------------------------------------------------------------------


def test_socket_options_reach_the_socket() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            plain = await connect("127.0.0.1", port, SocketConfig())
            options = SocketConfig.model_validate(
                {
                    "tcp_keepalive_s": 45,
                    "tcp_user_timeout_s": 12.5,
                    "send_buffer_bytes": 20_000,
                    "receive_buffer_bytes": 30_000,
                    "bind_address": "127.0.0.2",
                }
            )
            tuned = await connect("127.0.0.1", port, options)
            with plain, tuned:
                assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
                assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
                assert tuned.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert tuned.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 45
                assert tuned.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
                assert tuned.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 20_000  # Linux doubles it
                assert tuned.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 30_000
                for sock in (plain, tuned):
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                assert (plain.getsockname()[0], tuned.getsockname()[0]) == ("127.0.0.1", "127.0.0.2")

    run(main())


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ("192.0.2.1", "can't connect from 'socket.bind_address' 192.0.2.1: cannot assign requested address"),
        ("::1", "127.0.0.1 has no IPv6 address, and 'socket.bind_address' is ::1"),
    ],
)
def test_an_own_address_that_cannot_be_used_is_a_sentence(own: str, complaint: str) -> None:
    async def main() -> None:
        config = BrokerConfig.model_validate({"socket": {"bind_address": own}})
        with pytest.raises(BrokerUnreachable, match=f"broker mqtt://127.0.0.1:1883 unreachable: {complaint}"):
            async with PahoConnector(config).connect("one", on_message=Inbox()):
                pass

    run(main())
