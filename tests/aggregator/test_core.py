"""The loop around the reducer when the store can't keep up: nothing is lost, nothing grows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from aggregator import core as cores
from aggregator.core import MAX_WAITING, Core
from aggregator.events import EpochRaised, Event, LinkChanged
from aggregator.intake import Intake
from aggregator.plan import limits
from aggregator.state import State
from aggregator.store import Entry, PendingEffect, Store
from broker_bridge.session import Message
from tests.aggregator.test_aggregator_store import Process, make_config
from tests.aio import run


class FullStore(Store):
    """Takes nothing for a while."""

    refusals = 0

    def commit(self, entries: Sequence[Entry], state: State, done: Iterable[int] = ()) -> list[PendingEffect]:
        if self.refusals:
            self.refusals -= 1
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        return super().commit(entries, state, done)


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
        intake = Intake(
            federation="tiny",
            contract=process.base.plan.contract,
            limits=limits(process.base.registry.template, make_config(tmp_path)),
            core=core,
            store=process.store,
            answer=lambda participant, receipt: None,
            on_aggregator=lambda seen, live: None,
            on_wants=lambda wants: None,
            max_chunk_bytes=2**18,
        )
        event: Event = LinkChanged(up=True)
        for _ in range(MAX_WAITING):
            assert core.has_room
            core.submit(event)
        assert not core.has_room
        intake.on_message(Message("fl/v1/tiny/up/a/status", b"whatever"))
        assert intake.counters == {"busy": 1}

    run(main())
    process.store.close()
