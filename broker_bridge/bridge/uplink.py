"""One participant's session with the next broker: its presence, its reports, its receipts; all through the one door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from broker_bridge.bridge.egress import Egress, NothingLeaves
from broker_bridge.bridge.ledger import Transfer
from broker_bridge.link import Link
from broker_bridge.publisher import Publisher
from broker_bridge.session import Connector, Message, PublishRefused, Session, SessionLost, Will
from broker_bridge.unusable import Unusable
from uns_topics.envelope import PayloadError
from uns_topics.payloads import Writer, read
from uns_topics.presence import BridgeStatus, Route, Want
from uns_topics.rounds import Receipt
from uns_topics.topics import OWN, FlTopic, Kind, TopicError

log = logging.getLogger("headgate.bridge")

LAST_WORD_S = 5.0
"""The most that saying `offline` may take."""


@dataclass(frozen=True)
class Hearers:
    """Who hears what the uplink session brings.

    Attributes:
        session: a new session is subscribed to what is this participant's own; None: it ended.
        open: whether anything may leave has changed.
        shared: a message of the federation, not of this participant alone.
        receipt: an answer to one of this participant's transfers.
        route: the bridges above, None where there are none.
        wants: what the next broker lacks, asked for each presence.
    """

    session: Callable[[Session | None], None]
    open: Callable[[bool], None]
    shared: Callable[[FlTopic, Message], None]
    receipt: Callable[[Receipt], None]
    route: Callable[[Route | None], None]
    wants: Callable[[], tuple[Want, ...]]


class Uplink:
    """Args: connector: opens sessions as this participant; writer: seals what the bridge says in its own name."""

    def __init__(
        self,
        federation: str,
        participant: str,
        bridge: str,
        connector: Connector,
        egress: Egress,
        writer: Writer,
        hearers: Hearers,
        *,
        with_presence: bool,
    ) -> None:
        self._federation = federation
        self._participant = participant
        self._bridge = bridge
        self._egress = egress
        self._writer = writer
        self._hearers = hearers
        self._with_presence = with_presence
        self._via = FlTopic(federation, Kind.VIA, participant, bridge=bridge)
        self.unusable = Unusable(log, "from above")
        """Messages for this participant alone that could not be read."""
        self._birth = 1
        self._will_bytes = 0
        self._session: Session | None = None
        self._plant_up = False
        self._paused = False
        self.is_open = False
        """Whether anything may leave: there is a session, and the plant has not paused the bridge."""
        self.reports = Publisher(self._leave_text, on_too_large=lambda _: None)
        """Retained topics of the participant on the next broker."""
        self._link = Link(
            connector,
            f"{participant}_{federation}_{bridge}",  # no slug has an underscore: no two are the same
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            make_will=self._make_will,
        )
        if with_presence:
            self.reports.put(str(self._via), lambda: self._writer.seal(self._presence()))

    @property
    def session(self) -> Session | None:
        """The live session."""
        return self._session

    @property
    def is_up(self) -> bool:
        """Whether the live session is subscribed and announced."""
        return self._session is not None and self._link.is_up

    async def run(self) -> None:
        """Hold the session until `close`. Raises: BrokerRefused, BrokerMisconfigured."""
        reports = asyncio.create_task(self.reports.run(), name=f"uplink {self._participant} reports")
        try:
            await self._link.run()
        finally:
            reports.cancel()
            await asyncio.gather(reports, return_exceptions=True)

    async def close(self) -> None:
        """Say that nothing passes any more, then leave."""
        self.set_paused(True)
        await self.say_offline()
        await self._link.close()

    def say_presence(self) -> None:
        """The heartbeat, and whenever what it says has changed."""
        self.reports.refresh([str(self._via)])

    def set_paused(self, paused: bool) -> None:
        """The plant's switches."""
        self._paused = paused
        self._shift()

    def set_plant(self, up: bool) -> None:
        """Whether the plant's broker is there: what isn't heard can't be vouched for."""
        if up != self._plant_up:
            self._plant_up = up
            self.say_presence()

    async def say_offline(self) -> None:
        """The one sign that leaves while the plant has paused the bridge: that nothing passes."""
        live = self._session
        if live is None or not self._with_presence:
            return
        text, payload = str(self._via), self._writer.seal(BridgeStatus(birth=self._birth, state="offline"))
        try:
            async with asyncio.timeout(LAST_WORD_S):
                await self._egress.leave(
                    self._via, payload, lambda: live.publish(text, payload, retain=True), presence=True
                )
        except (TimeoutError, SessionLost, PublishRefused) as error:
            log.info("that nothing passes couldn't be said: %s", str(error) or "no answer in time")

    async def leave(self, topic: FlTopic, payload: bytes, *, retain: bool, transfer: Transfer | None = None) -> None:
        """Let one message out. Raises: SessionLost, PublishRefused."""
        live = self._session
        if live is None:
            raise SessionLost("the uplink is away")
        text = str(topic)
        await self._egress.leave(topic, payload, lambda: live.publish(text, payload, retain=retain), transfer=transfer)

    # ------------------------------------------------------------------------------------------------------------------

    def _presence(self) -> BridgeStatus:
        online = self._plant_up and not self._paused
        return BridgeStatus(
            birth=self._birth, state="online" if online else "offline", wants=self._hearers.wants() if online else ()
        )

    async def _leave_text(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        assert qos == 1  # what a publisher owns always travels at QoS 1
        await self.leave(FlTopic.parse(topic), payload, retain=retain)

    async def _make_will(self, birth: int) -> Will | None:
        self._birth, self._will_bytes = birth, 0
        if not self._with_presence:
            return None
        payload = self._writer.seal(BridgeStatus(birth=birth, state="offline"))
        try:
            await self._egress.enter(self._via, payload)
        except (NothingLeaves, PublishRefused) as error:
            log.warning("%s connects without a will: %s", self._participant, error)
            return None
        self._will_bytes = len(payload)
        return Will(str(self._via), payload)

    async def _on_up(self, session: Session, birth: int) -> None:
        self._birth = birth
        if self._will_bytes:
            self._egress.spend(self._will_bytes)
        await session.subscribe(*(str(FlTopic(self._federation, kind, self._participant)) for kind in OWN))
        self._session = session
        log.info("%s in %s: the uplink is there", self._participant, self._federation)
        self._hearers.session(session)
        self._shift()
        if self._paused:
            await self.say_offline()

    def _on_down(self, reason: str) -> None:
        if self._session is not None:
            log.info("%s in %s: the uplink is away: %s", self._participant, self._federation, reason)
        self._session = None
        self._hearers.session(None)
        self._shift()

    def _shift(self) -> None:
        """Open or close the way out, as session and switches have it."""
        is_open = self._session is not None and not self._paused
        if is_open == self.is_open:
            return
        self.is_open = is_open
        if is_open:
            self.reports.on_up()
        else:
            self.reports.on_down()
        self._hearers.open(is_open)

    def _on_message(self, message: Message) -> None:
        try:
            topic = FlTopic.parse(message.topic)
            if topic.kind not in OWN or topic.participant != self._participant:
                self._hearers.shared(topic, message)
                return
            body = read(topic, message.payload)[1] if message.payload else None
        except (TopicError, PayloadError) as error:
            self.unusable.take(message.topic, error)
            return
        match body:
            case Receipt():
                self._hearers.receipt(body)
            case Route() if self._bridge in body.bridges:
                log.error("the bridges above name this one: they stand in a circle")
            case Route():
                self._hearers.route(body)
            case _ if topic.kind is Kind.ROUTE:
                self._hearers.route(None)
