"""The Sparkplug session of an edge: a shell around `EdgeNode`. Its will is the node's NDEATH, so it is one of its own.

What the node says is queued in order and sent by a task of its own at QoS 0: a slow broker holds up no inference.
The number of the session (`bdSeq`) is on disk before it is used: a will that comes late is never taken for a later
session's, whatever ended the one before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress

from broker_bridge.link import Death, Link
from broker_bridge.session import Connector, Message, PublishRefused, Session, SessionLost, Will
from broker_bridge.settings import ConfigError
from broker_bridge.threads import on
from edge.config import EdgeConfig
from edge.outputs import Outputs, Prediction
from edge.signal_map import SignalMap
from edge.sparkplug_node import SEQUENCE, EdgeNode, Moment, Publication, death_of
from edge.store import SampleStore
from edge.variants import Served
from uns_topics.acl_files import overlap
from uns_topics.sparkplug import NAMESPACE

log = logging.getLogger("headgate.edge")

SESSION_KEY = "sparkplug-session"
MAX_QUEUED = 10_000
"""Messages that wait to be sent; beyond it they give way to births, which say all that still holds."""
WARN_EVERY_S = 30.0


class SparkplugSession:
    """One edge node's session with the plant's broker.

    Args:
        participant: its session's client id is this and `-spb`.
        store, executor: where the number of the last session is kept, and the thread that it is used from.
        wall_clock: seconds since the epoch. clock: monotonic seconds.
    """

    def __init__(
        self,
        connector: Connector,
        participant: str,
        node: EdgeNode,
        store: SampleStore,
        executor: Executor,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connector = connector
        self._client_id = f"{participant}-spb"
        self._node = node
        self._store = store
        self._executor = executor
        self._wall_clock = wall_clock
        self._clock = clock
        self._bdseq = _last_bdseq(store, node)
        self._queue: deque[Publication] = deque()
        self._sending = asyncio.Lock()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._told: set[str] = set()
        self._warned_s = float("-inf")
        self._link = self._new_link()

    @property
    def is_up(self) -> bool:
        """Whether the session is there and subscribed."""
        return self._link.is_up

    @property
    def is_born(self) -> bool:
        """Whether the node's births are said; not while it waits for its primary host."""
        return self._node.is_born

    async def run(self) -> None:
        """Hold the session until `close`. Raises: BrokerRefused, BrokerMisconfigured."""
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work(), name="sparkplug.work")
            while not self._is_closed:
                await self._link.run()  # returns where the session was left: closed, or the primary host is away
                if not self._is_closed:
                    self._link = self._new_link()
            work.cancel()

    async def close(self) -> None:
        """Say the death, then DISCONNECT."""
        self._is_closed = True
        await self._leave()

    def predicted(self, predictions: Sequence[Prediction]) -> None:
        """Say inference."""
        self._say(self._node.predicted(predictions, self._now()))
        for instance in self._node.refusals.keys() - self._told:
            self._told.add(instance)
            log.error("%s", self._node.refusals[instance])

    def stale(self, instance: str) -> None:
        """Say that an instance's inputs have stopped."""
        self._say(self._node.stale(instance, self._now()))

    def reads(self, outputs: Outputs) -> None:
        """Say inference by these from now on."""
        self._say(self._node.reads(outputs, self._now()))

    def serves(self, served: Served) -> None:
        """Say which model runs on the tags."""
        self._say(self._node.serves(served.version, served.variant, self._now()))

    def _new_link(self) -> Link:
        return Link(
            self._connector,
            self._client_id,
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=self._will,
        )

    async def _will(self, _birth: int) -> Will:
        self._bdseq = (self._bdseq + 1) % SEQUENCE
        config = self._node.config
        kept = json.dumps({"group": config.group, "node": config.node, "bdseq": self._bdseq}).encode()
        try:
            await on(self._executor, lambda: self._store.put(SESSION_KEY, kept))
        except sqlite3.Error as error:  # a full disk ends no inference
            self._warn("the number of the Sparkplug session can't be kept: %s", error)
        death = self._node.connecting(self._bdseq, self._now())
        return Will(death.topic, death.payload, death.qos, retain=False)

    async def _on_up(self, session: Session, _birth: int) -> None:
        await session.subscribe(*self._node.filters)
        self._say(self._node.connected(self._now()))
        if self._node.host is not None and not self._node.is_born:
            log.info("Sparkplug waits for its primary host %s", self._node.host.host)
        await self._send(session)

    def _on_down(self, reason: str) -> None:
        self._node.disconnected()
        self._queue.clear()
        if not self._is_closed:
            log.info("the Sparkplug session has ended: %s", reason)

    def _on_message(self, message: Message) -> None:
        self._say(self._node.hear(message.topic, message.payload, retain=message.retain, now=self._now()))
        if self._node.must_leave:
            self._wake.set()

    def _say(self, publications: list[Publication]) -> None:
        self._queue.extend(publications)
        if len(self._queue) > MAX_QUEUED:
            self._queue.clear()
            self._queue.extend(self._node.rebirth(self._now()))
            self._warn("more than %d Sparkplug messages waited to be sent: births take their place", MAX_QUEUED)
        self._wake.set()

    async def _work(self) -> None:
        """Send what is queued, and do what time brings."""
        while True:
            due_s = self._node.due_s
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self._clock())):
                    await self._wake.wait()
            self._wake.clear()
            if self._node.must_leave:
                log.info("the primary host %s is offline: Sparkplug waits for it", self._node.config.primary_host)
                await self._leave()
                continue
            self._queue.extend(self._node.tick(self._now()))
            session = self._link.session
            if session is not None:
                with suppress(SessionLost):  # the next session's births say it all
                    await self._send(session)

    async def _send(self, session: Session) -> None:
        async with self._sending:  # `seq` is in the order of the queue
            while self._queue and session is self._link.session:
                publication = self._queue.popleft()
                try:
                    await session.publish(publication.topic, publication.payload, qos=publication.qos)
                except PublishRefused as error:  # readers find the gap in `seq`, and ask for births
                    self._warn("%s", error)

    async def _leave(self) -> None:
        self._queue.clear()
        self._node.disconnected()  # nothing is said after the death
        await self._link.close(_unretained(self._node.death(self._now())))

    def _now(self) -> Moment:
        return Moment(round(self._wall_clock() * 1000), self._clock())

    def _warn(self, text: str, *arguments: object) -> None:
        now_s = self._clock()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            log.warning(text, *arguments)


