"""STATE of a Sparkplug host: as birth, as will, after somebody else's word, and on a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from broker_bridge.groups import first_of
from broker_bridge.memory import MemoryBroker
from broker_bridge.session import BrokerRefused, Session
from edge.signal_map import SignalMap
from edge.sparkplug_host import HostState
from tests.aio import Inbox, run

TOPIC = "spBv1.0/STATE/headgate"
NOW_MS = 1_700_000_000_000


class World:
    """A broker, a host, and a node that listens."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.now_ms = NOW_MS
        self.host = HostState(self.broker.connector(), "berlin", "headgate", lambda: self.now_ms / 1000)
        self.seen = Inbox()
        self.node: Session | None = None

    @property
    def states(self) -> list[tuple[bool, int]]:
        said = [json.loads(m.payload) for m in self.seen.messages if m.payload.startswith(b'{"online"')]
        return [(state["online"], state["timestamp"]) for state in said]

    @property
    def retained(self) -> dict[str, Any]:
        return dict(json.loads(self.broker.retained[TOPIC].payload))

    async def until(self, condition: Callable[[], object]) -> None:
        await self.seen.until(lambda _: bool(condition()))


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with world.broker.connector().connect("node", on_message=world.seen) as node, asyncio.TaskGroup() as tasks:
        world.node = node
        await node.subscribe(TOPIC)
        tasks.create_task(world.host.run())
        await world.until(lambda: world.states)
        yield world
        await world.host.close()
        assert world.retained["online"] is False


def test_it_is_online_while_the_plant_session_reads() -> None:
    async def main() -> None:
        async with running() as world:
            assert world.states == [(False, NOW_MS)]
            world.host.reads(True)
            await world.until(lambda: world.states[-1] == (True, NOW_MS))
            assert world.retained == {"online": True, "timestamp": NOW_MS}
            world.host.reads(False)
            await world.until(lambda: world.states[-1] == (False, NOW_MS))

    run(main())


def test_a_lost_session_leaves_its_will_and_the_next_is_newer() -> None:
    async def main() -> None:
        async with running() as world:
            world.host.reads(True)
            await world.until(lambda: world.states[-1] == (True, NOW_MS))
            world.broker.drop("berlin-host")
            await world.until(lambda: (True, NOW_MS + 1) in world.states)
            assert world.states[1:] == [(True, NOW_MS), (False, NOW_MS), (True, NOW_MS + 1)]

    run(main())


def test_all_that_it_says_is_retained_at_qos_1_and_its_last_word_is_as_of_then() -> None:
    async def main() -> None:
        async with running() as world:
            world.host.reads(True)
            await world.until(lambda: world.states[-1] == (True, NOW_MS))
            world.broker.drop("berlin-host")
            await world.until(lambda: (True, NOW_MS + 1) in world.states)
            world.now_ms += 5000
        assert world.retained == {"online": False, "timestamp": NOW_MS + 5000}
        assert {(m.topic, m.qos, m.retain) for m in world.broker.record} == {(TOPIC, 1, True)}

    run(main())


def test_nothing_is_said_where_its_own_topic_cannot_be_heard() -> None:
    async def main() -> None:
        world = World()
        world.broker.denied_filters = frozenset({TOPIC})
        with pytest.raises(BaseExceptionGroup) as raised:
            await world.host.run()
        assert isinstance(first_of(raised.value), BrokerRefused)
        assert world.broker.record == []

    run(main())


@pytest.mark.parametrize("noise", [b"", b"{", b"[" * 9_000, b"[]", b'"OFFLINE"'])
def test_who_says_that_it_is_offline_is_corrected(noise: bytes) -> None:
    async def main() -> None:
        async with running() as world:
            world.host.reads(True)
            await world.until(lambda: world.states[-1] == (True, NOW_MS))
            assert world.node is not None
            world.seen.messages.clear()
            await world.node.publish(TOPIC, noise)
            await world.node.publish(TOPIC, b'{"online":false,"timestamp":1}', retain=True)
            await world.until(lambda: world.states[-1:] == [(True, NOW_MS)])
            assert world.retained["online"]

    run(main())


@pytest.mark.parametrize("host", ["", "a/b", "+", "#"])
def test_an_id_that_is_no_segment_is_refused(host: str) -> None:
    source = {"topic": "a", "form": "scalar", "features": [{"feature": "f", "unit": "%"}]}
    with pytest.raises(ValidationError, match="one topic segment"):
        SignalMap.model_validate({"instance": "a", "sources": [source], "sparkplug": {"host": host}})
