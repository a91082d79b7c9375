"""The plants of a scenario as publishers: history fast with true event times, then live at a steady pace."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Connector, Message, Session
from edge.outputs import alive_topic, common_home
from headgate.demo.scenario import PlantScript, Scenario
from headgate.plants.emission import Emission

log = logging.getLogger("headgate.simulator")

IN_FLIGHT = 40
"""Messages of one plant published and not yet acknowledged while history is played."""


async def play(scenario: Scenario, broker: BrokerConfig, stop: asyncio.Event) -> None:
    """Publish every plant's messages until stopped; each plant starts when its edge says that it listens."""
    async with asyncio.TaskGroup() as tasks:
        federation = str(scenario.contract["federation"])
        running = [
            tasks.create_task(
                _play_plant(PahoConnector(broker), federation, plant, scenario.live_speed), name=plant.participant
            )
            for plant in scenario.plants
        ]
        await stop.wait()
        for task in running:
            task.cancel()


async def _play_plant(connector: Connector, federation: str, plant: PlantScript, live_speed: float) -> None:
    listening = asyncio.Event()

    def on_message(message: Message) -> None:
        if message.payload == b"true":
            listening.set()

    async with connector.connect(f"simulator-{plant.participant}-{os.getpid()}", on_message=on_message) as session:
        await session.subscribe(alive_topic(common_home(plant.instances), federation, plant.participant))
        await listening.wait()
        started = time.monotonic()
        count = await publish_fast(session, plant.history())
        log.info("%s: %d messages of history in %.1f s", plant.participant, count, time.monotonic() - started)
        if plant.live is not None:
            await publish_paced(session, plant.live(), live_speed)
        await session.wait_closed()


async def publish_fast(session: Session, emissions: Iterator[Emission]) -> int:
    """Publish as fast as the broker acknowledges; returns how many."""
    count = 0
    while batch := list(islice(emissions, IN_FLIGHT)):
        await asyncio.gather(*(session.publish(e.topic, e.payload, retain=e.retain) for e in batch))
        count += len(batch)
    return count


async def publish_paced(session: Session, emissions: Iterable[Emission], speed: float) -> int:
    """Publish with the pauses of the event times, `speed` event seconds to one second; returns how many."""
    count, started, first = 0, time.monotonic(), None
    for emission in emissions:
        first = emission.time_s if first is None else first
        due = started + (emission.time_s - first) / speed
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await session.publish(emission.topic, emission.payload, retain=emission.retain)
        count += 1
    return count
