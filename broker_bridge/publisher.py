"""What somebody owns on a broker: the wanted content of every retained topic, published until acknowledged.

`put` and `clear` say what should be there; a task publishes what isn't yet, several messages at a time. A new
connection republishes everything, so that a broker that lost all heals by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from broker_bridge.session import PublishRefused, SessionLost

_LOG = logging.getLogger(__name__)
WINDOW = 8
"""Messages in flight."""

Payload = Callable[[], bytes]
"""Made when it is sent, so that envelope and seconds left are those of the moment."""


class Publish(Protocol):
    """`Link.publish`."""

    def __call__(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> Awaitable[None]:
        """Raises: SessionLost, PublishRefused."""


class Publisher:
    """Keeps retained topics as wanted.

    Args:
        publish: sends one message and returns after PUBACK.
        on_too_large: a chunk was in flight at two ends of the connection and none of its size was ever taken, or it was
            refused: the broker's limit is below its size. No chunk is sent until `resume_chunks`.
    """

    def __init__(self, publish: Publish, on_too_large: Callable[[str], None]) -> None:
        self._publish = publish
        self._on_too_large = on_too_large
        self._wanted: dict[str, Payload | None] = {}
        self._chunks: set[str] = set()
        self._bulk: set[str] = set()
        self._dirty: dict[str, int] = {}
        self._revision = 0
        self._up = False
        self._session = 0
        self._in_flight: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._proven_bytes = 0
        """The largest chunk that the broker has taken: one of that size is not what ends the connection."""
        self._chunks_wait = False
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()

    def put(self, topic: str, payload: Payload, *, chunk: bool = False, after_chunks: bool = False) -> None:
        """This topic should hold this, from now on; `after_chunks`: sent behind the chunks that are due already."""
        self._wanted[topic] = payload
        if chunk:
            self._chunks.add(topic)
        if chunk or after_chunks:
            self._bulk.add(topic)
        self._mark(topic)

    def clear(self, topic: str) -> None:
        """This topic should hold nothing."""
        self._wanted[topic] = None
        self._mark(topic)

    def refresh(self, topics: Collection[str]) -> None:
        """Publish these once more, if they should hold something."""
        for topic in topics:
            if self._wanted.get(topic) is not None:
                self._mark(topic)

    def topics(self, prefix: str) -> tuple[str, ...]:
        """Topics under a prefix that should hold something."""
        return tuple(t for t, payload in self._wanted.items() if payload is not None and t.startswith(prefix))

    def is_flushed(self, topics: Collection[str]) -> bool:
        """Whether the broker has acknowledged what these should hold now."""
        return not any(topic in self._dirty for topic in topics)

    async def flushed(self, topics: Collection[str]) -> None:
        """Return when the broker has acknowledged what these should hold now."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_flushed(topics))

    def on_up(self) -> None:
        """A new connection: everything anew; small topics, then chunks, then what stands for them."""
        self._up = True
        self._session += 1
        for topic in sorted(self._wanted, key=lambda t: (t in self._bulk) + (t in self._bulk - self._chunks)):
            self._mark(topic)

    def on_down(self) -> None:
        """The connection ended."""
        self._up = False

    def resume_chunks(self) -> None:
        """The chunk size changed: send chunks again, and count ends of the connection anew."""
        self._losses.clear()
        self._chunks_wait = False
        self._wake.set()

    async def run(self) -> None:
        """Publish what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._up and len(self._in_flight) < WINDOW and (topic := self._next()) is not None:
                    self._in_flight.add(topic)
                    group.create_task(self._send(topic), name=f"publish {topic}")

    def _mark(self, topic: str) -> None:
        self._revision += 1
        self._dirty.pop(topic, None)
        self._dirty[topic] = self._revision
        self._wake.set()

    def _next(self) -> str | None:
        """The oldest due topic, bulk last: a heartbeat must not wait for a model."""
        bulk = None
        for topic in self._dirty:
            if topic in self._in_flight:
                continue
            if topic not in self._bulk:
                return topic
            bulk = bulk or topic
        return None if self._chunks_wait else bulk

    async def _send(self, topic: str) -> None:
        revision, session = self._dirty[topic], self._session
        made = self._wanted[topic]
        payload = b"" if made is None else made()
        try:
            await self._publish(topic, payload, qos=1, retain=True)
        except SessionLost:
            self._lost(topic, session, len(payload))
        except PublishRefused as error:
            self._refused(topic, error)
            await self._settle(topic, revision)
        else:
            self._losses.pop(topic, None)
            if topic in self._chunks:
                self._proven_bytes = max(self._proven_bytes, len(payload))
            await self._settle(topic, revision)
        finally:
            self._in_flight.discard(topic)
            self._wake.set()

    async def _settle(self, topic: str, revision: int) -> None:
        if self._dirty.get(topic) == revision:
            del self._dirty[topic]
            if self._wanted[topic] is None:
                del self._wanted[topic]
                self._chunks.discard(topic)
                self._bulk.discard(topic)
            async with self._changed:
                self._changed.notify_all()

    def _lost(self, topic: str, session: int, payload_bytes: int) -> None:
        if session == self._session:  # whether or not the link has said so yet, nothing more goes into this one
            self._up = False
        if topic in self._chunks and payload_bytes > self._proven_bytes:
            self._losses[topic] += 1
            if self._losses[topic] >= 2:
                self._too_large(f"the connection ended twice with {topic} in flight")

    def _refused(self, topic: str, error: PublishRefused) -> None:
        if topic in self._chunks:
            self._too_large(str(error))
        else:
            _LOG.error("%s wasn't published: %s", topic, error)

    def _too_large(self, why: str) -> None:
        """No chunk of this size is sent any more: each would cost the connection once again."""
        if not self._chunks_wait:
            self._chunks_wait = True
            self._on_too_large(why)
