"""From a broker into the tree: subscriptions that are narrowed where a cap is hit, and a connection that comes back."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from broker_bridge.link import Link
from broker_bridge.session import (
    BrokerUnreachable,
    Connector,
    Message,
    OnMessage,
    Session,
    SessionLost,
    Will,
)
from headgate.tree.caps import LeftOut, Limits, Meter, narrow
from headgate.tree.model import Tree

FILTERS_AT_ONCE = 8
"""In one SUBSCRIBE: AWS IoT takes no more."""
CONNECTED = "connected"


class Feed:
    """Reads a broker into a tree, within limits.

    Args: filters: what to subscribe to at first; clock: monotonic seconds.

    Attributes:
        state: of the connection, in words. filters: what is subscribed to now; fewer after a cap was hit.
        left_out: branches that were given up since, newest last. messages, payload_bytes: all that came.
    """

    def __init__(
        self, connector: Connector, tree: Tree, filters: tuple[str, ...], limits: Limits, clock: Callable[[], float]
    ) -> None:
        self.state = "connecting"
        self.filters = filters
        self.left_out: deque[LeftOut] = deque(maxlen=1_000)
        self.messages = 0
        self.payload_bytes = 0
        self._tree = tree
        self._limits = limits
        self._clock = clock
        self._connector = _Noting(connector, self._note)
        self._wants_system = any(one.startswith("$") for one in filters)
        self._meter = Meter(limits, clock())
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Hold the connection until cancelled. Raises: BrokerRefused, BrokerMisconfigured: trying again won't help."""
        link = Link(
            self._connector,
            _client_id(),
            on_message=self.on_message,
            on_up=self._hold,
            on_down=self._note,
            make_will=lambda _: None,
        )
        await link.run()

    async def listen(self, seconds: float, stop: asyncio.Event) -> None:
        """Connect and listen this long, or until `stop`.

        Raises: BrokerUnreachable, BrokerRefused, BrokerMisconfigured, SessionLost.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not stop.is_set():
            with suppress(_Narrowed):
                async with self._connector.connect(_client_id(), on_message=self.on_message) as session:
                    work = [
                        asyncio.create_task(stop.wait(), name="stop"),
                        asyncio.create_task(session.wait_closed(), name="session"),
                        asyncio.create_task(self._hold(session), name="tree"),
                    ]
                    await _first_of(work, end - loop.time())

    def on_message(self, message: Message) -> None:
        """Count one message, and ask for fewer of them where a cap is hit."""
        if message.topic.startswith("$") and not self._wants_system:
            return  # some brokers send them to `#`
        now = self._clock()
        self.messages += 1
        self.payload_bytes += len(message.payload)
        self._tree.record(message.topic, message.payload, now, retain=message.retain)
        if not self._meter.take(len(message.payload), now) or self._tree.is_full:
            self._over.set()

    async def _hold(self, session: Session, _birth: int = 1) -> None:
        """Subscribe, and end the session where a cap is hit: the next one begins with fewer filters.

        An UNSUBSCRIBE wouldn't do: a broker queues all that it has retained at the SUBSCRIBE, and goes on sending it.
        Mosquitto's SUBACK comes after all of that, so the cap is not waited for until then.
        """
        over = asyncio.create_task(self._over.wait(), name="tree cap")
        subscribing = asyncio.create_task(self._subscribe(session), name="tree subscribing")
        try:
            await asyncio.wait({over, subscribing}, return_when=asyncio.FIRST_COMPLETED)
            if subscribing.done():
                subscribing.result()
                self.state = CONNECTED
                await over
        finally:
            over.cancel()
            subscribing.cancel()
            await asyncio.gather(over, subscribing, return_exceptions=True)
        self._narrow()
        raise _Narrowed("a cap was hit: asking for fewer topics")

    async def _subscribe(self, session: Session) -> None:
        for start in range(0, len(self.filters), FILTERS_AT_ONCE):
            await session.subscribe(*self.filters[start : start + FILTERS_AT_ONCE], qos=0)

    def _narrow(self) -> None:
        now = self._clock()
        narrowing = narrow(self._tree, self.filters, self._limits, now)
        self.filters = narrowing.filters
        for one in narrowing.left_out:
            self.left_out.append(one)
            self._tree.leave_out(one.path, str(one.load), one.kept)
        self._tree.is_full = False
        self._meter.reset(now)
        self._over.clear()

    def _note(self, reason: str) -> None:
        self.state = reason


class _Narrowed(SessionLost):
    """This side ended the session. Leaving it so closes the connection without reading on to its end."""


class _Noting:
    """A connector that tells why there is no connection."""

    def __init__(self, connector: Connector, note: Callable[[str], None]) -> None:
        self._connector = connector
        self._note = note

    def connect(
        self, client_id: str, *, on_message: OnMessage, will: Will | None = None
    ) -> AbstractAsyncContextManager[Session]:
        return self._connect(client_id, on_message, will)

    @asynccontextmanager
    async def _connect(self, client_id: str, on_message: OnMessage, will: Will | None) -> AsyncIterator[Session]:
        try:
            async with self._connector.connect(client_id, on_message=on_message, will=will) as session:
                yield session
        except BrokerUnreachable as error:
            self._note(str(error))
            raise


async def _first_of(work: list[asyncio.Task[Any]], timeout_s: float | None = None) -> None:
    """Wait for the first one's end, raise what it raised, and end the others."""
    try:
        done, _ = await asyncio.wait(work, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _client_id() -> str:
    return f"headgate-tree-{secrets.token_hex(4)}"
