from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from broker_bridge.backoff import delay
from broker_bridge.link import STABLE_S, Link
from broker_bridge.memory import MemoryBroker, MemoryConnector
from broker_bridge.session import BrokerRefused, Message, OnMessage, Session, SessionLost, Will
from tests.aio import Inbox, run


class Owner:
    """A service around a link: what it was told, and a clock and a sleep that a test moves."""

    def __init__(self, connector: MemoryConnector) -> None:
        self.events: list[str] = []
        self.slept: list[float] = []
        self.now = 0.0
        self.awake = asyncio.Event()
        self.awake.set()
        self.asleep = asyncio.Event()
        self.inbox = Inbox()
        self.announce: Callable[[Session, int], Awaitable[None]] = self._subscribe_and_announce
        self._told = asyncio.Event()
        self.link = Link(
            connector,
            "edge",
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=lambda birth: Will("status", b"offline %d" % birth),
            rng=random.Random(7),
            sleep=self._sleep,
            clock=lambda: self.now,
        )

    async def told(self, event: str) -> None:
        while event not in self.events:
            self._told.clear()
            await self._told.wait()

    async def slept_times(self, number: int) -> None:
        while len(self.slept) < number:
            self.asleep.clear()
            await self.asleep.wait()

    def _tell(self, event: str) -> None:
        self.events.append(event)
        self._told.set()

    def _on_message(self, message: Message) -> None:
        self.events.append(f"message {message.payload.decode()}")
        self.inbox(message)

    async def _on_up(self, session: Session, birth: int) -> None:
        await self.announce(session, birth)
        self._tell(f"up {birth}")

    async def _subscribe_and_announce(self, session: Session, birth: int) -> None:
        await session.subscribe("to-edge")
        await session.publish("status", b"online %d" % birth, retain=True)

    def _on_down(self, reason: str) -> None:
        self._tell("down")
        self.events.append(reason)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep.set()
        await self.awake.wait()
        await asyncio.sleep(0)


@asynccontextmanager
async def running(owner: Owner) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(owner.link.run())
    try:
        yield task
    finally:
        await owner.link.close()
        await asyncio.gather(task, return_exceptions=True)


def payloads(broker: MemoryBroker, topic: str) -> list[bytes]:
    return [message.payload for message in broker.record if message.topic == topic]


def test_connect_announce_lose_and_connect_again() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        async with running(owner):
            await owner.told("up 1")
            broker.drop("edge", "cable cut")
            await owner.told("up 2")
            await owner.link.publish("t", b"after")
        assert payloads(broker, "status") == [b"online 1", b"offline 1", b"online 2"]
        assert payloads(broker, "t") == [b"after"]
        assert owner.events[:2] == ["up 1", "down"]
        assert "cable cut" in owner.events[2]

    run(main())


def test_it_is_up_from_the_end_of_on_up_to_the_loss() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        seen: list[bool] = []
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def announce(session: Session, birth: int) -> None:
            await session.subscribe("to-edge")
            begun.set()
            await go_on.wait()
            seen.append(owner.link.is_up)

        owner.announce = announce
        assert not owner.link.is_up
        async with running(owner):
            await begun.wait()
            assert owner.link.session is not None
            assert not owner.link.is_up
            go_on.set()
            await owner.told("up 1")
            for _ in range(10):  # the link's own task goes on after `on_up`
                await asyncio.sleep(0)
            assert owner.link.is_up
            owner.awake.clear()
            broker.drop("edge", "cable cut")
            await owner.told("down")
            assert not owner.link.is_up
            owner.awake.set()
            await owner.told("up 2")
        assert not owner.link.is_up
        assert seen == [False, False]

    run(main())


def test_close_publishes_the_death_and_not_the_will() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        async with running(owner) as task:
            await owner.told("up 1")
            await owner.link.close(("status", b"leaving", 1, True), ("alive", b"false", 1, True))
            assert task.done()
            assert task.exception() is None
        assert payloads(broker, "status") == [b"online 1", b"leaving"]
        assert payloads(broker, "alive") == [b"false"]
        assert broker.clients == ()
        assert owner.events[-2:] == ["down", "the link was closed"]

    run(main())


def test_nothing_is_said_behind_the_death() -> None:
    """A heartbeat between the death and DISCONNECT would stand retained, and say online of who is gone."""

    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        running = asyncio.create_task(owner.link.run())
        await owner.told("up 1")
        closing = asyncio.create_task(owner.link.close(("status", b"death", 1, True)))
        await asyncio.sleep(0)  # its first step: the death is published and not acknowledged yet
        assert broker.retained["status"].payload == b"death"
        assert not owner.link.is_up
        with pytest.raises(SessionLost, match="not connected"):
            await owner.link.publish("status", b"online 1", retain=True)
        await closing
        await running
        assert broker.retained["status"].payload == b"death"

    run(main())


def test_close_works_while_it_waits_for_a_broker_and_before_it_ran() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.stop()
        owner = Owner(broker.connector())
        owner.awake.clear()
        async with running(owner) as task:
            await owner.asleep.wait()
            await owner.link.close(("status", b"leaving", 1, True))
            assert task.done()
        assert broker.record == []

        broker.start()
        early = Owner(broker.connector())
        await early.link.close()
        await early.link.run()
        assert early.events == []
        assert broker.record == []

    run(main())


