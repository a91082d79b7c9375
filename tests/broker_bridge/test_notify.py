"""systemd's notify protocol against a real datagram socket."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_bridge.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What NOTIFY_SOCKET says, and the socket that listens there."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@headgate-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        server.settimeout(10)
        yield name, server


def test_each_message_is_one_datagram(listening: tuple[str, socket.socket]) -> None:
    name, server = listening
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
    assert notifier.is_active
    assert notifier.ping_s == 1.0
    assert notifier.ready()
    assert notifier.ping()
    assert notifier.send("STATUS=Zürich ist da", "EXTEND_TIMEOUT_USEC=1")
    assert notifier.stopping()
    heard = [server.recv(1000).decode() for _ in range(4)]
    assert heard == ["READY=1", "WATCHDOG=1", "STATUS=Zürich ist da\nEXTEND_TIMEOUT_USEC=1", "STOPPING=1"]


def test_nothing_is_said_without_a_socket() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}):
        notifier = Notifier.from_environment(environ)
        assert not notifier.is_active
        assert notifier.ping_s is None
        assert [notifier.ready(), notifier.ping(), notifier.stopping()] == [False] * 3


@pytest.mark.parametrize("address", ["relative", "vsock:2:1234", "/", "@"])
def test_an_address_that_is_not_spoken_to_is_said_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not Notifier.from_environment({"NOTIFY_SOCKET": address}).is_active
    assert repr(address) in caplog.text


@pytest.mark.parametrize(
    ("environ", "ping_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 10.0),
        ({"WATCHDOG_PID": "77"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "³"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(environ: dict[str, str], ping_s: float | None) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/nowhere", **environ}, pid=77)
    assert notifier.ping_s == ping_s


def test_the_process_is_asked_for_its_own_id() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.from_environment(environ).ping_s is not None


def test_a_manager_that_is_away_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    assert not notifier.ready()
    assert not notifier.ready()
    assert caplog.text.count("can't be told READY=1") == 1


def test_a_full_queue_is_not_waited_for(listening: tuple[str, socket.socket]) -> None:
    name, server = listening
    notifier = Notifier(name)
    sent = 0
    while notifier.send(f"STATUS={'x' * 1000}"):
        sent += 1
    assert sent > 0
    server.recv(2000)
    assert notifier.ready()
