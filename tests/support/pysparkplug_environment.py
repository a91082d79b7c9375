"""pysparkplug as a process of its own: it needs paho-mqtt 1, so it lies in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests" / "support" / "pysparkplug_peer.py"


def peer_python() -> Path:
    """Its interpreter; skips the test where `scripts/setup-sparkplug` has not run, which in CI it must have."""
    python = ROOT / os.environ.get("SPARKPLUG_VENV", ".venv-sparkplug") / "bin" / "python"
    if not python.exists():
        miss = pytest.fail if os.environ.get("CI") else pytest.skip
        miss("pysparkplug is not there; `make test` or scripts/setup-sparkplug sets it up")
    return python


def ask(mode: str, lines: Sequence[Any]) -> list[str]:
    """What it answers to these lines of JSON."""
    asked = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(
        [peer_python(), PROGRAM, mode], input=asked, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class Peer:
    """A peer on a broker. Attributes: lines: what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = asyncio.Event()
        self.lines: list[dict[str, Any]] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.lines.append(json.loads(line))
            self._said.set()

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> None:
        """Wait until what it said brings a condition about."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._said.clear()
                    await self._said.wait()
        except TimeoutError:
            raise AssertionError(f"never came: {what}; heard {self.lines[-5:]}") from None

    def tell(self, line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")


@asynccontextmanager
async def peer(server: Server, mode: str, *arguments: str, first: Any = None) -> AsyncIterator[Peer]:
    """Run it on a broker; it is there and subscribed. Args: first: the line that it begins with."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        peer_python(), PROGRAM, mode, server.host, str(server.port), *arguments, stdin=pipe, stdout=pipe
    )
    made = Peer(process)
    try:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(made.listen())
            if first is not None:
                made.tell(first)
            await made.until(lambda: made.lines, f"pysparkplug as {mode}")
            made.lines.clear()
            yield made
            listening.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
