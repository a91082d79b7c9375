"""What a broker does with plain MQTT, step by step. Each probe returns what stands in the page's cell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import BrokerUnreachable, Connector, Message, SessionError, SessionLost, Will
from tests.aio import Inbox

WAIT_S = 1.5
"""How long silence must last to be an answer."""
SIZES = {"64 KiB": 2**16, "257 KiB": 257 * 2**10, "1 MiB": 2**20, "4 MiB": 2**22, "16 MiB": 2**24}
CHARACTERS = {"space": "a b", "dot": "a.b", "umlaut": "Köln", "`$`": "a$b", "`&%'`": "a&b%c'd", "empty level": "a//b"}


def ignore(_message: Message) -> None:
    """An `on_message` for sessions that only publish."""


async def has(inbox: Inbox, wanted: Callable[[Message], bool], wait_s: float = WAIT_S) -> bool:
    """Whether such a message comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await inbox.until(lambda messages: any(wanted(message) for message in messages))
    return any(wanted(message) for message in inbox.messages)


async def retained(connector: Connector, topic_filter: str) -> str:
    """Is what was retained on probe/retained/x sent to a subscription that comes later?"""
    inbox = Inbox()
    async with connector.connect("probe-a", on_message=ignore) as session:
        await session.publish("probe/retained/x", b"kept", retain=True)
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe(topic_filter)
        return "yes" if await has(inbox, lambda m: m.payload == b"kept" and m.retain) else "no"


async def cleared(connector: Connector) -> str:
    """Does an empty retained message clear what stood there?"""
    inbox = Inbox()
    async with connector.connect("probe-a", on_message=ignore) as session:
        await session.publish("probe/cleared", b"kept", retain=True)
        await session.publish("probe/cleared", b"", retain=True)
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe("probe/cleared")
        return "no" if await has(inbox, lambda m: m.payload != b"") else "yes"


async def will(connector: Connector) -> str:
    """Is the will of a session published, retained, that ends without DISCONNECT?"""
    inbox, late = Inbox(), Inbox()
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe("probe/will")
        with suppress(SessionLost):
            async with connector.connect("probe-a", on_message=ignore, will=Will("probe/will", b"gone")):
                raise SessionLost("as if the network had gone")
        if not await has(inbox, lambda m: m.payload == b"gone"):
            return "no"
    async with connector.connect("probe-c", on_message=late) as session:
        await session.subscribe("probe/will")
        return "yes" if await has(late, lambda m: m.payload == b"gone") else "not retained"


async def takeover(connector: Connector) -> str:
    """Is a session's will published when another client takes its id?"""
    inbox = Inbox()
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe("probe/takeover")
        with suppress(SessionError):
            async with (
                connector.connect("probe-a", on_message=ignore, will=Will("probe/takeover", b"gone")),
                connector.connect("probe-a", on_message=ignore),
            ):
                await has(inbox, lambda m: m.payload == b"gone")
        return "yes" if await has(inbox, lambda m: m.payload == b"gone") else "no"


async def largest(connector: Connector) -> str:
    """The largest of the sizes that arrives whole."""
    passed = "none"
    for name, size in SIZES.items():
        inbox = Inbox()
        payload = bytes(size)
        try:
            async with connector.connect("probe-b", on_message=inbox) as session:
                await session.subscribe("probe/large")
                async with asyncio.timeout(10):
                    await session.publish("probe/large", payload)
                    if not await has(inbox, lambda m, size=size: len(m.payload) == size, 10):
                        return passed
        except (SessionError, TimeoutError):
            return passed
        passed = name
    return f"{passed} or more"


async def at_least_once(connector: Connector) -> str:
    """Is a message that was published at QoS 1 delivered at QoS 1?"""
    inbox = Inbox()
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe("probe/qos")
        await session.publish("probe/qos", b"1", qos=1)
        await has(inbox, lambda m: True)
    return "yes" if any(m.qos == 1 for m in inbox.messages) else "no"


async def order(connector: Connector) -> str:
    """Do 500 messages on several topics come in the order in which one client published them?"""
    inbox = Inbox()
    async with connector.connect("probe-b", on_message=inbox) as session:
        await session.subscribe("probe/order/+")
        await asyncio.gather(*(session.publish(f"probe/order/{i % 7}", b"%d" % i) for i in range(500)))
        await has(inbox, lambda m: m.payload == b"499", 10)
    seen = [int(message.payload) for message in inbox.messages]
    return "yes" if seen == list(range(500)) else "no"


async def characters(connector: Connector) -> str:
    """Which characters come through in a topic as they were sent, by exact topic and by wildcard?"""
    faults = []
    for name, text in CHARACTERS.items():
        if outcome := await _character(connector, f"probe/chars/{text}/leaf"):
            faults.append(f"{name}: {outcome}")
    return "; ".join(faults) or "all"


async def _character(connector: Connector, topic: str) -> str:
    exact, wide = Inbox(), Inbox()
    try:
        async with (
            asyncio.timeout(10),
            connector.connect("probe-b", on_message=exact) as one,
            connector.connect("probe-c", on_message=wide) as other,
            connector.connect("probe-a", on_message=ignore) as session,
        ):
            await other.subscribe("probe/chars/#")
            await one.subscribe(topic)
            await session.publish(topic, b"there")
            is_exact = await has(exact, lambda m: m.payload == b"there")
            is_wide = await has(wide, lambda m: m.payload == b"there")
    except (SessionError, TimeoutError):
        return "ends the session"
    if not (is_exact or is_wide):
        return "doesn't arrive"
    names = {message.topic for message in (*exact.messages, *wide.messages)}
    return "" if is_exact and is_wide and names == {topic} else f"arrives as `{min(names - {topic})}`"


PROBES: dict[str, Callable[[Connector], Awaitable[str]]] = {
    "retained, exact topic": lambda c: retained(c, "probe/retained/x"),
    "retained, wildcard": lambda c: retained(c, "probe/+/x"),
    "retained, cleared": cleared,
    "will": will,
    "will at takeover": takeover,
    "largest message": largest,
    "QoS 1": at_least_once,
    "order": order,
    "characters in topics": characters,
}
"""The page's columns after the loop, in order."""


async def probe(url: str, protocol: str) -> dict[str, str]:
    """Every probe on one broker; a session that can't be had is an answer too."""
    connector = PahoConnector(BrokerConfig.model_validate({"url": url, "protocol": protocol}))
    answers = {}
    for name, ask in PROBES.items():
        try:
            answers[name] = await ask(connector)
        except (SessionError, BrokerUnreachable) as error:
            answers[name] = f"{type(error).__name__}"
    return answers
