"""The WebSocket under paho: framing over a pair of sockets, with the `websockets` package as the server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, OP_TEXT, Frame
from websockets.protocol import SERVER, State
from websockets.protocol import Protocol as Frames
from websockets.utils import accept_key

from broker_bridge._http import ResponseHead
from broker_bridge._socket import ReadAheadSocket
from broker_bridge._websocket import WebSocket, check_upgrade, client_protocol, upgrade
from broker_bridge.config import BrokerConfig
from broker_bridge.session import BrokerRefused, BrokerUnreachable
from tests.aio import run

CONFIG = BrokerConfig(url="ws://broker:8080/mqtt")


class Pair:
    """Our WebSocket and the other end of its wire."""

    def __init__(self, ahead: bytes = b"") -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.server = Frames(SERVER, max_size=None)
        protocol = client_protocol(CONFIG)
        protocol.state = State.OPEN
        protocol.parser = super(type(protocol), protocol).parse()  # the upgrade is behind us
        next(protocol.parser)
        self.socket = WebSocket(ReadAheadSocket(ours), protocol, ahead)

    def received(self) -> list[Frame]:
        """What arrived at the server since the last time."""
        while True:
            try:
                data = self.peer.recv(1 << 20)
            except BlockingIOError:
                break
            if not data:
                self.server.receive_eof()
                break
            self.server.receive_data(data)
        return [event for event in self.server.events_received() if isinstance(event, Frame)]

    def read(self, size: int = 1 << 20) -> bytes:
        """All that can be read now."""
        data = b""
        while True:
            try:
                piece = self.socket.recv(size)
            except BlockingIOError:
                return data
            if not piece:
                return data
            data += piece


def frame(opcode: object, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)  # type: ignore[arg-type]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.socket.release()
    made.peer.close()


PAYLOAD = os.urandom(70_000)
STREAM = b"".join(
    [
        frame(OP_BINARY, b"one"),
        frame(OP_PING, b"p1"),
        frame(OP_BINARY, b""),
        frame(OP_BINARY, b"tw", fin=False),
        frame(OP_PING, b"p2"),
        frame(OP_CONT, b"", fin=False),
        frame(OP_CONT, b"o"),
        frame(OP_PONG, b"nobody asked"),
        frame(OP_BINARY, PAYLOAD[:300]),
    ]
)


@pytest.mark.parametrize("piece", [1, 2, 5, 100, len(STREAM)])
@pytest.mark.parametrize("size", [1, 4, 1 << 20])
def test_the_stream_is_the_same_however_it_is_cut(pair: Pair, piece: int, size: int) -> None:
    got = b""
    for start in range(0, len(STREAM), piece):
        pair.peer.sendall(STREAM[start : start + piece])
        got += pair.read(size)
    assert got == b"onetwo" + PAYLOAD[:300]
    assert [(f.opcode, bytes(f.data)) for f in pair.received()] == [(OP_PONG, b"p1"), (OP_PONG, b"p2")]
    assert pair.socket.pending() == 0
    assert pair.socket.error is None


def test_a_frame_larger_than_one_read_arrives_whole(pair: Pair) -> None:
    pair.peer.setblocking(True)
    data, got = frame(OP_BINARY, PAYLOAD * 5), b""
    for start in range(0, len(data), 50_000):
        pair.peer.sendall(data[start : start + 50_000])
        got += pair.read()
    assert got == PAYLOAD * 5


def test_frames_right_behind_the_upgrade_are_pending(pair: Pair) -> None:
    early = Pair(ahead=STREAM)
    assert early.socket.pending() == len(b"onetwo") + 300
    assert early.read() == b"onetwo" + PAYLOAD[:300]
    early.socket.release()
    early.peer.close()


def test_sending_takes_one_frame_and_then_waits_until_it_has_left(pair: Pair) -> None:
    sent, got = 0, b""
    data = PAYLOAD * 4
    while sent < len(data):
        try:
            sent += pair.socket.send(data[sent:])
        except BlockingIOError:
            assert pair.socket.unsent
            got += b"".join(bytes(f.data) for f in pair.received())
            pair.socket.flush()
    while pair.socket.unsent:
        got += b"".join(bytes(f.data) for f in pair.received())
        pair.socket.flush()
    got += b"".join(bytes(f.data) for f in pair.received())
    assert got == data


def test_a_pong_does_not_cut_a_frame_in_two(pair: Pair) -> None:
    """An answer to a ping waits behind a frame that hasn't left yet."""
    taken = pair.socket.send(PAYLOAD)
    assert pair.socket.unsent
    pair.peer.sendall(frame(OP_PING, b"now"))
    assert pair.read() == b""
    frames: list[Frame] = []
    while pair.socket.unsent:
        frames += pair.received()
        pair.socket.flush()
    frames += pair.received()
    assert [(f.opcode, bytes(f.data)) for f in frames] == [(OP_BINARY, PAYLOAD[:taken]), (OP_PONG, b"now")]


