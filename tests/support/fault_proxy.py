"""A TCP link on loopback whose faults a test turns on and off: cut, slow, flapping. It counts and records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PIECE = 4096


class FaultProxy:
    """Forwards connections to one port of this machine.

    Attributes:
        bytes_per_s: what passes in each direction, all connections together; None: as fast as it goes.
        up, down: bytes that passed from client to server, and back.
        record: everything that passed upwards, where recording is on.
    """

    def __init__(self, target_port: int, *, recording: bool = False) -> None:
        self._target = target_port
        self._server: asyncio.Server | None = None
        self._live: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._recording = recording
        self.bytes_per_s: float | None = None
        self.up = 0
        self.down = 0
        self.record = bytearray()
        self.connections = 0
        self._moved = asyncio.Event()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End every connection, and refuse new ones until `restore`."""
        self._is_cut = True
        for writer in self._live:
            writer.transport.abort()

    def restore(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    async def until_up(self, count: int) -> None:
        """Wait until this many bytes have passed upwards."""
        while self.up < count:
            self._moved.clear()
            await self._moved.wait()

    async def flap(self, up_s: float, down_s: float) -> None:
        """Cut and restore until cancelled."""
        try:
            while True:
                await asyncio.sleep(up_s)
                self.cut()
                await asyncio.sleep(down_s)
                self.restore()
        finally:
            self.restore()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self.connections += 1
        inward, outward = await asyncio.open_connection("127.0.0.1", self._target, limit=_PIECE)
        self._live |= {writer, outward}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, outward, upwards=True))
                group.create_task(self._pump(inward, writer, upwards=False))
        except* (OSError, EOFError):
            pass
        finally:
            self._live -= {writer, outward}
            for end in (writer, outward):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool) -> None:
        while True:
            piece = await reader.read(_PIECE)
            if not piece:
                raise EOFError  # one side is over: so is the other
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / self.bytes_per_s)
            writer.write(piece)
            await writer.drain()
            if upwards:
                self.up += len(piece)
                self._moved.set()
                if self._recording:
                    self.record += piece
            else:
                self.down += len(piece)

    async def _start(self) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_PIECE)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def fault_proxy(target_port: int, *, recording: bool = False) -> AsyncIterator[FaultProxy]:
    """A proxy on a free loopback port, ended with the test."""
    proxy = FaultProxy(target_port, recording=recording)
    await proxy._start()
    try:
        yield proxy
    finally:
        await proxy._stop()
