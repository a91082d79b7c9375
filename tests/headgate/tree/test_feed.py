"""From a broker into the tree: narrowed where a cap is hit, and back after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import BrokerRefused, Message
from headgate.tree.caps import Limits
from headgate.tree.feed import CONNECTED, Feed
from headgate.tree.model import Tree
from tests.aio import run


def topics(tree: Tree) -> set[str]:
    return {node.topic() for node in tree.root.leaves()}


class Rig:
    """A feed on a broker in memory, with a clock that stands still."""

    def __init__(self, limits: Limits, *filters: str) -> None:
        self.broker = MemoryBroker()
        self.now = 0.0
        self.tree = Tree(limits.topics)
        self.feed = Feed(self.broker.connector(), self.tree, filters or ("#",), limits, lambda: self.now)

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Give the loop its turns until something is so; the test's own time limit ends what never comes."""
        while not wanted():  # noqa: ASYNC110 - what it waits for has no event, and a turn of the loop is no time
            await asyncio.sleep(0)

    def say(self, *said: str) -> Awaitable[None]:
        return self._say(said)

    async def _say(self, said: tuple[str, ...]) -> None:
        async with self.broker.connector().connect("plant", on_message=lambda _: None) as session:
            for topic in said:
                await session.publish(topic, b"1", retain=True)


def on_rig(rig: Rig, script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        feeding = asyncio.create_task(rig.feed.run())
        try:
            await rig.until(lambda: rig.feed.state == CONNECTED)
            await script()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    run(main())


def test_too_many_topics_narrow_the_subscription() -> None:
    rig = Rig(Limits(topics=10))

    async def script() -> None:
        await rig.say("acme/small/a", "acme/small/b", *(f"acme/big/{i:02}" for i in range(50)))
        await rig.until(lambda: bool(rig.feed.left_out) and rig.feed.state == CONNECTED)
        assert rig.feed.left_out[0].path[:2] == ("acme", "big")
        assert "#" not in rig.feed.filters
        seen = rig.feed.messages
        await rig.say("acme/big/99", "elsewhere/1", "acme/small/a")
        await rig.until(lambda: rig.feed.messages > seen)
        assert {"acme/small/a", "acme/small/b"} <= topics(rig.tree)
        assert not topics(rig.tree) & {"acme/big/99", "elsewhere/1"}

    on_rig(rig, script)


def test_too_many_messages_leave_out_the_busiest() -> None:
    rig = Rig(Limits(messages=10.0))

    async def script() -> None:
        await rig.say("acme/calm")
        await rig.say(*("acme/busy" for _ in range(100)))
        await rig.until(lambda: rig.feed.filters == ("acme/calm",))
        assert [one.path for one in rig.feed.left_out] == [("acme", "busy")]
        node = rig.tree.find(("acme", "busy"))
        assert node is not None
        assert node.left_out.startswith("1 topic, ")

    on_rig(rig, script)


def test_a_lost_connection_is_told_and_comes_back_with_the_narrowed_filters() -> None:
    rig = Rig(Limits(messages=10.0))

    async def script() -> None:
        await rig.say("acme/calm", *("acme/busy" for _ in range(100)))
        await rig.until(lambda: rig.feed.filters == ("acme/calm",) and rig.feed.state == CONNECTED)
        (client,) = rig.broker.clients
        rig.broker.drop(client, "connection reset")
        await rig.until(lambda: "connection reset" in rig.feed.state)
        await rig.until(lambda: rig.feed.state == CONNECTED)  # within the link's own wait, half a second at most
        seen = rig.feed.messages
        await rig.say("acme/busy", "acme/calm")
        await rig.until(lambda: rig.feed.messages > seen)
        assert topics(rig.tree) == {"acme/calm"}

    on_rig(rig, script)


def test_why_there_is_no_connection() -> None:
    rig = Rig(Limits())
    rig.broker.stop()

    async def main() -> None:
        feeding = asyncio.create_task(rig.feed.run())
        await rig.until(lambda: rig.feed.state != "connecting")
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    run(main())
    assert rig.feed.state == "broker memory://broker unreachable: connection refused"


def test_a_refusal_ends_it() -> None:
    rig = Rig(Limits())
    rig.broker.credentials = {}

    async def main() -> None:
        with pytest.raises(BrokerRefused):
            await rig.feed.run()

    run(main())


@pytest.mark.parametrize(("filters", "expected"), [(("#",), set()), (("#", "$SYS/#"), {"$SYS/broker/uptime"})])
def test_system_topics_only_on_request(filters: tuple[str, ...], expected: set[str]) -> None:
    rig = Rig(Limits(), *filters)
    rig.feed.on_message(Message("$SYS/broker/uptime", b"1"))
    assert topics(rig.tree) == expected