def test_a_broker_that_pings_and_never_reads_is_left(pair: Pair) -> None:
    pings = frame(OP_PING, bytes(125)) * 100

    def left() -> bool:
        pair.peer.sendall(pings)
        try:
            return pair.socket.recv(1) == b""
        except BlockingIOError:
            return False

    assert any(left() for _ in range(40))  # 40 times 13 kB of answers are more than may wait
    assert "pings without reading" in str(pair.socket.error)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (frame(OP_TEXT, b"hello"), "sent WebSocket text"),
        (frame(OP_CONT, b"x"), "unexpected continuation frame"),
        (b"\xff\xff\xff\xff", "broke the WebSocket protocol"),
        (Frame(OP_BINARY, b"masked").serialize(mask=True), "broke the WebSocket protocol"),
        (b"\x82\x7f" + (2**40).to_bytes(8, "big"), "broke the WebSocket protocol"),
    ],
)
def test_what_a_broker_must_not_send_ends_the_stream_behind_what_was_good(
    pair: Pair, data: bytes, complaint: str
) -> None:
    pair.peer.sendall(frame(OP_BINARY, b"good") + data + frame(OP_BINARY, b"late"))
    assert pair.socket.recv(100) == b"good"
    assert pair.socket.pending() > 0, "nothing else would wake the reader"
    assert pair.socket.recv(100) == b""
    assert complaint in str(pair.socket.error)
    assert pair.received()[-1].opcode is OP_CLOSE
    with pytest.raises(OSError, match="the broker"):
        pair.socket.send(b"x")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", None),
        (b"\x03\xe8bye", None),
        (b"\x03\xf0no \xc3\xb6l", "closed by the broker: WebSocket code 1008 (no öl)"),
        (b"\x03\xe9", "closed by the broker: WebSocket code 1001"),
    ],
)
def test_a_close_frame_is_answered_and_ends_the_stream(pair: Pair, body: bytes, error: str | None) -> None:
    pair.peer.sendall(frame(OP_BINARY, b"last") + frame(OP_CLOSE, body))
    assert pair.socket.recv(100) == b"last"
    assert pair.socket.recv(100) == b""
    assert (None if pair.socket.error is None else str(pair.socket.error)) == error
    assert [bytes(f.data) for f in pair.received()] == [body]
    with pytest.raises(OSError, match=r"closing|closed by the broker"):
        pair.socket.send(b"x")


def test_the_end_of_the_wire_ends_the_stream(pair: Pair) -> None:
    pair.peer.sendall(frame(OP_BINARY, b"last") + frame(OP_BINARY, b"half")[:3])
    pair.peer.shutdown(socket.SHUT_WR)
    assert pair.socket.recv(100) == b"last"
    assert pair.socket.recv(100) == b""


