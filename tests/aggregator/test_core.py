"""The loop around the reducer when the store can't keep up: nothing is lost, nothing grows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from aggregator import core as cores
from aggregator.core import MAX_WAITING, Core
from aggregator.effects import PublishReference
from aggregator.events import EpochRaised, Event, LinkChanged
from aggregator.intake import Intake, _LookUp
from aggregator.performer import Performer
from aggregator.plan import limits
from aggregator.state import State
from aggregator.store import Entry, PendingEffect, Store
from broker_bridge.session import Message
from tests.aggregator.test_aggregator_store import Process, make_config
from tests.aio import run
from uns_topics.rounds import Receipt
from uns_topics.transfers import make_manifest


class FullStore(Store):
    """Takes nothing for a while."""

    refusals = 0

    def commit(self, entries: Sequence[Entry], state: State, done: Iterable[int] = ()) -> list[PendingEffect]:
        if self.refusals:
            self.refusals -= 1
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        return super().commit(entries, state, done)


def make_intake(folder: Path, process: Process, core: Core, answer: Callable[[str, Receipt], None]) -> Intake:
    return Intake(
        federation="tiny",
        contract=process.base.plan.contract,
        limits=limits(process.base.registry.template, make_config(folder)),
        core=core,
        store=process.store,
        answer=answer,
        on_aggregator=lambda seen, live: None,
        on_wants=lambda wants: None,
        max_chunk_bytes=2**18,
    )


def test_a_store_that_can_not_be_written_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cores, "RETRY_S", (0.001, 0.002))
    process = Process(tmp_path)
    state = process.state
    process.store.close()
    store = FullStore(f"sqlite:///{tmp_path / 'other.db'}")
    store.refusals = 3

    async def main() -> None:
        core = Core(store, state, lambda: state.at, lambda effect: None)
        running = asyncio.create_task(core.run())
        await core.apply(EpochRaised(epoch=7))
        assert (core.stuck, store.refusals) == (None, 0)
        running.cancel()

    run(main())
    kept = store.load()
    assert kept is not None
    assert kept.epoch == 7
    assert store.count_events() == 1
    assert [r.message for r in caplog.records if r.name == "headgate.aggregator" and "store" in r.message] == [
        "the store can't be written (database or disk is full): nothing is decided until it can; trying again",
        "the store can be written again",
    ]
    store.close()


def away() -> OperationalError:
    return OperationalError("SELECT", {}, sqlite3.OperationalError("server closed the connection"))


def test_what_reads_the_store_waits_for_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "RETRY_S", (0.001,))
    process, failures, answers = Process(tmp_path), [away(), away(), away()], list[Receipt]()

    shown = asyncio.Event()

    class Showcase:
        async def show_reference(self) -> None:
            if len(failures) > 1:
                raise failures.pop()
            shown.set()

    def receipt(_participant: str, transfer: str) -> Receipt:
        if failures:
            raise failures.pop()
        return Receipt(id=transfer, result="accepted")

    async def main() -> None:
        core = Core(process.store, process.state, lambda: 0.0, lambda effect: None)
        intake = make_intake(tmp_path, process, core, lambda _participant, found: answers.append(found))
        async with asyncio.TaskGroup() as group:
            performer = Performer(core, cast("Any", None), cast("Any", Showcase()), lambda *_: None, group)
            running = group.create_task(performer.run())
            performer.perform(PendingEffect(1, PublishReference()))
            await shown.wait()
            running.cancel()
        monkeypatch.setattr(process.store, "receipt", receipt)
        await intake._look_up(_LookUp("berlin", make_manifest(b"whole", "update", 2**15), None))

    run(main())
    assert (failures, [found.result for found in answers]) == ([], ["accepted"])
    process.store.close()


def test_what_is_no_fault_of_the_disk_is_not_tried_again(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.store.close()

    async def main() -> None:
        core = Core(process.store, process.state, lambda: 0.0, lambda effect: None)
        core.submit(EpochRaised(epoch=7))
        with pytest.raises(Exception, match="the store is closed"):
            await core.run()

    run(main())


def test_messages_beyond_what_can_be_stored_are_dropped_and_counted(tmp_path: Path) -> None:
    process = Process(tmp_path)

    async def main() -> None:
        core = Core(process.store, process.state, lambda: 0.0, lambda effect: None)
        intake = make_intake(tmp_path, process, core, lambda participant, receipt: None)
        event: Event = LinkChanged(up=True)
        for _ in range(MAX_WAITING):
            assert core.has_room
            core.submit(event)
        assert not core.has_room
        intake.on_message(Message("fl/v1/tiny/up/a/status", b"whatever"))
        assert intake.counters == {"busy": 1}

    run(main())
    process.store.close()
