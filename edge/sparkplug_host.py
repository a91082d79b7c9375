"""This edge as a Sparkplug host application: its STATE tells nodes whether anybody reads (Sparkplug 3.0.0, 6.4.27).

A session of its own, because an MQTT session has one will and that of the plant session is the edge's `alive`. It says
online only while the plant session is there and subscribed: nodes that wait for their primary host would otherwise
send to nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from broker_bridge.link import Link
from broker_bridge.session import Connector, Message, PublishRefused, Session, SessionLost, Will
from uns_topics.sparkplug import state_payload, state_topic

log = logging.getLogger("headgate.edge")


class HostState:
    """The STATE of one host. Args: host: its id; wall_clock: seconds since the epoch."""

    def __init__(self, connector: Connector, participant: str, host: str, wall_clock: Callable[[], float]) -> None:
        self._topic = state_topic(host)
        self._wall_clock = wall_clock
        self._timestamp_ms = 0
        self._reads = False
        self._changed = asyncio.Event()
        self._link = Link(
            connector,
            f"{participant}-host",
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=lambda _reason: None,
            make_will=self._will,
        )

    async def run(self) -> None:
        """Hold the session until cancelled. Raises: BrokerRefused, BrokerMisconfigured."""
        async with asyncio.TaskGroup() as tasks:
            says = tasks.create_task(self._say_changes(), name="host.state")
            await self._link.run()
            says.cancel()

    def reads(self, whether: bool) -> None:
        """Whether the plant session is there and subscribed."""
        self._reads = whether
        self._changed.set()

    async def close(self) -> None:
        """Say offline as of now, then leave."""
        self._reads = False
        self._timestamp_ms = max(self._timestamp_ms, round(self._wall_clock() * 1000))
        await self._link.close((self._topic, self._state(), 1, True))

    def _state(self) -> bytes:
        return state_payload(self._reads, self._timestamp_ms)

    def _will(self, _birth: int) -> Will:
        # The birth has the timestamp of its will, and no session that of the one before, whatever the clock does.
        self._timestamp_ms = max(self._timestamp_ms + 1, round(self._wall_clock() * 1000))
        return Will(self._topic, state_payload(False, self._timestamp_ms))

    async def _on_up(self, session: Session, _birth: int) -> None:
        await session.subscribe(self._topic)
        await self._say(session)

    def _on_message(self, message: Message) -> None:
        """Somebody says that this host is offline: a late will of an older session, or a second host of this id."""
        if message.retain:
            return  # from before this session, whose own word follows
        try:
            said = json.loads(message.payload)
        except (ValueError, RecursionError):
            return
        if self._reads and isinstance(said, dict) and said.get("online") is False:
            self._changed.set()

    async def _say_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            session = self._link.session
            if session is not None:
                await self._say(session)

    async def _say(self, session: Session) -> None:
        try:
            await session.publish(self._topic, self._state(), retain=True)
        except SessionLost:
            pass  # the broker publishes the will, and the next session says it anew
        except PublishRefused as error:
            log.error("Sparkplug nodes don't learn that this host is there: %s", error)  # noqa: TRY400
