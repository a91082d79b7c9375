"""One session kept open: connect, announce, notice the loss, wait, connect again.

The order is that of Sparkplug B 3.0, chapter 5: the will in CONNECT, subscriptions, then the birth; a clean stop
publishes the death and then sends DISCONNECT.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from broker_bridge.backoff import delay
from broker_bridge.session import (
    BrokerUnreachable,
    Connector,
    Message,
    OnMessage,
    Session,
    SessionError,
    SessionLost,
    Will,
)

_LOG = logging.getLogger(__name__)

STABLE_S = 10.0
"""A session that lived this long ends a row of failures. Two clients that take over each other's id never get there, so
they back off instead of trading the id several times a second."""

LOST_ATTEMPT = 2
"""A session that was there and ended counts as no more than this many failures in a row, 2 s at most: on a link
that flaps, ever longer waits would mean that nothing gets across."""

DEATH_S = 2.0
"""The most that the messages of a clean stop may take together."""

Death = tuple[str, bytes, int, bool]
"""A message of a clean stop: topic, payload, QoS, retain."""


class Link:
    """Keeps one session with one broker open until it is closed or refused.

    Args:
        connector: opens sessions.
        client_id: the same for each session.
        on_message: called on the event loop's thread for each message of the live session, and for none of an older
            one after `on_down`.
        on_up: awaited in each new session with its birth number: subscribe, then publish the birth.
        on_down: called once after each `on_up` that was begun, with the reason in words.
        make_will: builds the will of the session with this birth number, at once or awaited; None for a session
            without one.
        rng: draws the backoff's jitter.
        sleep: waits between attempts.
        clock: monotonic seconds.

    A birth number is drawn for each attempt to connect, counted from 1. An attempt that this side gave up on may have
    reached the broker, which then publishes its will later: were the number used again, that will would be believed.
    """

    def __init__(
        self,
        connector: Connector,
        client_id: str,
        *,
        on_message: OnMessage,
        on_up: Callable[[Session, int], Awaitable[None]],
        on_down: Callable[[str], None],
        make_will: Callable[[int], Will | Awaitable[Will | None] | None],
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connector = connector
        self._client_id = client_id
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._make_will = make_will
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._sleep = sleep
        self._clock = clock
        self._birth = 0
        self._attempt = 0
        self._warned = False
        self._session: Session | None = None
        self._is_up = False
        self._closing = asyncio.Event()
        self._done = asyncio.Event()
        self._running = False

    @property
    def session(self) -> Session | None:
        """The live session, from just before `on_up` to just before `on_down`; None while there is none."""
        return self._session

    @property
    def is_up(self) -> bool:
        """Whether there is a session in which `on_up` is through: subscribed and announced."""
        return self._is_up

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish in the live session. Raises: SessionLost, also where there is none; PublishRefused."""
        session = self._session
        if session is None:
            raise SessionLost(f"not connected, so the message on {topic!r} wasn't sent")
        await session.publish(topic, payload, qos=qos, retain=retain)

    async def run(self) -> None:
        """Hold the link until `close`, which makes this return.

        Raises:
            BrokerRefused: credentials, or a subscription in `on_up`; trying again wouldn't help.
            BrokerMisconfigured: a file of the configuration can't be used.

            What `on_up` and `make_will` raise ends the link as well, SessionLost apart.
        """
        if self._closing.is_set():
            return
        self._running = True
        work = asyncio.create_task(self._work(), name=f"link {self._client_id}")
        closing = asyncio.create_task(self._closing.wait(), name=f"link {self._client_id} closing")
        try:
            await asyncio.wait({work, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            work.cancel()
            await asyncio.gather(work, closing, return_exceptions=True)
            self._done.set()
        if not work.cancelled():
            work.result()

    async def close(self, *death: Death) -> None:
        """Publish the death, send DISCONNECT, make `run` return and wait for that; the will isn't published.

        Args:
            death: what to say before leaving, in this order, within `DEATH_S`; dropped where there is no session.
                These are the last words: whoever else publishes from now on is told that there is no session.
        """
        session, self._session, self._is_up = self._session, None, False
        if session is not None:
            try:
                async with asyncio.timeout(DEATH_S):
                    for topic, payload, qos, retain in death:
                        await session.publish(topic, payload, qos=qos, retain=retain)
            except (TimeoutError, SessionError) as error:
                _LOG.warning("the last message couldn't be published: %s", str(error) or "no answer in time")
        self._closing.set()
        if self._running:
            await self._done.wait()

    async def _work(self) -> None:
        while True:
            self._birth += 1
            opened_at = self._clock()
            try:
                await self._one_session(self._birth)
            except (BrokerUnreachable, SessionLost) as error:
                if isinstance(error, SessionLost):
                    self._attempt = min(self._attempt, LOST_ATTEMPT)
                if not self._warned:
                    _LOG.warning("%s; waiting", error)
                    self._warned = True
            if self._clock() - opened_at >= STABLE_S:
                self._attempt = 0
            wait_s = delay(self._attempt, self._rng.random())
            self._attempt += 1
            await self._sleep(wait_s)

    async def _one_session(self, birth: int) -> None:
        """Live through one session. Raises: SessionLost with why it ended; what connecting raises."""
        live = True

        def hand_on(message: Message) -> None:
            if live:
                self._on_message(message)

        made = self._make_will(birth)
        will = await made if isinstance(made, Awaitable) else made
        async with self._connector.connect(self._client_id, on_message=hand_on, will=will) as session:
            self._session = session
            reason = "the link was closed"
            try:
                await self._live(session, birth)
            except Exception as error:
                reason = str(error)
                raise
            finally:
                live = False
                self._session = None
                self._is_up = False
                self._on_down(reason)

    async def _live(self, session: Session, birth: int) -> None:
        """Announce and wait for the end, whichever comes first: an `on_up` that hangs doesn't hide a loss."""
        lost = asyncio.create_task(session.wait_closed(), name=f"link {self._client_id} session")
        up = asyncio.ensure_future(self._on_up(session, birth))
        try:
            await asyncio.wait({lost, up}, return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                await up
                self._is_up = True
                if self._warned:
                    _LOG.info("connected again")
                    self._warned = False
            await lost
        finally:
            for task in (lost, up):
                task.cancel()
            await asyncio.gather(lost, up, return_exceptions=True)
