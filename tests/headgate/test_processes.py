"""The demo's processes end together, and one that dies says why."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from broker_bridge.embedded import free_port
from headgate.cli_names import DIE_WITH_PARENT
from headgate.demo import processes as module
from headgate.demo.processes import ProcessDied, Processes
from tests.aio import run

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(60)
"""
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()
"""
FAILING = """
import sys
print("\\n".join(f"line {number}" for number in range(40)), flush=True)
sys.exit("no space left on the line")
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `headgate` that runs the script named as its first argument, in place of the real command."""
    package = tmp_path / "headgate"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import runpy, sys\nrunpy.run_path(sys.argv[1])\n")
    for name, text in (("stubborn", STUBBORN), ("polite", POLITE), ("failing", FAILING)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def group(folder: Path) -> AsyncIterator[Processes]:
    processes = Processes(folder)
    try:
        yield processes
    finally:
        await processes.stop()


async def until(condition: Callable[[], bool]) -> None:
    """What another process does sends us no event."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def is_listening(folder: Path) -> bool:
    return "listening" in (folder / "broker.log").read_text()


def is_ready(folder: Path, name: str) -> bool:
    """The process has said so in its log."""
    return "ready" in (folder / f"{name}.log").read_text()


def test_stop_kills_what_ignores_sigterm_in_time(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.6)
    monkeypatch.setattr(module, "LAST_S", 0.1)

    async def body() -> None:
        async with group(programs) as processes:
            polite = await processes.start("polite", str(programs / "polite.py"))
            stubborn = await processes.start("stubborn", str(programs / "stubborn.py"))
            last = await processes.start("last", str(programs / "stubborn.py"))
            for name in ("polite", "stubborn", "last"):
                await until(partial(is_ready, programs, name))
            started = time.monotonic()
            await processes.stop(order=(["last"], ["never started"]))
            assert time.monotonic() - started < 5
            assert (polite.returncode, stubborn.returncode, last.returncode) == (0, -signal.SIGKILL, -signal.SIGKILL)

    run(body())


def test_one_that_ends_by_itself_gets_an_obituary_with_the_end_of_its_log(programs: Path) -> None:
    async def body() -> None:
        async with group(programs) as processes:
            process = await processes.start("berlin", str(programs / "failing.py"))
            processes.check()
            await process.wait()
            with pytest.raises(ProcessDied) as died:
                processes.check()
            lines = str(died.value).splitlines()
            assert lines[0] == "the process berlin ended with code 1; the end of its log:"
            assert lines[-1] == "  no space left on the line"
            assert len(lines) == 1 + module.LOG_TAIL_LINES

    run(body())


def test_one_that_is_expected_to_end_may_end_only_well(programs: Path) -> None:
    async def body() -> None:
        async with group(programs) as processes:
            await processes.start("model", str(programs / "failing.py"))
            with pytest.raises(ProcessDied, match="the process model ended with code 1"):
                await processes.finished("model")
            (programs / "fine.py").write_text("print('made')\n")
            await processes.start("model", str(programs / "fine.py"))
            await processes.finished("model")
            processes.check()

    run(body())


def test_a_killed_parent_takes_its_processes_along(tmp_path: Path) -> None:
    """SIGKILL leaves a parent no time to stop anybody: the kernel does it (PR_SET_PDEATHSIG)."""
    code = f"""
import asyncio, sys
from pathlib import Path
from headgate.demo.processes import Processes
async def body():
    process = await Processes(Path({str(tmp_path)!r})).start("broker", "broker", "--port", sys.argv[1])
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(body())
"""

    async def body() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(free_port()), stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        child = int(await parent.stdout.readline())
        await until(partial(is_listening, tmp_path))
        parent.kill()
        await parent.wait()
        await until(lambda: _state(child) == "Z")

    run(body(), timeout_s=10)


def _state(pid: int) -> str:
    """`Z` where it has ended, whether or not somebody has collected it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_one_whose_parent_was_gone_before_it_asked_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> int:
        environment = {**os.environ, DIE_WITH_PARENT: str(os.getppid())}  # not the process that starts it
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headgate", "config", "schema", "edge",
            env=environment, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait()

    assert run(body()) == 130
