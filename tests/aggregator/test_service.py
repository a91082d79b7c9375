"""The service on the in-memory broker, against participants that follow a script."""

from __future__ import annotations

import asyncio
import logging
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregator.config import AggregatorConfig
from aggregator.service import ExitCode, run_aggregator
from broker_bridge.memory import MemoryBroker
from tests.aio import run
from tests.support.scripted_participant import ScriptedParticipant
from tests.support.tiny_template import fake_golden, tiny_model
from uns_topics.codes import Code
from uns_topics.payloads import Writer, read
from uns_topics.plan import Tolerances
from uns_topics.presence import AggregatorStatus, Want
from uns_topics.rounds import History
from uns_topics.topics import FlTopic, Kind

CLIENT = "tiny-aggregator"


def sync(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test."""

    @functools.wraps(test)
    def bounded(*args: Any, **fixtures: Any) -> None:
        run(test(*args, **fixtures))

    return bounded


def make_config(folder: Path, **changes: Any) -> AggregatorConfig:
    model = folder / "model.onnx"
    if not model.exists():
        model.write_bytes(tiny_model())
    fields: dict[str, Any] = {
        "federation": "tiny",
        "model": model,
        "data_dir": folder / "data",
        "tolerances": Tolerances(rounds=2),
    }
    return AggregatorConfig(**{**fields, **changes})


@asynccontextmanager
async def running(broker: MemoryBroker, config: AggregatorConfig, **options: Any) -> AsyncIterator[asyncio.Task[int]]:
    """An aggregator that is stopped at the end."""
    stop = asyncio.Event()
    service = asyncio.create_task(
        run_aggregator(
            config,
            stop=stop,
            connector=options.pop("connector", broker.connector()),
            golden=fake_golden,
            settle_s=0.02,
            **options,
        )
    )
    try:
        yield service
    finally:
        stop.set()
        if not service.cancelled():
            await service


def payload(broker: MemoryBroker, kind: Kind) -> Any:
    message = broker.retained.get(str(FlTopic("tiny", kind)))
    return None if message is None else read(FlTopic("tiny", kind), message.payload)[1]


def history(broker: MemoryBroker) -> History:
    found = payload(broker, Kind.HISTORY)
    assert isinstance(found, History)
    return found


def is_final(participant: ScriptedParticipant) -> bool:
    return participant.current is not None and participant.current.final


def cancel_hard(service: asyncio.Task[int]) -> None:
    """As near to a kill as a task gets: no death, nothing more is written."""
    service.cancel()


async def gone(service: asyncio.Task[int]) -> None:
    await asyncio.gather(service, return_exceptions=True)


@sync
async def test_two_rounds_end_to_end(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(broker, make_config(tmp_path)))
        people = [
            await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b", "c")
        ]
        for participant in people:
            await participant.until(lambda p=participant: is_final(p))
        rounds = history(broker).rounds
        assert [(r.round_number, r.result, r.version) for r in rounds] == [(1, "promoted", 2), (2, "promoted", 3)]
        assert history(broker).resting
        assert payload(broker, Kind.AGGREGATOR_STATUS).state == "resting"
        assert all(r.candidate_loss < r.current_loss for r in rounds if r.candidate_loss is not None)
        current = people[0].current
        assert current is not None
        assert (current.lineage.parent, current.lineage.round_number, current.lineage.contributors) == (2, 2, 3)
        chunks = [t for t in broker.retained if "/down/model/" in t and t[-1].isdigit()]
        assert chunks == ["fl/v1/tiny/down/model/3/0"], "superseded chunks are cleared"
        assert payload(broker, Kind.MODEL_CANDIDATE) is None
    assert payload(broker, Kind.AGGREGATOR_STATUS).state == "offline"
