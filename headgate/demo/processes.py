"""The demo's processes: started with logs of their own, stopped together, none left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from headgate.cli_names import DIE_WITH_PARENT

STOP_S = 4.0
"""All processes together have this long to end after SIGTERM, then SIGKILL."""
LAST_S = 0.75
"""Of that, for each group of those that end last."""
LOG_TAIL_LINES = 12


class ProcessDied(Exception):
    """A process of the demo ended by itself; the text has the end of its log."""


class Processes:
    """A group of `headgate` processes with their logs under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._expected: set[str] = set()
        """Names of those that end by themselves."""

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
                # Libraries leave files where temporary ones go; there they go with the demo's own folder.
                env={
                    **os.environ,
                    DIE_WITH_PARENT: str(os.getpid()),
                    "OMP_NUM_THREADS": "1",
                    "TMPDIR": str(self._folder),
                },
            )
        self._running[name] = process
        return process

    async def finished(self, name: str) -> None:
        """Wait for a process that ends by itself. Raises: ProcessDied: with another code than 0."""
        process = self._running[name]
        self._expected.add(name)
        code = await process.wait()
        del self._running[name]
        if code != 0:
            raise ProcessDied(self._obituary(name, code))

    def check(self) -> None:
        """Raises: ProcessDied: one of them has ended."""
        for name, process in self._running.items():
            if process.returncode is not None and name not in self._expected:
                raise ProcessDied(self._obituary(name, process.returncode))

    async def stop(self, order: Sequence[Collection[str]] = ()) -> None:
        """SIGTERM to all (the groups in `order` last, one after another), SIGKILL to what is left after `STOP_S`."""
        deadline = asyncio.get_running_loop().time() + STOP_S
        later = {name for group in order for name in group}
        await self._stop_together([name for name in self._running if name not in later], deadline - len(order) * LAST_S)
        for index, group in enumerate(order, 1):
            await self._stop_together(list(group), deadline - (len(order) - index) * LAST_S)

    async def _stop_together(self, names: Sequence[str], deadline: float) -> None:
        chosen = [self._running.pop(name) for name in names if name in self._running]
        for process in chosen:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in chosen]
        if not waits:
            return
        await asyncio.wait(waits, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
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
