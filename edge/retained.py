"""The retained leaves of one edge as they stand on its plant's broker: published, given back, cleared."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from broker_bridge.link import Link
from broker_bridge.session import PublishRefused, Session, SessionLost
from edge.inventory import Inventory
from edge.outputs import Leaf

log = logging.getLogger("headgate.edge")

PUBLISHERS = 64
"""Leaves of a batch that wait for their PUBACK at the same time; a task for each of them would cost more than paho."""


class RetainedLeaves:
    """What stands on the broker.

    Args:
        alive: topic of the edge's own leaf.
        is_ours: whether a topic is still one of this configuration's leaves.
        in_store: does a piece of work on the store's thread; its failure is told there and ends nothing here.
        problems: counts `inference-not-published`.
    """

    def __init__(
        self,
        link: Link,
        inventory: Inventory,
        alive: str,
        *,
        is_ours: Callable[[str], bool],
        in_store: Callable[[Callable[[], None], str], Awaitable[None]],
        problems: Counter[str],
    ) -> None:
        self._link = link
        self._inventory = inventory
        self._alive = alive
        self._is_ours = is_ours
        self._in_store = in_store
        self._problems = problems
        self.payloads: dict[str, bytes] = {}
        """By topic, as they were published last."""

    async def begin(self, session: Session) -> None:
        """A new session: clear what an earlier configuration left, and note that `alive` will stand there."""
        await self._clear_foreign(session)
        await self._in_store(lambda: self._inventory.add([self._alive]), "inventory")

    async def give_back(self, session: Session) -> None:
        """Publish all again: a broker that lost its store gets them back."""
        refused: list[str] = []
        for topic in (self._alive, *self.payloads):
            payload = b"true" if topic == self._alive else self.payloads.get(topic)  # as it is by now, not as it was
            if payload is None:
                continue  # cleared meanwhile
            try:
                await session.publish(topic, payload, retain=True)
            except PublishRefused as error:
                refused.append(str(error))
        if refused:
            log.error("the plant's broker doesn't take %d of our topics; the first: %s", len(refused), refused[0])

    async def clear_renamed(self) -> None:
        """A model of another contract may give another leaf: the one before must not look alive."""
        self.payloads = {topic: payload for topic, payload in self.payloads.items() if self._is_ours(topic)}
        if self._link.session is not None:  # else the next session does
            with suppress(SessionLost):
                await self._clear_foreign(self._link.session)

    async def publish(self, leaves: list[Leaf]) -> None:
        """Publish a batch; what the broker doesn't take is counted."""
        fresh = [leaf.topic for leaf in leaves if leaf.retain and leaf.topic not in self.payloads]
        if fresh:  # on record first: what a power cut leaves on the broker must be known
            await self._in_store(lambda: self._inventory.add(fresh), "inventory")
        for leaf in leaves:
            if leaf.retain:
                self.payloads[leaf.topic] = leaf.payload
        rest = iter(leaves)
        await asyncio.gather(*(self._publish_from(rest) for _ in range(min(PUBLISHERS, len(leaves)))))

    async def _publish_from(self, leaves: Iterator[Leaf]) -> None:
        """Publish one after the other, in the order of a batch: several of these share it."""
        for leaf in leaves:
            try:
                await self._link.publish(leaf.topic, leaf.payload, retain=leaf.retain)
            except (SessionLost, PublishRefused):
                self._problems["inference-not-published"] += 1

    async def _clear_foreign(self, session: Session) -> None:
        """What stands there under an earlier name: a tag that nobody updates any more must not look alive."""
        foreign = self._inventory.foreign(self._is_ours)
        cleared = []
        for topic in foreign:
            try:
                await session.publish(topic, b"", retain=True)
            except PublishRefused as error:
                log.warning("%s can't be cleared: %s", topic, error)
            else:
                cleared.append(topic)
        if cleared:
            await self._in_store(lambda: self._inventory.forget(cleared), "inventory")
            log.info("%d inference topics of an earlier configuration were cleared", len(cleared))
