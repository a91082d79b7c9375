"""The shell around one transfer up: what goes out when receipts, losses and newer updates come in between."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from broker_bridge.outgoing import Done, Outgoing
from broker_bridge.session import PublishRefused, SessionLost
from broker_bridge.upload import IN_FLIGHT, Upload
from tests.aio import run
from uns_topics.codes import Code
from uns_topics.model import Value
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import KIB, TransferManifest, decode_chunk, make_manifest

CONTENT = random.Random(5).randbytes(300 * KIB)


class Wire:
    """Takes what an upload publishes; tests wait for it, hold it back and answer it."""

    def __init__(self, chunk_bytes: int = 15 * KIB) -> None:
        self.manifests: list[TransferManifest] = []
        self.chunks: list[int] = []
        self.flying = self.most_flying = 0
        self.fail: Callable[[int], Exception | None] = lambda index: None
        self.open = asyncio.Event()
        self.open.set()
        self.now = 0.0
        self._changed = asyncio.Event()
        self.upload = Upload(
            Outgoing(CONTENT, make_manifest(CONTENT, "update", chunk_bytes)),
            FlTopic("f", Kind.STATUS, "berlin"),
            self._json,
            self._bytes,
            lambda: self.now,
            random.Random(1),
        )

    @property
    def manifest(self) -> TransferManifest:
        return self.upload.outgoing.manifest

    def answer(self, result: str, code: Code | None = None, chunks: tuple[int, ...] = ()) -> None:
        self.upload.on_receipt(Receipt(id=self.manifest.id, result=result, code=code, chunks=chunks))  # type: ignore[arg-type]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _json(self, topic: FlTopic, body: Value) -> None:
        assert isinstance(body, TransferManifest)
        assert str(topic) == f"fl/v1/f/up/berlin/update/{body.id}/manifest"
        self.manifests.append(body)
        self._changed.set()

    async def _bytes(self, topic: FlTopic, payload: bytes) -> None:
        chunk = decode_chunk(payload, 2**20)
        assert (topic.kind, topic.transfer, topic.index) == (Kind.UPDATE_CHUNK, chunk.id, chunk.index)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        await self.open.wait()
        self.flying -= 1
        self.chunks.append(chunk.index)
        self._changed.set()
        if (error := self.fail(chunk.index)) is not None:
            raise error


def test_manifest_chunks_receipt() -> None:
    async def main() -> None:
        wire = Wire()
        count = len(wire.manifest.chunks)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: len(wire.chunks) == count)
            wire.answer("accepted")
        assert sending.result() == Done("accepted", None)
        assert wire.manifests == [wire.manifest]
        assert sorted(wire.chunks) == list(range(count))
        assert wire.most_flying <= IN_FLIGHT

    run(main())


def test_missing_chunks_go_again_and_nothing_else() -> None:
    async def main() -> None:
        wire = Wire()
        count = len(wire.manifest.chunks)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: len(wire.chunks) == count)
            wire.upload.on_connected()
            for _ in range(2):  # a broker may repeat an answer
                wire.answer("missing", chunks=(2, 5))
            await wire.until(lambda: len(wire.chunks) == count + 2)
            wire.answer("accepted")
        assert sending.result() == Done("accepted", None)
        assert Counter(wire.chunks) == Counter({**dict.fromkeys(range(count), 1), 2: 2, 5: 2})
        assert len(wire.manifests) == 2  # asked once more, the receiver would ask for the same chunks again

    run(main())


def test_a_loss_in_the_middle_sends_the_manifest_alone_after_the_reconnect() -> None:
    async def main() -> None:
        wire = Wire()
        wire.fail = lambda index: SessionLost("cable cut") if index >= 3 else None
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: 5 in wire.chunks)
            wire.upload.on_lost()
            sent = len(wire.chunks)
            wire.fail = lambda index: None
            wire.upload.on_connected()
            await wire.until(lambda: len(wire.manifests) == 2)
            assert len(wire.chunks) <= sent + IN_FLIGHT
            wire.answer("rejected", Code.LATE)
        assert sending.result() == Done("rejected", Code.LATE)

    run(main())


def test_an_early_answer_ends_the_sending() -> None:
    async def main() -> None:
        wire = Wire()
        wire.open.clear()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: wire.manifests)
            wire.answer("rejected", Code.WRONG_BASE)
            wire.open.set()
        assert sending.result() == Done("rejected", Code.WRONG_BASE)
        assert len(wire.chunks) <= IN_FLIGHT

    run(main())


def test_a_newer_update_takes_its_place() -> None:
    async def main() -> None:
        wire = Wire()
        count = len(wire.manifest.chunks)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: len(wire.chunks) == count)
            wire.upload.supersede()
        assert sending.result() is None
        wire.answer("accepted")  # of nobody any more

    run(main())


def test_refused_chunks_are_asked_for_later_and_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        wire = Wire()
        count = len(wire.manifest.chunks)
        wire.fail = lambda index: PublishRefused("quota exceeded") if index == 4 else None
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: len(wire.chunks) == count)
            wire.fail = lambda index: None
            wire.upload.on_connected()
            wire.answer("missing", chunks=(4,))
            await wire.until(lambda: len(wire.chunks) == count + 1)
            for _ in range(2):  # a refusal is no loss: it says nothing about the chunk's size
                wire.upload.on_lost()
                wire.upload.on_connected()
            wire.answer("accepted")
        assert sending.result() == Done("accepted", None)
        assert "quota exceeded" in caplog.text
        assert "lowered" not in caplog.text

    run(main())


def test_without_an_answer_the_manifest_is_repeated() -> None:
    async def main() -> None:
        wire = Wire()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(wire.upload.result())
            await wire.until(lambda: len(wire.chunks) == len(wire.manifest.chunks))
            for repeats in (2, 3):
                wire.now = wire.upload.outgoing.deadline + 1
                wire.upload.on_receipt(Receipt(id="0" * 16, result="accepted"))
                wire.upload._put(wire.upload.outgoing.on_time(wire.now, 0.5))
                await wire.until(lambda n=repeats: len(wire.manifests) == n)
            wire.answer("accepted")
        assert sending.result() == Done("accepted", None)

    run(main())
