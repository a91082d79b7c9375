"""Work that blocks, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Result = TypeVar("Result")


async def on(executor: Executor, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, done by this executor."""
    return await asyncio.get_running_loop().run_in_executor(executor, work)
