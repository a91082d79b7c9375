"""`headgate tree` as a process on a real broker: snapshots, caps, and the display in a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from headgate.exits import Exit
from headgate.tree.model import MAX_SPARKPLUG_WAITING
from tests.aio import Inbox, run
from tests.servers import Server, free_port, mosquitto
from uns_topics.sparkplug import DataType, Metric, Payload, encode_payload

pytestmark = pytest.mark.broker
WAIT_S = 30.0


def publish(server: Server, said: dict[str, bytes]) -> None:
    async def main() -> None:
        connector = PahoConnector(BrokerConfig(url=server.url))
        async with connector.connect("publisher", on_message=Inbox()) as session:
            for topic, payload in said.items():
                await session.publish(topic, payload, retain=True)

    run(main())


def tree(url: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headgate", "tree", *(["--broker", url] if url else []), "--seconds", "0.5"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={**os.environ, **(environment or {})},
    )


def records(server: Server, *arguments: str) -> list[dict[str, Any]]:
    ended = tree(server.url, "--json", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [json.loads(line) for line in ended.stdout.splitlines()]


SAID = {
    "tree/lyon/atelier CMS/température": b"21.5",
    "tree/lyon/state": b'{"timestamp_ms": 1, "value": "running"}',
    "tree/lyon/recipe": '{"name": "grün", "rev": 4}'.encode(),
    "tree/lyon/model": bytes(range(256)),
    "tree/lyon/bidi\u202etopic": b"\x1b]0;owned\x07",
    "other/topic": b"1",
}


def test_a_snapshot_as_json(mosquitto_server: Server) -> None:
    publish(mosquitto_server, SAID)
    found = records(mosquitto_server, "tree/#")
    shown = [(one["topic"], one["kind"], one["value"], one["bytes"]) for one in found]
    assert shown == [
        ("tree/lyon/atelier CMS/température", "number", "21.5", 4),
        ("tree/lyon/bidi\u202etopic", "text", "\x1b]0;owned\x07", 10),
        ("tree/lyon/model", "unknown", "256 B", 256),
        ("tree/lyon/recipe", "json", '2 keys: name "grün", rev 4', 27),
        ("tree/lyon/state", "text", "running", 39),
    ]
    assert {(one["retain"], one["messages"], one["stale"]) for one in found} == {(True, 0, False)}


def test_a_snapshot_as_text_is_harmless(mosquitto_server: Server) -> None:
    publish(mosquitto_server, SAID)
    for form in ((), ("--json",)):
        ended = tree(mosquitto_server.url, "--once", *form, "tree/lyon/+", "other/#")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert all(line.isprintable() for line in ended.stdout.splitlines())
    lines = tree(mosquitto_server.url, "--once", "tree/lyon/+", "other/#").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["topic", "value", "rate", "age"],
        ["other/topic", "1", "kept"],
        ["tree/lyon/bidi\\u202etopic", "\\x1b]0;owned\\x07", "kept"],
        ["tree/lyon/model", "unknown", "256", "B", "kept"],
        ["tree/lyon/recipe", "2", "keys:", "name", '"grün",', "rev", "4", "kept"],
        ["tree/lyon/state", "running", "kept"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_caps_narrow_and_say_so(mosquitto_server: Server) -> None:
    publish(mosquitto_server, {f"caps/big/{i:03}": b"1" for i in range(200)} | {"caps/small/a": b"1"})
    ended = tree(mosquitto_server.url, "--json", "--max-topics", "40", "caps/#")
    assert ended.returncode == 0
    assert "headgate: left out: part of caps/big/# (" in ended.stderr
    assert len(ended.stdout.splitlines()) <= 40


def test_broker_and_units_of_a_configuration(mosquitto_server: Server, tmp_path: Path) -> None:
    publish(mosquitto_server, {"plant/line1/temp": b"21.5", "plant/line1/raw": b"4095"})
    (tmp_path / "signal-map.yaml").write_text(
        "instance: plant/{line}\n"
        "sources:\n"
        "  - {topic: 'plant/{line}/temp', form: scalar, features: [{feature: temp, unit: degC}]}\n"
        "  - {topic: 'plant/{line}/raw', form: scalar, features: [{feature: raw, unit: bar, scale: 0.01}]}\n"
    )
    (tmp_path / "edge.yaml").write_text(
        f"federation: f\nparticipant: p\ndata_dir: data\nsignal_map: signal-map.yaml\n"
        f"broker: {{url: 'mqtt://127.0.0.1:{free_port()}'}}\nplant_broker: {{url: '{mosquitto_server.url}'}}\n"
    )
    ended = tree("", "--json", "--config", str(tmp_path / "edge.yaml"), "plant/#")
    assert (ended.returncode, ended.stderr) == (0, "")
    units = {one["topic"]: one["unit"] for one in map(json.loads, ended.stdout.splitlines())}
    assert units == {"plant/line1/temp": "degC", "plant/line1/raw": None}
    by_map = records(mosquitto_server, "--config", str(tmp_path / "signal-map.yaml"), "plant/+/temp")
    assert [one["unit"] for one in by_map] == ["degC"]
    by_environment = tree("", "--json", "plant/+/temp", environment={"HEADGATE_BROKER__URL": mosquitto_server.url})
    assert len(by_environment.stdout.splitlines()) == 1


def test_a_snapshot_reads_every_sparkplug_message_that_it_hears(mosquitto_server: Server) -> None:
    topic = "spBv1.0/tree/DDATA/node/oven"
    message = encode_payload(Payload(2, (Metric("temp", 1, datatype=DataType.DOUBLE, value=22.0),), 1))
    command = [sys.executable, "-m", "headgate", "tree", "--json", "--broker", mosquitto_server.url]

    async def main(listening: subprocess.Popen[str]) -> None:
        connector = PahoConnector(BrokerConfig(url=mosquitto_server.url))
        async with connector.connect("publisher", on_message=Inbox()) as session:
            while listening.poll() is None:
                await asyncio.gather(*(session.publish(topic, message) for _ in range(20)), asyncio.sleep(0.02))

    with subprocess.Popen([*command, "--seconds", "5", topic], stdout=subprocess.PIPE, text=True) as listening:
        run(main(listening))
        assert listening.stdout is not None
        of_topic, of_metric = [json.loads(line) for line in listening.stdout]
    assert of_metric["messages"] == of_topic["messages"] > MAX_SPARKPLUG_WAITING


def test_what_ends_it() -> None:
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    assert tree(nobody, "--once").returncode == Exit.BROKER
    live = tree(nobody)
    assert (live.returncode, live.stdout) == (Exit.USAGE, "")
    assert "needs a terminal; --once prints a snapshot" in live.stderr
    assert tree(nobody, "--once", "a/#/b").returncode == Exit.USAGE
    assert tree("", "--once", "--config", "/nowhere/edge.yaml").returncode == Exit.NOT_FOUND


def test_nothing_said_is_told(mosquitto_server: Server) -> None:
    ended = tree(mosquitto_server.url, "--once", "nobody/speaks/here")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "nothing was said on nobody/speaks/here within 0.5 s" in ended.stderr


class Terminal:
    """A terminal of 80x24 with the command in it."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.screen = pyte.Screen(80, 24)
        self.raw = b""
        self._descriptor = descriptor
        self._stream = pyte.ByteStream(self.screen)

    @property
    def lines(self) -> list[str]:
        return [str(line).rstrip() for line in self.screen.display]

    def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        """Read what is drawn until the screen is as wanted."""
        deadline = time.monotonic() + WAIT_S
        while not wanted(self.lines):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            assert self._read(), "\n".join(self.lines)
        return self.lines

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def ended(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(WAIT_S)

    def _read(self) -> bool:
        if select.select([self._descriptor], [], [], WAIT_S)[0]:
            try:
                drawn = os.read(self._descriptor, 65_536)
            except OSError:  # the other side of a terminal is gone
                return False
            self.raw += drawn
            self._stream.feed(drawn)
            return bool(drawn)
        raise AssertionError("nothing was drawn for long:\n" + "\n".join(self.lines))


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "tree", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def shows(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def test_the_display_in_a_terminal(mosquitto_server: Server) -> None:
    publish(mosquitto_server, SAID)
    with terminal("--broker", mosquitto_server.url, "tree/#") as display:
        wanted = ("21.5", "5 topics", "unknown 256 B", "● connected")  # Mosquitto's SUBACK comes after the values
        lines = display.until(lambda lines: all(shows(one)(lines) for one in wanted))
        assert lines[0].startswith(" headgate tree  mqtt://127.0.0.1:")
        assert lines[23].endswith("q quit")
        assert shows("\\x1b]0;owned\\x07")(lines)
        assert b"\x1b]0;owned" not in display.raw
        publish(mosquitto_server, {"tree/lyon/state": b'{"timestamp_ms": 1, "value": "halted"}'})
        display.until(shows("halted"))
        display.press("/")
        display.press("recipe\r")
        display.until(lambda lines: not shows("halted")(lines) and shows("recipe")(lines))
        display.press("\x1b[Fc")
        display.until(shows("copied"))
        assert b"\x1b]52;c;" in display.raw
        display.press("q")
        assert display.ended() == Exit.OK
        assert display.raw.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1004l", b"\x1b[<u", b"\x1b[?2004l"))


def test_ctrl_c_ends_the_display_and_a_lost_broker_does_not() -> None:
    port = free_port()
    with terminal("--broker", f"mqtt://127.0.0.1:{port}") as display:
        display.until(shows("no connection yet: broker mqtt://127.0.0.1"))
        with mosquitto(port=port) as server:
            display.until(shows("● connected"))
            publish(server, {"a/b": b"1"})
            display.until(shows("a/b"))
        display.until(shows("○ "))
        with mosquitto(port=port):
            display.until(shows("● connected"))
            display.press("\x03")
            assert display.ended() == Exit.OK


def test_wrong_credentials_end_it_with_their_exit_code(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong")
    with mosquitto(passwords={"lyon": "right"}) as server:
        given = ("--broker", server.url, "--username", "lyon", "--password-file", str(secret))
        assert tree("", *given, "--once").returncode == Exit.BROKER
        with terminal(*given) as display:
            assert display.ended() == Exit.BROKER
            assert b"refused the connection" in display.raw
        secret.write_text("right")
        assert tree("", *given, "--once").returncode == Exit.OK
