"""What a broker may answer, written byte by byte: refusals, limits, silence and nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from broker_bridge.aiomqtt_session import AiomqttConnector
from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerRefused, BrokerUnreachable, Message, SessionLost
from tests.aio import Inbox, run

CONNECTORS = pytest.mark.parametrize("library", [AiomqttConnector, PahoConnector])
Protocol = Literal["3.1.1", "5"]
Script = Callable[["Peer"], Awaitable[None]]

ACCEPTED = bytes([0x20, 2, 0, 0])
ACCEPTED_5 = bytes([0x20, 3, 0, 0, 0])


def ignore(_message: Message) -> None:
    pass


class Peer:
    """The broker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def packet(self) -> tuple[int, bytes]:
        """Read one packet: its first byte and its body."""
        first = (await self._reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return first, await self._reader.readexactly(length)

    async def packet_id(self) -> bytes:
        """Read one packet that starts with its id."""
        _, body = await self.packet()
        return body[:2]

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def expect_silence(self) -> None:
        """Make the client write something, and see that it wrote nothing else before."""
        await self.send(bytes([0x32, 6, 0, 1, ord("b"), 0, 9, 0]))  # MQTT 5, QoS 1, packet id 9
        assert await self.packet() == (0x40, bytes([0, 9]))

    async def end(self) -> None:
        """Wait until the client closes."""
        await self._reader.read()


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[int]:
    """Serve one script to each connection; a script that fails fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await script(Peer(reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        await asyncio.gather(*tasks)


def config(port: int, protocol: Protocol = "3.1.1", timeout_s: float = 10.0) -> BrokerConfig:
    return BrokerConfig(url=f"mqtt://127.0.0.1:{port}", protocol=protocol, connect_timeout_s=timeout_s)


@CONNECTORS
@pytest.mark.parametrize(
    ("protocol", "connack", "error"),
    [
        ("3.1.1", [0x20, 2, 0, 2], BrokerRefused),  # identifier rejected
        ("3.1.1", [0x20, 2, 0, 3], BrokerUnreachable),  # server unavailable
        ("3.1.1", [0x20, 2, 0, 4], BrokerRefused),  # bad user name or password
        ("3.1.1", [0x20, 2, 0, 5], BrokerRefused),  # not authorised
        ("5", [0x20, 3, 0, 0x86, 0], BrokerRefused),  # bad user name or password
        ("5", [0x20, 3, 0, 0x87, 0], BrokerRefused),  # not authorised
        ("5", [0x20, 3, 0, 0x88, 0], BrokerUnreachable),  # server unavailable
        ("5", [0x20, 3, 0, 0x89, 0], BrokerUnreachable),  # server busy
        ("5", [0x20, 3, 0, 0x8A, 0], BrokerRefused),  # banned
        ("5", [0x20, 3, 0, 0x97, 0], BrokerUnreachable),  # quota exceeded
    ],
)
def test_refusals_that_stay_are_told_from_those_that_pass(
    library: type[PahoConnector], protocol: Protocol, connack: list[int], error: type[Exception]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(bytes(connack))
        await peer.end()

    async def main() -> None:
        async with scripted(script) as port:
            with pytest.raises(error, match=f"mqtt://127.0.0.1:{port}"):
                async with library(config(port, protocol)).connect("one", on_message=ignore):
                    pass

    run(main())


@CONNECTORS
def test_a_broker_that_closes_before_it_answers_is_unreachable_at_once(library: type[PahoConnector]) -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()

    async def main() -> None:
        async with scripted(script) as port:
            with pytest.raises(BrokerUnreachable, match="closed by the broker before it answered"):
                async with library(config(port)).connect("one", on_message=ignore):
                    pass

    run(main(), timeout_s=5.0)  # less than the connect timeout


@CONNECTORS
def test_a_broker_that_never_answers_is_unreachable_after_the_timeout(library: type[PahoConnector]) -> None:
    async def script(peer: Peer) -> None:
        await peer.end()

    async def main() -> None:
        async with scripted(script) as port:
            with pytest.raises(BrokerUnreachable, match=r"no answer within 0\.1 s"):
                async with library(config(port, timeout_s=0.1)).connect("one", on_message=ignore):
                    pass

    run(main())


@CONNECTORS
def test_connecting_can_be_cancelled_and_closes_the_connection(library: type[PahoConnector]) -> None:
    async def main() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.packet()
            asked.set()
            await peer.end()
            ended.set()

        async def connect(port: int) -> None:
            async with library(config(port)).connect("one", on_message=ignore):
                pass

        async with scripted(script) as port:
            task = asyncio.create_task(connect(port))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ended.wait()

    run(main(), timeout_s=5.0)


@CONNECTORS
def test_a_filter_that_is_not_granted_is_refused_by_name(library: type[PahoConnector]) -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(ACCEPTED)
        packet_id = await peer.packet_id()
        await peer.send(bytes([0x90, 4, *packet_id, 1, 0x80]))
        await peer.end()

    async def main() -> None:
        async with scripted(script) as port, library(config(port)).connect("one", on_message=ignore) as session:
            with pytest.raises(BrokerRefused, match="'secret/#'") as refusal:
                await session.subscribe("open/#", "secret/#")
            assert "open/#" not in str(refusal.value)

    run(main())


@CONNECTORS
def test_no_more_messages_are_in_flight_than_the_broker_announces(library: type[PahoConnector]) -> None:
    published: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 2]))  # Receive Maximum 2
        for _ in range(5):
            pair = [(await peer.packet())[1] for _ in range(2)]
            await peer.expect_silence()
            published.extend(body[6:] for body in pair)
            for body in pair:
                await peer.send(bytes([0x40, 2, *body[3:5]]))
        await peer.end()

    async def main() -> None:
        async with scripted(script) as port, library(config(port, "5")).connect("one", on_message=ignore) as session:
            await asyncio.gather(*(session.publish("t", b"%d" % number) for number in range(10)))
        assert published == [b"%d" % number for number in range(10)]

    run(main())


@CONNECTORS
def test_a_publisher_that_gives_up_keeps_its_place_in_flight(library: type[PahoConnector]) -> None:
    async def main() -> None:
        first, go_on = asyncio.Event(), asyncio.Event()
        published: list[bytes] = []

        async def script(peer: Peer) -> None:
            await peer.packet()
            await peer.send(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 1]))  # Receive Maximum 1
            for _ in range(2):
                _, body = await peer.packet()
                published.append(body[6:])
                first.set()
                await go_on.wait()
                await peer.expect_silence()
                await peer.send(bytes([0x40, 2, *body[3:5]]))
            await peer.end()

        async with scripted(script) as port:
            async with library(config(port, "5")).connect("one", on_message=ignore) as session:
                impatient = asyncio.create_task(session.publish("t", b"1"))
                await first.wait()
                impatient.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await impatient
                patient = asyncio.create_task(session.publish("t", b"2"))
                await asyncio.sleep(0)
                go_on.set()
                await patient
            assert published == [b"1", b"2"]

    run(main())


@CONNECTORS
def test_the_reason_of_a_disconnect_reaches_who_waits(library: type[PahoConnector]) -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(ACCEPTED_5)
        await peer.send(bytes([0xE0, 2, 0x8B, 0]))  # server shutting down
        await peer.end()

    async def main() -> None:
        async with scripted(script) as port, library(config(port, "5")).connect("one", on_message=ignore) as session:
            with pytest.raises(SessionLost, match="ended by the broker: server shutting down"):
                await session.wait_closed()

    run(main())


@CONNECTORS
@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(99), id="another protocol"),
        pytest.param(bytes([0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), id="length of five bytes"),
        pytest.param(bytes([0x30, 1, 0]), id="cut publish"),
        pytest.param(bytes([0x32, 4, 0, 9, ord("t"), 0]), id="topic longer than its packet"),
        pytest.param(bytes([0x30, 4, 0, 2, 0xFF, 0xFE]), id="topic that is not UTF-8"),
        pytest.param(bytes([0x90, 1, 0]), id="cut suback"),
        pytest.param(bytes([0xF0, 0]), id="reserved packet"),
    ],
)
def test_nonsense_ends_the_session_and_nothing_else(library: type[PahoConnector], nonsense: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(ACCEPTED)
        await peer.packet()
        await peer.send(nonsense)
        await peer.end()

    async def main() -> None:
        inbox = Inbox()
        async with scripted(script) as port, library(config(port)).connect("one", on_message=inbox) as session:
            with pytest.raises(SessionLost):
                await session.publish("t", b"")
            assert inbox.messages == []

    run(main())


@CONNECTORS
def test_packets_in_pieces_and_in_one_piece_are_read_alike(library: type[PahoConnector]) -> None:
    message = bytes([0x30, 4, 0, 1, ord("t"), ord("x")])

    async def script(peer: Peer) -> None:
        await peer.packet()
        for byte in ACCEPTED + message:
            await peer.send(bytes([byte]))
        await peer.send(message * 2000)
        await peer.end()

    async def main() -> None:
        inbox = Inbox()
        async with scripted(script) as port:
            async with library(config(port)).connect("one", on_message=inbox):
                await inbox.count(2001)
            assert set(inbox.payloads) == {b"x"}

    run(main())


def test_a_broker_that_falls_silent_is_lost_after_about_twice_the_keepalive() -> None:
    async def script(peer: Peer) -> None:
        await peer.packet()
        await peer.send(ACCEPTED)
        await peer.end()

    async def lose(library: type[PahoConnector | AiomqttConnector], port: int) -> None:
        silent = BrokerConfig(url=f"mqtt://127.0.0.1:{port}", keepalive_s=1)
        async with library(silent).connect("one", on_message=ignore) as session:
            with pytest.raises(SessionLost, match="keep alive timeout"):
                await session.publish("t", b"")

    async def main() -> None:
        async with scripted(script) as port:
            await asyncio.gather(lose(PahoConnector, port), lose(AiomqttConnector, port))

    run(main())
