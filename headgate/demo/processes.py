"""The demo's processes: started with logs of their own, stopped together, none left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from headgate.cli_names import DIE_WITH_PARENT

STOP_S = 3.0
"""After SIGTERM a process has this long, then SIGKILL."""
LOG_TAIL_LINES = 12


class ProcessDied(Exception):
    """A process of the demo ended by itself; the text has the end of its log."""


class Processes:
    """A group of `headgate` processes with their logs under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        """Start `headgate ARGUMENTS`; in a session of its own, so that a terminal's Ctrl-C reaches only us."""
        with self._log(name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headgate",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, DIE_WITH_PARENT: "1", "OMP_NUM_THREADS": "1"},
            )
        self._running[name] = process
        return process

    async def finished(self, name: str) -> None:
        """Wait for a process that ends by itself. Raises: ProcessDied: with another code than 0."""
        process = self._running[name]
        code = await process.wait()
        del self._running[name]
        if code != 0:
            raise ProcessDied(self._obituary(name, code))

    async def watch(self) -> None:
        """Wait until any process ends. Raises: ProcessDied."""
        waits = {asyncio.create_task(p.wait(), name=name): name for name, p in self._running.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            task = next(iter(done))
            raise ProcessDied(self._obituary(waits[task], task.result()))
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def stop(self, order: Sequence[str] = ()) -> None:
        """SIGTERM to all (those named in `order` last, one after another), SIGKILL to what is left."""
        first = [name for name in self._running if name not in order]
        await self._stop_together(first)
        for name in order:
            await self._stop_together([name])

    async def _stop_together(self, names: Sequence[str]) -> None:
        chosen = [self._running.pop(name) for name in names if name in self._running]
        for process in chosen:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in chosen]
        if not waits:
            return
        await asyncio.wait(waits, timeout=STOP_S)
        for process in chosen:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        await asyncio.gather(*waits)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _obituary(self, name: str, code: int) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        tail = "\n".join(f"  {line}" for line in lines)
        return f"the process {name} ended with code {code}; the end of its log:\n{tail}"
