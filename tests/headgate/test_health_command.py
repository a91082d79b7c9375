"""`headgate health`: what a container's health check calls."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_bridge.embedded import free_port
from broker_bridge.health import Check, Health, HealthConfig
from broker_bridge.http_server import HttpServer, Response
from broker_bridge.notify import Notifier
from headgate.cli import main
from headgate.exits import Exit


@contextmanager
def service(host: str = "127.0.0.1", **checks: Check) -> Iterator[str]:
    """A service's health on a loop of its own; gives what `health.listen` says."""
    shown = f"[{host}]" if ":" in host else host
    listen = f"{shown}:{free_port(0, host)}"

    async def serve(listening: threading.Event, stop: asyncio.Event) -> None:
        health = Health(HealthConfig(listen=listen), notifier=Notifier())
        for name, check in checks.items():
            health.condition(name, check)
        async with health.serving():
            listening.set()
            await stop.wait()

    with running(serve):
        yield listen


@contextmanager
def running(serve) -> Iterator[None]:  # type: ignore[no-untyped-def]
    listening, stop = threading.Event(), asyncio.Event()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=lambda: runner.run(serve(listening, stop)))
        thread.start()
        try:
            assert listening.wait(20)
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = main(["health", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_ready_service(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with service(broker=lambda: None) as listen:
        for url in (listen, f"http://{listen}", f"http://{listen}/", f"http://{listen}/readyz"):
            assert asked(capsys, url) == (Exit.OK, "ready\n", "")
        path = tmp_path / "edge.yaml"
        path.write_text(f'participant: berlin\nwhatever: {{the: service}}\nhealth: {{listen: "{listen}"}}\n')
        assert asked(capsys, "--config", str(path)) == (Exit.OK, "ready\n", "")


def test_one_on_ipv6(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with service("::1", broker=lambda: None) as listen:
        assert asked(capsys, listen) == (Exit.OK, "ready\n", "")
        path = tmp_path / "edge.yaml"
        path.write_text(f'health: {{listen: "{listen}"}}\n')
        assert asked(capsys, "--config", str(path)) == (Exit.OK, "ready\n", "")


def test_one_that_listens_everywhere_is_asked_on_the_loopback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with service("127.0.0.1", broker=lambda: None) as listen:
        path = tmp_path / "edge.yaml"
        path.write_text(f"health: {{listen: {listen.replace('127.0.0.1', '0.0.0.0')}}}\n")
        assert asked(capsys, "--config", str(path)) == (Exit.OK, "ready\n", "")


def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with service(broker=lambda: "no session", plan=lambda: None, plant=lambda: "no contract") as listen:
        code, out, err = asked(capsys, listen)
    assert (code, err) == (Exit.FINDINGS, "")
    assert out == "broker: no session\nplant: no contract\n"


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{held.getsockname()[1]}"
        code, out, err = asked(capsys, place)
        assert (code, out) == (Exit.BROKER, "")
        assert err == f"headgate: nobody answers at {place}: Connection refused\n"
        held.listen()  # connects, and then there is silence
        code, out, err = asked(capsys, place, "--timeout", "0.1")
        assert (code, out) == (Exit.BROKER, "")
        assert err == f"headgate: nobody answers at {place}: no answer in time\n"


def test_somebody_else_answers(capsys: pytest.CaptureFixture[str]) -> None:
    ports: list[int] = []

    async def other(listening: threading.Event, stop: asyncio.Event) -> None:
        server = HttpServer({"/": lambda: Response(200, b"welcome")})
        await server.start("127.0.0.1", 0)
        ports.append(server.port)
        listening.set()
        await stop.wait()
        await server.close()

    with running(other):
        code, _, err = asked(capsys, f"127.0.0.1:{ports[0]}")
    assert code == Exit.FAILURE
    assert "answers 404" in err

    async def ssh(listening: threading.Event, stop: asyncio.Event) -> None:
        greeted = asyncio.Event()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            writer.write_eof()
            await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            greeted.set()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()
        await stop.wait()
        await greeted.wait()
        server.close()
        await server.wait_closed()

    with running(ssh):
        code, _, err = asked(capsys, f"127.0.0.1:{ports[1]}")
    assert code == Exit.FAILURE
    assert "not as a service of Headgate does" in err


@pytest.mark.parametrize(
    "url", ["127.0.0.1", "https://127.0.0.1:1", "http://127.0.0.1:1/metrics", "127.0.0.1:x", "http://[::1", "", ":80"]
)
def test_a_url_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = asked(capsys, url)
    assert code == Exit.USAGE
    assert f"{url!r} is no place to ask" in err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("participant: berlin\n", "health.listen is not set"),
        ("health:\n", "health.listen is not set"),
        ("", "health.listen is not set"),
        ("health: {listen: null}\n", "health.listen is not set"),
        ("health: {listen: 9464}\n", "health: listen: "),
        ("health: {listne: 127.0.0.1:9464}\n", "health: listne: unknown key"),
        ("- health\n", "a mapping of keys was expected, not list"),
    ],
)
def test_a_configuration_that_says_nowhere(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(content)
    code, _, err = asked(capsys, "--config", str(path))
    assert code == Exit.USAGE
    assert f"{path}: " in err
    assert sentence in err
    assert err.count("\n") == 1


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, "--config", "nowhere.yaml") == (Exit.NOT_FOUND, "", "headgate: nowhere.yaml: no such file\n")


def test_the_environment_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text("plant: {url: mqtt://here}\n")
    with service(broker=lambda: None) as listen:
        monkeypatch.setenv("HEADGATE_HEALTH__LISTEN", listen)
        monkeypatch.setenv("HEADGATE_BROKER__URL", "mqtt://elsewhere")
        assert asked(capsys, "--config", str(path)) == (Exit.OK, "ready\n", "")


def test_it_starts_without_what_is_heavy() -> None:
    code = (
        "import json, sys; from headgate.cli import main; main(['health', '127.0.0.1:1']); print(json.dumps("
        "[m for m in ('numpy', 'onnx', 'onnxruntime', 'torch', 'pint', 'sqlalchemy') if m in sys.modules]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(ended.stdout) == []


def test_url_or_config(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["127.0.0.1:1", "--config", "edge.yaml"], ["127.0.0.1:1", "--timeout", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(["health", *arguments])
        assert ended.value.code == Exit.USAGE
        assert "error" in capsys.readouterr().err
