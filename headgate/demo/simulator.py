"""The plants of a scenario as publishers: history fast with true event times, then live at a steady pace."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from pydantic import Field

from broker_bridge.config import BrokerConfig
from broker_bridge.link import Link
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Connector, Message, Session, SessionLost
from edge.outputs import alive_topic
from headgate.demo.scenario import PlantScript, Scenario
from headgate.plants.emission import Emission
from uns_topics.model import FileValue

log = logging.getLogger("headgate.simulator")

IN_FLIGHT = 40
"""Messages of one plant published and not yet acknowledged while history is played."""


class SimulatorConfig(FileValue):
    """`headgate simulate --config FILE`."""

    broker: BrokerConfig = Field(description="the plant's broker")


async def play(scenario: Scenario, broker: BrokerConfig, stop: asyncio.Event) -> None:
    """Publish every plant's messages until stopped, recordings until they end; a plant starts when its edge listens."""
    async with asyncio.TaskGroup() as tasks:
        federation = str(scenario.contract["federation"])
        running = [
            tasks.create_task(
                _play_plant(PahoConnector(broker), federation, plant, scenario.live_speed), name=plant.participant
            )
            for plant in scenario.plants
        ]
        stopping = tasks.create_task(stop.wait(), name="stop")
        if any(plant.live is not None for plant in scenario.plants):
            await stopping
        else:  # a recording ends
            await asyncio.wait({stopping, tasks.create_task(_all(running))}, return_when=asyncio.FIRST_COMPLETED)
        for task in (*running, stopping):
            task.cancel()


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _play_plant(connector: Connector, federation: str, plant: PlantScript, live_speed: float) -> None:
    publisher = Publisher(connector, f"simulator-{plant.participant}-{os.getpid()}")
    listening = asyncio.Event()
    publisher.listen(alive_topic(plant.home, federation, plant.participant), listening)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publisher.run(), name=f"{plant.participant} link")
        await listening.wait()
        started = time.monotonic()
        count = await publish_fast(publisher, plant.history())
        log.info("%s: %d messages of history in %.1f s", plant.participant, count, time.monotonic() - started)
        if plant.live is not None:
            await publish_paced(publisher, plant.live(), live_speed)
        await publisher.close()


class Publisher:
    """Publishes over a link that may come and go: what was not acknowledged is published again, as a gateway does."""

    def __init__(self, connector: Connector, client_id: str) -> None:
        self._up = asyncio.Event()
        self._heard: dict[str, asyncio.Event] = {}
        self._link = Link(
            connector,
            client_id,
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=lambda _reason: self._up.clear(),
            make_will=lambda _birth: None,
        )

    def listen(self, topic: str, heard: asyncio.Event) -> None:
        """Set the event when the topic says `true`; before `run`."""
        self._heard[topic] = heard

    async def run(self) -> None:
        """Hold the link. Raises: BrokerRefused."""
        await self._link.run()

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    async def publish(self, emission: Emission) -> None:
        """Publish one emission, waiting for the broker where it is away."""
        while True:
            await self._up.wait()
            try:
                await self._link.publish(emission.topic, emission.payload, retain=emission.retain)
            except SessionLost:
                await asyncio.sleep(0)  # the link clears `_up` in this turn
            else:
                return

    async def _on_up(self, session: Session, _birth: int) -> None:
        if self._heard:
            await session.subscribe(*self._heard)
        self._up.set()

    def _on_message(self, message: Message) -> None:
        if message.payload == b"true" and message.topic in self._heard:
            self._heard[message.topic].set()


async def publish_fast(publisher: Publisher, emissions: Iterator[Emission]) -> int:
    """Publish as fast as the broker acknowledges; returns how many."""
    count = 0
    while batch := list(islice(emissions, IN_FLIGHT)):
        await asyncio.gather(*(publisher.publish(e) for e in batch))
        count += len(batch)
    return count


async def publish_paced(publisher: Publisher, emissions: Iterable[Emission], speed: float) -> int:
    """Publish with the pauses of the event times, `speed` event seconds to one second; returns how many."""
    count, started, first = 0, time.monotonic(), None
    for emission in emissions:
        first = emission.time_s if first is None else first
        due = started + (emission.time_s - first) / speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await publisher.publish(emission)
        count += 1
    return count