def test_a_death_that_is_not_acknowledged_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker_bridge.link.DEATH_S", 0.01)

    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        async with running(owner) as task:
            await owner.told("up 1")
            session = owner.link.session
            assert session is not None

            async def never(*_: object, **__: object) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(session, "publish", never)
            await owner.link.close(("status", b"leaving", 1, True))
            assert task.done()

    run(main())
    assert "couldn't be published: no answer in time" in caplog.text


def test_publishing_while_down_raises_session_lost() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.stop()
        owner = Owner(broker.connector())
        owner.awake.clear()
        async with running(owner):
            await owner.asleep.wait()
            assert owner.link.session is None
            with pytest.raises(SessionLost, match="not connected"):
                await owner.link.publish("t", b"")

    run(main())


def test_an_unreachable_broker_is_reported_once_and_waited_for_with_growing_jitter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.stop()
        owner = Owner(broker.connector())
        async with running(owner):
            await owner.slept_times(12)
            broker.start()
            await owner.told(f"up {len(owner.slept) + 1}")  # each attempt has a birth number of its own
        rng = random.Random(7)
        assert owner.slept == [delay(attempt, rng.random()) for attempt in range(len(owner.slept))]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.messages == ["broker memory://broker unreachable: connection refused; waiting"]


def test_only_a_session_that_lived_a_while_ends_a_row_of_failures() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        async with running(owner):
            for birth in (1, 2, 3):
                await owner.told(f"up {birth}")
                broker.drop("edge")
            await owner.told("up 4")
            owner.now += STABLE_S
            broker.drop("edge")
            await owner.told("up 5")
        rng = random.Random(7)
        assert owner.slept == [delay(attempt, rng.random()) for attempt in (0, 1, 2, 0)]

    run(main())


def test_a_refusal_ends_the_link() -> None:
    async def main() -> None:
        owner = Owner(MemoryBroker(credentials={"lyon": "right"}).connector(username="lyon", password="wrong"))
        with pytest.raises(BrokerRefused, match="bad user name or password"):
            await owner.link.run()
        await owner.link.close()
        assert owner.events == []

        broker = MemoryBroker()
        broker.denied_filters = frozenset({"to-edge"})
        owner = Owner(broker.connector())
        with pytest.raises(BrokerRefused, match="'to-edge'"):
            await owner.link.run()
        assert owner.events[0] == "down"
        assert owner.slept == []
        assert broker.record == []  # left with DISCONNECT: no will

    run(main())


def test_nothing_of_an_older_session_arrives_after_its_end() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        async with running(owner), broker.connector().connect("other", on_message=Inbox()) as other:
            await owner.told("up 1")
            await other.publish("to-edge", b"1")
            await owner.inbox.count(1)
            sending = asyncio.create_task(other.publish("to-edge", b"on its way"))
            await asyncio.sleep(0)
            broker.drop("edge")
            await sending
            await owner.told("up 2")
            await other.publish("to-edge", b"2")
            await owner.inbox.count(2)
        messages = [event for event in owner.events if event.startswith("message")]
        assert messages == ["message 1", "message 2"]

    run(main())


def test_a_connector_that_still_delivers_after_the_end_is_not_listened_to() -> None:
    class Chatty(MemoryConnector):
        def __init__(self, broker: MemoryBroker) -> None:
            super().__init__(broker)
            self.handlers: list[OnMessage] = []

        def connect(
            self, client_id: str, *, on_message: OnMessage, will: Will | None = None
        ) -> AbstractAsyncContextManager[Session]:
            self.handlers.append(on_message)
            return super().connect(client_id, on_message=on_message, will=will)

    async def main() -> None:
        broker = MemoryBroker()
        connector = Chatty(broker)
        owner = Owner(connector)
        async with running(owner):
            await owner.told("up 1")
            broker.drop("edge")
            await owner.told("down")
            connector.handlers[0](Message("to-edge", b"late"))
            await owner.told("up 2")
            connector.handlers[0](Message("to-edge", b"later"))
            connector.handlers[1](Message("to-edge", b"live"))
        assert owner.inbox.payloads == [b"live"]

    run(main())


def test_a_loss_is_noticed_while_the_owner_still_announces_itself() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        stuck, cancelled = asyncio.Event(), asyncio.Event()

        async def hang(session: Session, birth: int) -> None:
            if birth == 1:
                stuck.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

        owner.announce = hang
        async with running(owner):
            await stuck.wait()
            broker.drop("edge")
            await owner.told("up 2")
            assert cancelled.is_set()

    run(main())


def test_an_owner_that_fails_to_announce_itself_ends_the_link_with_its_error() -> None:
    async def main() -> None:
        owner = Owner(MemoryBroker().connector())

        async def fail(session: Session, birth: int) -> None:
            raise KeyError("status")

        owner.announce = fail
        with pytest.raises(KeyError, match="status"):
            await owner.link.run()

    run(main())


def test_cancelling_the_run_leaves_the_broker_properly() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        owner = Owner(broker.connector())
        task = asyncio.create_task(owner.link.run())
        await owner.told("up 1")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert broker.clients == ()
        assert payloads(broker, "status") == [b"online 1"]

    run(main())
