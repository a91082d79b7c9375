"""Listening: to the limits and no further, and not a word said; what the federation's broker keeps is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from broker_bridge.memory import MemoryBroker, MemoryConnector
from broker_bridge.session import BrokerRefused, BrokerUnreachable, OnMessage, Session, SessionError, Will
from edge.assess.listening import Limits, Listened, listen, visit
from edge.assess.recording import Heard
from tests.aio import run
from tests.contracts.examples import BODIES
from uns_topics.payloads import Writer
from uns_topics.plan import Plan
from uns_topics.reference import FeatureReference, Reference
from uns_topics.topics import FlTopic, Kind

FEDERATION = "solder-defect"


async def hear(
    broker: MemoryConnector, limits: Limits, count: int, *, stop_at: int = 10**9
) -> tuple[Listened, list[Heard]]:
    """Listen while somebody publishes."""
    heard: list[Heard] = []
    stop, subscribed = asyncio.Event(), asyncio.Event()

    def take(one: Heard) -> None:
        heard.append(one)
        subscribed.set()
        if len(heard) >= stop_at:
            stop.set()

    async with broker.connect("plant", on_message=lambda _: None) as session:
        await session.publish("a/first", b"0", retain=True)
        task = asyncio.create_task(listen(broker, "assess", ("a/#",), limits, take, stop))
        await subscribed.wait()
        for number in range(count):
            await session.publish(f"a/{number}", b"x" * 10)
        return await task, heard


def test_it_ends_at_so_many_messages() -> None:
    listened, heard = run(hear(MemoryBroker().connector(), Limits(60, messages=5), 20))
    assert len(heard) == 5
    assert heard[0].retain
    assert listened.why == "5 messages were enough"


def test_it_ends_at_so_many_bytes() -> None:
    listened, heard = run(hear(MemoryBroker().connector(), Limits(60, payload_bytes=45), 20))
    assert sum(len(one.payload) for one in heard) == 51
    assert listened.why == "45 bytes were enough"


def test_it_ends_when_it_is_asked_to_and_in_time() -> None:
    listened, heard = run(hear(MemoryBroker().connector(), Limits(60), 20, stop_at=3))
    assert len(heard) >= 3
    assert listened.why == "it was interrupted"
    listened, _ = run(hear(MemoryBroker().connector(), Limits(0.05), 2))
    assert listened.why == ""
    assert listened.ended_s >= listened.started_s


def test_what_the_federation_keeps_is_read() -> None:
    plan = BODIES[Kind.PLAN]
    assert isinstance(plan, Plan)
    feature = plan.contract.features[0].name
    quantiles = (1.0, 2.0, 3.0, 4.0, 5.0)
    reference = Reference(
        participants=(),
        generation=plan.generation,
        features=(FeatureReference(feature=feature, sites=4, rows=100, quantiles=quantiles),),
    )

    async def main() -> None:
        broker, writer = MemoryBroker().connector(), Writer(FEDERATION, "aggregator", "000000a0")
        async with broker.connect("aggregator", on_message=lambda _: None) as session:
            for kind, body in ((Kind.PLAN, plan), (Kind.REFERENCE, reference)):
                await session.publish(str(FlTopic(FEDERATION, kind)), writer.seal(body), retain=True)
            visited = await visit(broker, "assess", FEDERATION, "berlin")
        assert visited.plan == plan
        assert visited.round_trip.failed is None
        assert visited.quantiles(plan.contract) == {feature: quantiles}
        other = plan.contract.model_copy(update={"features": plan.contract.features[1:]})
        assert visited.quantiles(other) == {}

    run(main())


def test_what_is_no_plan_is_left_alone() -> None:
    async def main() -> None:
        broker = MemoryBroker().connector()
        async with broker.connect("somebody", on_message=lambda _: None) as session:
            for kind in (Kind.PLAN, Kind.REFERENCE):
                await session.publish(str(FlTopic(FEDERATION, kind)), b"nonsense", retain=True)
            visited = await visit(broker, "assess", FEDERATION, "berlin")
        assert (visited.plan, visited.reference, visited.round_trip.failed) == (None, None, None)

    run(main())


class Away:
    """A broker that can't be had."""

    def __init__(self, error: SessionError) -> None:
        self._error = error

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        @asynccontextmanager
        async def connecting() -> AsyncIterator[Session]:
            raise self._error
            yield

        return connecting()


@pytest.mark.parametrize("error", [BrokerUnreachable("no route"), BrokerRefused("no route")])
def test_a_broker_that_cannot_be_had_is_told(error: SessionError) -> None:
    visited = run(visit(Away(error), "assess", FEDERATION, "berlin"))
    assert visited.round_trip.failed is not None
    assert "no route" in visited.round_trip.failed
