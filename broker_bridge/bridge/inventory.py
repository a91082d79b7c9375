"""What the bridge has put on one broker: noted on disk before it stands there, struck once it is clear."""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from typing import Literal

from broker_bridge.bridge.custody import Custody, CustodyError
from broker_bridge.publisher import Payload, Publisher
from broker_bridge.threads import on

log = logging.getLogger("headgate.bridge")


class Inventory:
    """The retained topics of one participant, or of a whole federation, on the broker of one side.

    Args:
        publisher: owns the topics on that broker.
        participant: '' for topics of the federation.
    """

    def __init__(
        self,
        custody: Custody,
        disk: Executor,
        publisher: Publisher,
        side: Literal["plant", "uplink"],
        federation: str,
        participant: str = "",
    ) -> None:
        self._custody = custody
        self._disk = disk
        self._publisher = publisher
        self._side = side
        self._federation = federation
        self._participant = participant
        self._topics = custody.noted(side, federation, participant)

    @property
    def topics(self) -> frozenset[str]:
        """What stands there, or did before a restart."""
        return frozenset(self._topics)

    async def put(self, topic: str, payload: Payload) -> None:
        """This topic should hold this. Raises: CustodyError: it isn't put there, since nobody could clear it."""
        if topic not in self._topics:
            side, federation, participant = self._side, self._federation, self._participant
            await on(self._disk, lambda: self._custody.note(side, federation, participant, topic))
            self._topics.add(topic)
        self._publisher.put(topic, payload)

    def clear(self, topic: str) -> bool:
        """This topic should hold nothing; False where it isn't ours. To be followed by `strike`."""
        if topic not in self._topics:
            return False
        self._topics.discard(topic)
        self._publisher.clear(topic)
        return True

    async def strike(self, topic: str) -> None:
        """Forget a topic once it is clear: a clear that a restart came between is made again."""
        await self._publisher.flushed([topic])
        if topic in self._topics:
            return
        try:
            await on(self._disk, lambda: self._custody.strike(self._side, topic))
        except CustodyError as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for people; it is cleared once more after a restart
