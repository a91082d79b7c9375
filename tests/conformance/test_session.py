"""One suite for the `Session` interface, run on every client library and broker that Headgate supports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.session import (
    BrokerMisconfigured,
    BrokerRefused,
    BrokerUnreachable,
    Connector,
    Message,
    PublishRefused,
    SessionLost,
    Will,
)
from tests.aio import Inbox, run
from tests.conformance.backends import EVERY, MOSQUITTO, WITH_CREDENTIALS, Backend, network_connector
from tests.servers import Certificates, mosquitto

pytestmark = pytest.mark.broker

_NUMBERS = count()


def ignore(_message: Message) -> None:
    pass


@dataclass(frozen=True)
class Place:
    """A corner of a shared broker that belongs to one test: its own topics and client ids."""

    connector: Connector
    root: str

    def client(self, name: str) -> str:
        return f"{self.root}-{name}"

    def topic(self, name: str) -> str:
        return f"{self.root}/{name}"


@pytest.fixture(scope="module", params=EVERY, ids=str)
def shared(request: pytest.FixtureRequest) -> Iterator[Connector]:
    backend: Backend = request.param
    with backend.broker() as broker:
        yield broker.connector()


@pytest.fixture
def place(shared: Connector) -> Place:
    return Place(shared, f"test{next(_NUMBERS)}")


def test_messages_arrive_in_the_order_they_were_published(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        async with (
            place.connector.connect(place.client("in"), on_message=inbox) as reader,
            place.connector.connect(place.client("out"), on_message=ignore) as writer,
        ):
            await reader.subscribe(place.topic("#"))
            for number in range(40):
                await writer.publish(place.topic(f"{number % 3}"), b"%d" % number)
            await inbox.count(40)
            assert inbox.payloads == [b"%d" % number for number in range(40)]
            assert {message.qos for message in inbox.messages} == {1}
            assert not any(message.retain for message in inbox.messages)

    run(main())


def test_fifty_publishes_at_once_all_arrive_in_order(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        async with place.connector.connect(place.client("both"), on_message=inbox) as session:
            await session.subscribe(place.topic("+"))
            await asyncio.gather(*(session.publish(place.topic("t"), b"%d" % number) for number in range(50)))
            await inbox.count(50)
            assert inbox.payloads == [b"%d" % number for number in range(50)]

    run(main())


def test_retained_messages_are_flagged_only_when_replayed(place: Place) -> None:
    async def main() -> None:
        early, late, later = Inbox(), Inbox(), Inbox()
        connect = place.connector.connect
        async with (
            connect(place.client("early"), on_message=early) as reader,
            connect(place.client("out"), on_message=ignore) as writer,
            connect(place.client("late"), on_message=late) as latecomer,
        ):
            await reader.subscribe(place.topic("#"))
            await writer.publish(place.topic("kept"), b"1", retain=True)
            await writer.publish(place.topic("kept"), b"2", retain=True)
            await early.count(2)
            assert [(message.payload, message.retain) for message in early.messages] == [(b"1", False), (b"2", False)]
            await latecomer.subscribe(place.topic("#"))
            await late.count(1)
            assert late.messages == [Message(place.topic("kept"), b"2", 1, retain=True)]
            # An empty payload clears what is kept.
            await writer.publish(place.topic("kept"), b"", retain=True)
            await early.count(3)
        async with connect(place.client("later"), on_message=later) as reader:
            await reader.subscribe(place.topic("#"))
            await reader.publish(place.topic("mark"), b"")
            await later.topic(place.topic("mark"))
            assert later.topics == [place.topic("mark")]

    run(main())


def test_a_session_receives_nothing_that_it_did_not_subscribe_to(place: Place) -> None:
    async def main() -> None:
        other, inbox = Inbox(), Inbox()
        connect = place.connector.connect
        async with connect(place.client("other"), on_message=other) as reader:
            await reader.subscribe(place.topic("kept/#"))
            await reader.publish(place.topic("kept/1"), b"kept", retain=True)
            await other.count(1)
            async with connect(place.client("new"), on_message=inbox) as session:
                await session.subscribe(place.topic("mine"))
                await session.publish(place.topic("mine"), b"")
                await inbox.topic(place.topic("mine"))
                assert inbox.topics == [place.topic("mine")]

    run(main())


def test_an_old_session_is_not_taken_up_again(place: Place) -> None:
    async def main() -> None:
        inbox, connect = Inbox(), place.connector.connect
        async with connect(place.client("same"), on_message=Inbox()) as session:
            await session.subscribe(place.topic("old"))
        async with connect(place.client("other"), on_message=Inbox()) as other:
            await other.publish(place.topic("old"), b"meanwhile")
            async with connect(place.client("same"), on_message=inbox) as session:
                await other.publish(place.topic("old"), b"now")
                await session.subscribe(place.topic("mark"))
                await session.publish(place.topic("mark"), b"")
                await inbox.topic(place.topic("mark"))
        assert inbox.topics == [place.topic("mark")]

    run(main())


def test_the_will_is_published_after_an_abnormal_end(place: Place) -> None:
    async def main() -> None:
        inbox, late = Inbox(), Inbox()
        will = Will(place.topic("alive"), b"gone", retain=True)
        async with place.connector.connect(place.client("witness"), on_message=inbox) as witness:
            await witness.subscribe(place.topic("#"))
            with pytest.raises(SessionLost, match="cable cut"):
                async with place.connector.connect(place.client("mortal"), on_message=ignore, will=will):
                    raise SessionLost("cable cut")
            await inbox.count(1)
            assert inbox.messages == [Message(place.topic("alive"), b"gone", 1, retain=False)]
        async with place.connector.connect(place.client("late"), on_message=late) as witness:
            await witness.subscribe(place.topic("alive"))
            await late.count(1)
            assert late.messages[0].payload == b"gone"
            assert late.messages[0].retain

    run(main())


def test_a_clean_leave_publishes_no_will(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        will = Will(place.topic("alive"), b"gone", retain=True)
        async with place.connector.connect(place.client("witness"), on_message=inbox) as witness:
            await witness.subscribe(place.topic("#"))
            async with place.connector.connect(place.client("leaver"), on_message=ignore, will=will) as leaver:
                await leaver.publish(place.topic("alive"), b"leaving", retain=True)
            await witness.publish(place.topic("mark"), b"")
            await inbox.topic(place.topic("mark"))
            assert inbox.payloads == [b"leaving", b""]

    run(main())


def test_cancellation_is_a_clean_leave(place: Place) -> None:
    async def main() -> None:
        inbox, inside = Inbox(), asyncio.Event()
        will = Will(place.topic("alive"), b"gone")

        async def stay() -> None:
            async with place.connector.connect(place.client("leaver"), on_message=ignore, will=will) as leaver:
                inside.set()
                await leaver.wait_closed()

        async with place.connector.connect(place.client("witness"), on_message=inbox) as witness:
            await witness.subscribe(place.topic("#"))
            stayer = asyncio.create_task(stay())
            await inside.wait()
            stayer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stayer
            await witness.publish(place.topic("mark"), b"")
            await inbox.topic(place.topic("mark"))
            assert inbox.topics == [place.topic("mark")]

    run(main())


def test_leaving_under_a_flood_of_messages_publishes_no_will(place: Place) -> None:
    """Closing a socket with unread data resets the connection, and a reset may overtake the DISCONNECT."""

    async def main() -> None:
        inbox = Inbox()
        connect = place.connector.connect
        will = Will(place.topic("alive"), b"gone")
        async with connect(place.client("witness"), on_message=inbox) as witness:
            await witness.subscribe(place.topic("alive"), place.topic("mark"))
            for _ in range(5):
                flooded = Inbox()
                async with connect(place.client("leaver"), on_message=flooded, will=will) as leaver:
                    await leaver.subscribe(place.topic("flood"), qos=0)
                    flood = asyncio.gather(
                        *(witness.publish(place.topic("flood"), bytes(50_000), qos=0) for _ in range(30))
                    )
                    await flooded.count(1)
                await flood
            await witness.publish(place.topic("mark"), b"")
            await inbox.topic(place.topic("mark"))
            assert inbox.topics == [place.topic("mark")]

    run(main())


def test_a_second_session_of_the_same_client_id_ends_the_first(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        connect, client = place.connector.connect, place.client("twin")
        async with connect(client, on_message=ignore) as older:
            waiting = asyncio.create_task(older.wait_closed())
            async with connect(client, on_message=inbox) as newer:
                with pytest.raises(SessionLost):
                    await waiting
                await newer.subscribe(place.topic("t"))
                with pytest.raises(SessionLost):
                    await older.publish(place.topic("t"), b"ghost")
                await newer.publish(place.topic("t"), b"still here")
                await inbox.count(1)
                assert inbox.payloads == [b"still here"]

    run(main())


def test_a_takeover_publishes_the_will_of_the_older_session(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        connect = place.connector.connect
        will = Will(place.topic("alive"), b"taken over", retain=False)
        async with connect(place.client("witness"), on_message=inbox) as witness:
            await witness.subscribe(place.topic("alive"))
            async with (
                connect(place.client("twin"), on_message=ignore, will=will),
                connect(place.client("twin"), on_message=ignore),
            ):
                await inbox.count(1)
            assert inbox.payloads == [b"taken over"]

    run(main())


def test_nothing_arrives_after_unsubscribe(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        async with place.connector.connect(place.client("both"), on_message=inbox) as session:
            await session.subscribe(place.topic("a"), place.topic("b"))
            await session.publish(place.topic("a"), b"1")
            await inbox.count(1)
            await session.unsubscribe(place.topic("a"))
            await session.publish(place.topic("a"), b"2")
            await session.publish(place.topic("b"), b"3")
            await inbox.topic(place.topic("b"))
            assert inbox.payloads == [b"1", b"3"]

    run(main())


def test_payloads_of_any_bytes_and_of_one_mebibyte_arrive_unchanged(place: Place) -> None:
    """Where the session names a limit, up to that."""

    async def main() -> None:
        inbox = Inbox()
        async with place.connector.connect(place.client("both"), on_message=inbox) as session:
            largest = min(1 << 20, (session.max_packet_bytes or 1 << 30) - len(place.topic("t")) - 10)
            payloads = [b"", bytes(range(256)), b"\x00", "Ö".encode("latin-1"), os.urandom(largest)]
            await session.subscribe(place.topic("t"))
            for payload in payloads:
                await session.publish(place.topic("t"), payload)
            await inbox.count(len(payloads))
            assert inbox.payloads == payloads

    run(main())


@pytest.mark.parametrize("name", ["Werk Köln/Straße 5/Ofen.1/温度", " /a//b/ ", "e\u0301 against é/\U0001f525"])
def test_topics_arrive_byte_for_byte(place: Place, name: str) -> None:
    async def main() -> None:
        inbox = Inbox()
        async with place.connector.connect(place.client("both"), on_message=inbox) as session:
            await session.subscribe(place.topic("#"))
            await session.publish(place.topic(name), b"21.5", retain=True)
            await inbox.count(1)
            assert inbox.topics == [place.topic(name)]

    run(main())


def test_qos_0_arrives(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        async with place.connector.connect(place.client("both"), on_message=inbox) as session:
            await session.subscribe(place.topic("t"), qos=0)
            for number in range(100):
                await session.publish(place.topic("t"), b"%d" % number, qos=0)
            await inbox.count(100)
            assert {message.qos for message in inbox.messages} == {0}

    run(main())


def test_a_handler_that_fails_is_reported_and_the_session_lives_on(place: Place) -> None:
    async def main() -> None:
        inbox = Inbox()
        reported: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        def on_message(message: Message) -> None:
            if message.payload == b"bad":
                raise ValueError("not a number")
            inbox(message)

        async with place.connector.connect(place.client("both"), on_message=on_message) as session:
            await session.subscribe(place.topic("t"))
            for payload in (b"bad", b"good"):
                await session.publish(place.topic("t"), payload)
            await inbox.count(1)
            assert inbox.payloads == [b"good"]
        assert [str(context["exception"]) for context in reported] == ["not a number"]
        assert place.topic("t") in str(reported[0]["message"])

    run(main())


def test_a_topic_with_a_wildcard_cannot_be_published_to(place: Place) -> None:
    async def main() -> None:
        async with place.connector.connect(place.client("out"), on_message=ignore) as session:
            with pytest.raises(ValueError, match="wildcard"):
                await session.publish(place.topic("+"), b"")
            await session.publish(place.topic("t"), b"the session lives on")

    run(main())


def test_a_session_that_was_left_raises_session_lost(place: Place) -> None:
    async def main() -> None:
        async with place.connector.connect(place.client("out"), on_message=ignore) as session:
            pass
        topic = place.topic("t")
        requests = (session.publish(topic, b""), session.subscribe(topic), session.unsubscribe(topic))
        for call in (*requests, session.wait_closed()):
            with pytest.raises(SessionLost):
                await call

    run(main())


@pytest.mark.parametrize("backend", EVERY, ids=str)
def test_a_killed_broker_ends_every_wait(backend: Backend) -> None:
    async def main() -> None:
        with backend.broker() as broker:
            async with broker.connector().connect("one", on_message=ignore) as session:
                await session.publish("t", b"arrives")
                broker.freeze()
                waits = [
                    *(session.publish("t", b"%d" % number) for number in range(100)),
                    session.subscribe("a"),
                    session.unsubscribe("b"),
                    session.wait_closed(),
                ]
                tasks = [asyncio.create_task(wait) for wait in waits]
                await asyncio.sleep(0)
                assert not any(task.done() for task in tasks)
                broker.kill()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [type(result) for result in results] == [SessionLost] * len(tasks)
                with pytest.raises(SessionLost, match="lost"):
                    await session.publish("t", b"too late")
            with pytest.raises(BrokerUnreachable, match="unreachable"):
                async with broker.connector().connect("one", on_message=ignore):
                    pass

    run(main())


@pytest.mark.parametrize("backend", WITH_CREDENTIALS, ids=str)
def test_wrong_credentials_are_refused_and_right_ones_accepted(backend: Backend) -> None:
    async def main() -> None:
        with backend.broker(passwords={"lyon": "grüße 1"}) as broker:
            for username, password in (("lyon", "wrong"), ("paris", "grüße 1"), (None, None)):
                with pytest.raises(BrokerRefused, match=r"refused the connection: .*(bad user name|not authorized)"):
                    async with broker.connector(username, password).connect("one", on_message=ignore):
                        pass
            async with broker.connector("lyon", "grüße 1").connect("one", on_message=ignore) as session:
                await session.publish("t", b"")

    run(main())


@pytest.mark.parametrize("backend", MOSQUITTO, ids=str)
def test_tls_with_client_certificate(backend: Backend, certificates: Certificates, tmp_path: Path) -> None:
    async def main() -> None:
        inbox = Inbox()
        with mosquitto(certificates=certificates) as server:
            trusting = BrokerConfig(url=server.url, ca_file=certificates.ca, protocol=backend.protocol)
            complete = trusting.model_copy(
                update={
                    "client_certificate_file": certificates.client,
                    "client_key_file": certificates.client_key,
                }
            )
            async with network_connector(backend, complete).connect("one", on_message=inbox) as session:
                await session.subscribe("t")
                payload = os.urandom(1 << 20)  # many TLS records, read ahead and decrypted ahead
                await session.publish("t", payload)
                await session.publish("t", b"after")
                await inbox.count(2)
                assert inbox.payloads == [payload, b"after"]

            refused = {
                "certificate refused": complete.model_copy(update={"ca_file": None}),
                "unreachable": trusting,  # the broker ends the connection of a client without a certificate
            }
            for reason, config in refused.items():
                with pytest.raises(BrokerUnreachable, match=reason):
                    async with network_connector(backend, config).connect("one", on_message=ignore):
                        pass
            for field in ("ca_file", "client_certificate_file", "client_key_file"):
                config = complete.model_copy(update={field: tmp_path / "missing.pem"})
                with pytest.raises(BrokerMisconfigured, match=r"missing\.pem"):
                    async with network_connector(backend, config).connect("one", on_message=ignore):
                        pass

    run(main())


@pytest.mark.parametrize("backend", [backend for backend in MOSQUITTO if backend.protocol == "5"], ids=str)
def test_mqtt_5_tells_its_packet_limit_and_its_refusals(backend: Backend) -> None:
    async def main() -> None:
        inbox = Inbox()
        with mosquitto(max_packet_size=65_536, acl="topic readwrite allowed/#\n") as server:
            config = BrokerConfig(url=server.url, protocol="5")
            async with network_connector(backend, config).connect("one", on_message=inbox) as session:
                assert session.max_packet_bytes == 65_536
                await session.subscribe("allowed/#")
                await session.publish("allowed/t", bytes(64_000))
                with pytest.raises(PublishRefused, match="announced 65536"):
                    await session.publish("allowed/t", bytes(65_536))
                largest = 65_536 - len("allowed/t") - 10
                await session.publish("allowed/t", bytes(largest))
                with pytest.raises(PublishRefused, match="'denied/t': not authorized"):
                    await session.publish("denied/t", b"")
                await inbox.count(2)
                assert [len(payload) for payload in inbox.payloads] == [64_000, largest]

    run(main())


@pytest.mark.parametrize("backend", [backend for backend in MOSQUITTO if backend.protocol == "3.1.1"], ids=str)
def test_mqtt_3_loses_the_session_over_a_packet_limit(backend: Backend) -> None:
    async def main() -> None:
        with mosquitto(max_packet_size=65_536) as server:
            config = BrokerConfig(url=server.url)
            async with network_connector(backend, config).connect("one", on_message=ignore) as session:
                assert session.max_packet_bytes is None
                with pytest.raises(SessionLost):
                    await session.publish("t", bytes(70_000))

    run(main())
