"""A Flower deployment as its documentation starts one on one machine: a SuperLink, SuperNodes, `flwr run`.

All from Flower's own environment, without TLS, state in memory. Bytes are counted on the TCP connections between
SuperNodes and SuperLink.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.traffic import counted
from tests.servers import free_port
from tests.support.flower_environment import flower_python

APP = Path(__file__).parent / "flower_app"
LIMIT_S = 600.0


@dataclass(frozen=True)
class FlowerRun:
    """Seconds of each round after the warm-up; bytes that one participant sent and received in such a round."""

    seconds: list[float]
    up: float
    down: float


async def flower_run(
    participants: int, rounds: int, elements: int, *, warm_up: int, evaluate: bool
) -> FlowerRun | None:
    """One run of the app in `benchmarks/flower_app`; None where Flower isn't set up.

    Args: rounds: without those to warm up; evaluate: whether participants evaluate each round's model, as by default.
    Raises: RuntimeError: the run failed, with what it said.
    """
    python = flower_python()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        app = folder / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        home, times = folder / "home", folder / "times.json"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = {
            **os.environ,
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }
        async with AsyncExitStack() as stack:
            traffic = await stack.enter_async_context(counted(port))
            link = ("flower-superlink", "--insecure", "--disable-runtime-dependency-installation")
            link = (*link, "--host", "127.0.0.1", "--port", str(port))
            await stack.enter_async_context(_process(link, environment, folder / "superlink.log"))
            await _listening(port)
            for index in range(participants):
                node = ("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{traffic.port}")
                node = (*node, "--host", "127.0.0.1", "--port", str(free_port()))
                await stack.enter_async_context(_process(node, environment, folder / f"supernode-{index}.log"))
            given = {"rounds": rounds + warm_up, "nodes": participants, "elements": elements}
            config = " ".join(f"{key}={value}" for key, value in given.items())
            config += f' fraction-evaluate={float(evaluate)} times="{times}"'
            command = ("flwr", "run", str(app), "--stream", "--run-config", config)
            said = folder / "run.log"
            async with _process(command, environment, said) as process, asyncio.timeout(LIMIT_S):
                await process.wait()
            if not times.exists():
                raise RuntimeError(f"Flower's run failed: {said.read_text()[-3000:]}")
            traffic.sample()
            ended = json.loads(times.read_text())[warm_up:]
            up, down = (one / participants / rounds for one in traffic.between(ended[0], ended[-1]))
        return FlowerRun([after - before for before, after in pairwise(ended)], up, down)


@asynccontextmanager
async def _process(
    command: tuple[str, ...], environment: dict[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of Flower's environment in a group of its own, which ends with its children."""
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None, f"{command[0]} is not in Flower's environment"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            program, *command[1:], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)
