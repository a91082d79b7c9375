from __future__ import annotations

import pytest

from broker_bridge._http import MAX_HEAD_BYTES, NoHttp, ResponseHead

HEAD = b"HTTP/1.1 407 Proxy Authentication Required\r\nVia: a\r\nProxy-Authenticate: Basic realm=x\r\nvia:b\r\n\r\n"
BEHIND = b"\x16\x03\x01 what the broker says\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("behind", [b"", BEHIND])
def test_a_head_is_the_same_in_pieces_of_any_size_and_takes_nothing_of_what_follows(size: int, behind: bytes) -> None:
    head, data = ResponseHead(), HEAD + behind
    taken = 0
    while not head.done:
        taken += head.feed(data[taken : taken + size])
    assert data[taken:] == behind
    assert (str(head), head.raw) == ("407 Proxy Authentication Required", HEAD)
    assert head.header("proxy-authenticate") == "Basic realm=x"
    assert head.header("Via") == "a, b"
    assert head.header("Location") == ""


@pytest.mark.parametrize("end", range(len(HEAD)))
def test_a_truncated_head_is_never_done(end: int) -> None:
    head = ResponseHead()
    assert head.feed(HEAD[:end]) == end
    assert not head.done


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it starts with"),
        (b" HTTP/1.1 200 OK\r\n\r\n", "it starts with"),
        (bytes([0x20, 2, 0, 0]), "it starts with"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "its first line"),
        (b"HTTP/1.1 OK\r\n\r\n", "its first line"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "its first line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES, "longer than"),
        (b"HTTP/1.1 200 " + b"x" * MAX_HEAD_BYTES, "longer than"),
    ],
)
def test_what_is_no_http_is_said_at_once(data: bytes, complaint: str) -> None:
    with pytest.raises(NoHttp, match=complaint):
        ResponseHead().feed(data)
    with pytest.raises(NoHttp, match=complaint):
        feed_byte_by_byte(ResponseHead(), data)


def feed_byte_by_byte(head: ResponseHead, data: bytes) -> None:
    for byte in data:
        head.feed(bytes([byte]))


def test_a_reason_does_no_harm_in_a_log() -> None:
    head = ResponseHead()
    head.feed(b"HTTP/1.1 500 \x1b[31mred\xff\n\x00" + b"x" * 200 + b"\r\n\r\n")
    assert str(head).isprintable()
    assert len(head.reason) == 80


def test_a_status_needs_no_reason() -> None:
    head = ResponseHead()
    head.feed(b"HTTP/1.0 200\r\n\r\n")
    assert (head.status, str(head)) == (200, "200")
