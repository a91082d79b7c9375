"""Bytes on TCP connections to a port of this machine, by time."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import itemgetter

from tests.support.fault_proxy import FaultProxy, fault_proxy

SAMPLE_S = 0.02


@dataclass
class Traffic:
    """What passed through a proxy. `samples`: (seconds of the monotonic clock, bytes up, bytes down)."""

    proxy: FaultProxy
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where to connect instead."""
        return self.proxy.port

    def between(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Bytes up and down between two times, to the last sample before each."""
        (_, *before), (_, *after) = (
            self.samples[bisect_right(self.samples, at, key=itemgetter(0)) - 1] for at in (start_s, end_s)
        )
        return after[0] - before[0], after[1] - before[1]

    def sample(self) -> None:
        """Note the counts of now."""
        self.samples.append((time.monotonic(), self.proxy.up, self.proxy.down))


@asynccontextmanager
async def counted(port: int) -> AsyncIterator[Traffic]:
    """A proxy before this port; sampled until the context ends."""

    async def sample() -> None:
        while True:
            traffic.sample()
            await asyncio.sleep(SAMPLE_S)

    async with fault_proxy(port) as proxy:
        traffic = Traffic(proxy)
        task = asyncio.create_task(sample(), name="traffic samples")
        try:
            yield traffic
        finally:
            task.cancel()