def farewell(store: SampleStore, wall_clock: Callable[[], float] = time.time) -> Death | None:
    """The NDEATH of the node's last session, for an edge that is gone for good; None where there never was one."""
    kept = store.get(SESSION_KEY)
    if kept is None:
        return None
    session = json.loads(kept)
    return _unretained(death_of(session["group"], session["node"], session["bdseq"], round(wall_clock() * 1000)))


def make_session(
    config: EdgeConfig,
    outputs: Outputs,
    connector: Connector,
    store: SampleStore,
    executor: Executor,
) -> SparkplugSession | None:
    """The session that an edge's configuration asks for; None too where its metrics can't be told apart."""
    if config.inference.sparkplug is None:
        return None
    names = {spec.name.casefold() for spec in outputs.specs}
    if len(names) < len(outputs.specs):  # tck-id-case-sensitivity-metric-names
        log.error("no Sparkplug node: the output %s is named like another leaf but for its case", outputs.output)
        return None
    properties = {"Federation": config.federation, "Participant": config.participant, "Software": "Headgate"}
    node = EdgeNode(config.inference.sparkplug, outputs, properties)
    return SparkplugSession(connector, config.participant, node, store, executor)


def refuse_own_node(config: EdgeConfig, signal_map: SignalMap) -> None:
    """An edge that reads its own node asks itself for births. Raises: ConfigError."""
    sparkplug = config.inference.sparkplug
    if sparkplug is None:
        return
    own = f"{NAMESPACE}/{sparkplug.group}/+/{sparkplug.node}/#"
    for source in signal_map.sources:
        if any(overlap(topic_filter, own) for topic_filter in source.filters):
            raise ConfigError(
                f"{config.signal_map}: the source {source.topic} covers this edge's own Sparkplug node, group "
                f"{sparkplug.group!r} and node {sparkplug.node!r}; give inference.sparkplug another group or node"
            )


def _unretained(publication: Publication) -> Death:
    return publication.topic, publication.payload, publication.qos, False


def _last_bdseq(store: SampleStore, node: EdgeNode) -> int:
    """Of the last session of this very node; the first one's is 0."""
    kept = store.get(SESSION_KEY)
    session = json.loads(kept) if kept is not None else {}
    if (session.get("group"), session.get("node")) != (node.config.group, node.config.node):
        return -1
    return int(session["bdseq"])
