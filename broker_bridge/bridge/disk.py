"""The one thread that writes a bridge's files: the loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Result = TypeVar("Result")


async def on_disk(disk: Executor, work: Callable[[], Result]) -> Result:
    """Do this in the thread of the disk. Raises: what `work` raises."""
    return await asyncio.get_running_loop().run_in_executor(disk, work)
