"""`headgate edge leave`: an edge that is gone for good takes its retained topics along, at the plant and above."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from broker_bridge.session import Connector, Message, SessionError
from edge.inventory import Inventory
from edge.sparkplug_session import farewell
from edge.store import SampleStore
from uns_topics.topics import FlTopic, Kind

SAID = tuple(kind for kind in Kind if kind.retained and kind.path.startswith("up/") and "{bridge}" not in kind.path)
"""What a participant keeps on the federation's broker."""
LOOK_S = 2.0
"""How long to wait for the retained `alive` of an edge that still runs."""


class StillRuns(Exception):
    """The edge is alive: it would publish everything again."""


async def leave(
    federation: str, participant: str, store: SampleStore, plant: Connector, fl: Connector
) -> tuple[int, int]:
    """Clear what this edge published, and say its Sparkplug node's death once more; its disk keeps everything else.

    Returns: how many topics were cleared at the plant and in the fl tree.
    Raises: StillRuns; SessionError: a broker can't be reached, or refuses.
    """
    inventory = Inventory(store)
    topics = sorted(inventory.topics)
    await _refuse_while_alive(plant, participant, topics)
    death = farewell(store)
    async with plant.connect(f"{participant}-leave", on_message=_ignore) as session:
        for topic in topics:
            await session.publish(topic, b"", retain=True)
        if death is not None:
            said, payload, qos, retain = death
            await session.publish(said, payload, qos=qos, retain=retain)
    inventory.forget(topics)
    async with fl.connect(f"{participant}-leave", on_message=_ignore) as session:
        for kind in SAID:
            await session.publish(str(FlTopic(federation, kind, participant)), b"", retain=True)
    return len(topics), len(SAID)


async def _refuse_while_alive(plant: Connector, participant: str, topics: list[str]) -> None:
    heard = asyncio.Event()

    def on_message(message: Message) -> None:
        if message.payload == b"true":
            heard.set()

    alive = [topic for topic in topics if topic.endswith(f"/_edge/{participant}/alive")]
    if not alive:
        return
    async with plant.connect(f"{participant}-look", on_message=on_message) as session:
        await session.subscribe(*alive)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await heard.wait()
    if heard.is_set():
        raise StillRuns(f"{alive[0]} is true: the edge runs; stop it first")


def _ignore(message: Message) -> None:
    del message


__all__ = ["SessionError", "StillRuns", "leave"]