def test_leaving_sends_what_waits_then_goodbye_then_the_end(pair: Pair) -> None:
    async def main() -> None:
        pair.socket.half_close()
        taken = pair.socket.send(PAYLOAD)
        assert pair.socket.unsent
        pair.socket.close()
        rest = asyncio.create_task(pair.socket.read_to_end())
        loop = asyncio.get_running_loop()
        data = b""
        while piece := await loop.sock_recv(pair.peer, 1000):
            data += piece
        pair.server.receive_data(data)
        frames = [event for event in pair.server.events_received() if isinstance(event, Frame)]
        assert [(f.opcode, len(f.data)) for f in frames] == [(OP_BINARY, taken), (OP_CLOSE, 2)]
        assert not rest.done()
        pair.peer.close()
        await rest

    run(main())


# The upgrade ----------------------------------------------------------------------------------------------------------


def check(status: str, *headers: str, config: BrokerConfig = CONFIG) -> None:
    protocol = client_protocol(config)
    protocol.send_request(protocol.connect())
    lines = [line.replace("ACCEPT", accept_key(protocol.key)) for line in headers]
    head = ResponseHead()
    head.feed("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())
    check_upgrade(head, protocol, config)


GOOD = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: ACCEPT")


def test_a_right_answer_opens_it() -> None:
    check("101 Switching Protocols", *GOOD, "Sec-WebSocket-Protocol: mqtt")


@pytest.mark.parametrize(
    ("status", "headers", "error", "complaint"),
    [
        ("404 Not Found", (), BrokerUnreachable, r"404 Not Found; check the path in 'url' \(/mqtt\)"),
        ("301 Moved", ("Location: wss://b/ws",), BrokerUnreachable, "it points to wss://b/ws: write the final address"),
        ("200 OK", (), BrokerUnreachable, "200 OK; check port and path"),
        ("503 Busy", (), BrokerUnreachable, "503 Busy"),
        ("401 Unauthorized", (), BrokerRefused, "wants HTTP credentials"),
        ("101 S", GOOD, BrokerUnreachable, "without the subprotocol 'mqtt'"),
        ("101 S", (*GOOD, "Sec-WebSocket-Protocol: amqp"), BrokerUnreachable, "unsupported subprotocol: amqp"),
        ("101 S", (*GOOD[:2], "Sec-WebSocket-Accept: x"), BrokerUnreachable, "invalid Sec-WebSocket-Accept"),
        ("101 S", GOOD[1:], BrokerUnreachable, "missing Upgrade header"),
        ("101 S", (*GOOD, "Sec-WebSocket-Extensions: zip"), BrokerUnreachable, "no extensions supported"),
    ],
)
def test_any_other_answer_is_a_sentence(
    status: str, headers: tuple[str, ...], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint) as refusal:
        check(status, *headers)
    assert str(refusal.value).startswith("broker ws://broker:8080/mqtt ")


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("ws://broker", "Host: broker\r\n", "GET /mqtt HTTP"),
        ("ws://broker:8080/", "Host: broker:8080\r\n", "GET / HTTP"),
        ("wss://[fd00::1%25eth0]:444/a/b", "Host: [fd00::1]:444\r\n", "GET /a/b HTTP"),
        ("wss://grün.example", f"Host: {'grün.example'.encode('idna').decode('ascii')}\r\n", "GET /mqtt HTTP"),
    ],
)
def test_the_request(url: str, host: str, path: str) -> None:
    protocol = client_protocol(BrokerConfig(url=url))
    protocol.send_request(protocol.connect())
    request = b"".join(protocol.data_to_send()).decode("ascii")
    assert request.startswith(path)
    assert host in request
    assert "Sec-WebSocket-Protocol: mqtt\r\n" in request
    assert "Extensions" not in request


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 101"])
def test_a_server_that_is_none_is_said(answer: bytes) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peer.sendall(answer)
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokerUnreachable, match=r"it (closed the connection without|doesn't answer as)"):
            await upgrade(ReadAheadSocket(ours), CONFIG)
        ours.close()
        peer.close()

    run(main())
