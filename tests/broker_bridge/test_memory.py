"""What the in-memory broker does beyond the suite that it shares with real ones."""

from __future__ import annotations

import asyncio

import pytest

from broker_bridge.memory import MemoryBroker
from broker_bridge.session import BrokerRefused, BrokerUnreachable, Message, PublishRefused, SessionLost, Will
from tests.aio import Inbox, run


def test_dropping_a_session_publishes_its_will_and_wakes_who_waits() -> None:
    async def main() -> None:
        broker, inbox = MemoryBroker(), Inbox()
        connector = broker.connector()
        async with connector.connect("witness", on_message=inbox) as witness:
            await witness.subscribe("#")
            will = Will("alive", b"false")
            async with connector.connect("mortal", on_message=Inbox(), will=will) as mortal:
                waiting = asyncio.create_task(mortal.wait_closed())
                await asyncio.sleep(0)
                broker.drop("mortal", "cable cut")
                with pytest.raises(SessionLost, match="cable cut"):
                    await waiting
            await inbox.count(1)
            assert inbox.messages == [Message("alive", b"false", 1, retain=False)]
            assert broker.record == [Message("alive", b"false", 1, retain=True)]
            assert broker.clients == ("witness",)

    run(main())


def test_a_killed_broker_publishes_no_wills_and_forgets() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with broker.connector().connect("one", on_message=Inbox(), will=Will("alive", b"false")) as session:
            await session.publish("kept", b"1", retain=True)
            broker.stop()
            with pytest.raises(SessionLost):
                await session.publish("t", b"")
        with pytest.raises(BrokerUnreachable):
            async with broker.connector().connect("one", on_message=Inbox()):
                pass
        assert broker.retained == {}
        assert [message.topic for message in broker.record] == ["kept"]
        broker.start()
        async with broker.connector().connect("one", on_message=Inbox()) as session:
            await session.publish("t", b"")

    run(main())


def test_nothing_is_delivered_to_a_session_after_its_end() -> None:
    async def main() -> None:
        broker, inbox = MemoryBroker(), Inbox()
        async with broker.connector().connect("one", on_message=inbox) as session:
            await session.subscribe("t")
            publishing = asyncio.create_task(session.publish("t", b"on its way"))
            await asyncio.sleep(0)
            broker.drop("one")
            with pytest.raises(SessionLost):
                await publishing
        assert inbox.messages == []
        assert len(broker.record) == 1

    run(main())


def test_overlapping_subscriptions_give_one_copy_at_the_highest_qos() -> None:
    async def main() -> None:
        broker, inbox = MemoryBroker(), Inbox()
        async with broker.connector().connect("one", on_message=inbox) as session:
            await session.subscribe("a/#", qos=0)
            await session.subscribe("a/+", qos=1)
            await session.publish("a/b", b"")
            await session.publish("a/b", b"", qos=0)
            await inbox.count(2)
            assert [message.qos for message in inbox.messages] == [1, 0]

    run(main())


def test_the_duplicate_knob_delivers_qos_1_twice() -> None:
    async def main() -> None:
        broker, inbox = MemoryBroker(duplicate=True), Inbox()
        async with broker.connector().connect("one", on_message=inbox) as session:
            await session.subscribe("t")
            await session.publish("t", b"once", qos=0)
            await session.publish("t", b"twice")
            await inbox.count(3)
            assert inbox.payloads == [b"once", b"twice", b"twice"]

    run(main())


def test_the_three_ways_of_a_packet_limit() -> None:
    async def main() -> None:
        announcing = MemoryBroker(max_packet_bytes=10)
        async with announcing.connector().connect("one", on_message=Inbox()) as session:
            assert session.max_packet_bytes == 10
            with pytest.raises(PublishRefused, match="limit of 10"):
                await session.publish("t", bytes(11))

        dropping = MemoryBroker(max_packet_bytes=10, over_limit="drop")
        async with dropping.connector().connect("one", on_message=Inbox()) as session:
            assert session.max_packet_bytes is None
            await session.publish("t", bytes(11))
            await session.publish("t", bytes(10))
        assert [len(message.payload) for message in dropping.record] == [10]

        disconnecting = MemoryBroker(max_packet_bytes=10, over_limit="disconnect")
        async with disconnecting.connector().connect("one", on_message=Inbox()) as session:
            with pytest.raises(SessionLost, match="packet too large"):
                await session.publish("t", bytes(11))
        assert disconnecting.record == []

    run(main())


def test_denied_filters_and_topics_are_refused_by_name() -> None:
    async def main() -> None:
        broker, inbox = MemoryBroker(), Inbox()
        broker.denied_filters = frozenset({"secret/#"})
        broker.denied_topics = frozenset({"secret/t"})
        async with broker.connector().connect("one", on_message=inbox) as session:
            with pytest.raises(BrokerRefused, match="'secret/#'"):
                await session.subscribe("open", "secret/#")
            with pytest.raises(PublishRefused, match="'secret/t'"):
                await session.publish("secret/t", b"")
            await session.publish("open", b"")
            await inbox.count(1)
            with pytest.raises(ValueError, match="'#' must be"):
                await session.subscribe("a/#/b")

    run(main())
