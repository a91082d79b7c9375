"""An edge as systemd and a container see it: its broker is away at the start, comes, goes and comes back."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.embedded import free_port
from headgate.exits import Exit
from tests.aio import run
from tests.e2e.federation import NUMPY_TRAINER, Federation
from tests.servers import Server, mosquitto
from tests.support.prometheus import fetch, scrape

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(120)]
MORE = "EXTEND_TIMEOUT_USEC=30000000"


async def health(*arguments: str) -> tuple[int, str]:
    """Exit code and stdout of `headgate health`."""
    command = (sys.executable, "-m", "headgate", "health", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


class Manager:
    """A service manager's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    async def until(self, wanted: str) -> list[str]:
        """What it hears up to this message."""
        loop, start = asyncio.get_running_loop(), len(self.heard)
        async with asyncio.timeout(40):
            while not self.heard[start:] or self.heard[-1] != wanted:
                self.heard.append((await loop.sock_recv(self._socket, 10_000)).decode())
        return self.heard[start:]

    def close(self) -> None:
        self._socket.close()


def test_an_edge_whose_broker_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(tmp_path / "notify")
    port, listen = free_port(0), f"127.0.0.1:{free_port(0)}"
    nobody: Any = None
    config = str(tmp_path / "berlin" / "edge.yaml")
    away = "there is no session with the federation's broker"

    async def main() -> None:
        f = Federation(tmp_path, Server("127.0.0.1", port, nobody, tmp_path), trainer=NUMPY_TRAINER)
        with monkeypatch.context() as environment:  # of the edge alone: Mosquitto would tell systemd, too
            environment.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            environment.setenv("WATCHDOG_USEC", "1500000")
            environment.delenv("WATCHDOG_PID", raising=False)
            service = await f.start_edge("berlin", health={"listen": listen})
        try:
            await manager.until("WATCHDOG=1")
            assert manager.heard[0] == MORE
            assert manager.heard[1].startswith(f"STATUS=federation: {away}; plant: ")
            code, said = await health("--config", config)
            assert code == Exit.FINDINGS
            assert said.startswith(f"federation: {away}\nplant: ")
            assert (await scrape(listen)).value("headgate_edge_connected", session="fl") == 0
            with mosquitto(port=port):
                await manager.until("READY=1")
                assert manager.heard.count("READY=1") == 1
                assert await health("--config", config) == (Exit.OK, "ready\n")
                await manager.until("STATUS=ready")
                await manager.until("WATCHDOG=1")
            # The broker is gone: not ready, yet alive, and systemd hears pings as before.
            while (await fetch(listen, "/readyz"))[0] == 200:
                pass
            assert await fetch(listen, "/healthz") == (200, "ok\n")
            assert "READY=1" not in await manager.until("WATCHDOG=1")
            with mosquitto(port=port):
                while (await fetch(listen, "/readyz"))[0] == 503:
                    pass
                assert await f.stop("berlin") == 0
                assert manager.heard.count("STOPPING=1") == 0
                await manager.until("STOPPING=1")
            assert (await health(listen))[0] == Exit.BROKER
        finally:
            if service.process.returncode is None:
                service.process.kill()
                await service.process.wait()
            manager.close()

    run(main(), timeout_s=100)
