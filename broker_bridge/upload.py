"""The shell around one transfer up: performs what `Outgoing` decides, on the participant's fl session."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from broker_bridge.outgoing import Done, Effect, Lowered, Outgoing, Send
from broker_bridge.session import PublishRefused, SessionLost
from uns_topics.model import Value
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest, chunk_of, encode_chunk

log = logging.getLogger(__name__)

IN_FLIGHT = 8
"""Chunks published and not yet acknowledged at one time."""

PublishJson = Callable[[FlTopic, Value], Awaitable[None]]
PublishBytes = Callable[[FlTopic, bytes], Awaitable[None]]


class Upload:
    """Sends one transfer until its receipt. Receipts and connection changes are handed in; `result` waits for the end.

    Args:
        topic: a topic of this participant; its federation and participant are used.
        on_lowered: hears that chunks of this size don't pass.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        topic: FlTopic,
        publish_json: PublishJson,
        publish_bytes: PublishBytes,
        clock: Callable[[], float],
        rng: random.Random,
        on_lowered: Callable[[Lowered], None] = lambda _: None,
    ) -> None:
        self.outgoing = outgoing
        self._on_lowered = on_lowered
        self._topic = topic
        self._publish_json = publish_json
        self._publish_bytes = publish_bytes
        self._clock = clock
        self._rng = rng
        self._effects: asyncio.Queue[Effect | None] = asyncio.Queue()
        self._in_flight: set[int] = set()
        self._connected = True

    def on_receipt(self, receipt: Receipt) -> None:
        """A receipt on our topic."""
        self._put(self.outgoing.on_receipt(receipt, self._clock(), self._rng.random()))

    def on_connected(self) -> None:
        """A new session is up, or the receiver came back."""
        self._connected = True
        self._put(self.outgoing.on_connected(self._clock(), self._rng.random()))

    def on_lost(self) -> None:
        """The session was lost."""
        self._connected = False
        self._put(self.outgoing.on_lost(tuple(self._in_flight), self._clock(), self._rng.random()))
        self._in_flight.clear()

    def on_limit(self, chunk_bytes: int) -> None:
        """A bridge on the way takes no larger chunks."""
        self._put(self.outgoing.on_limit(chunk_bytes, self._clock(), self._rng.random()))

    def rechunk(self, manifest: TransferManifest) -> None:
        """Whoever may make manifests made one with other chunks of the same bytes."""
        self._put(self.outgoing.rechunk(manifest, self._clock(), self._rng.random()))

    def supersede(self) -> None:
        """A newer update took its place: send no more of this one."""
        self.outgoing.give_up()
        self._effects.put_nowait(None)

    async def result(self, *, ask_first: bool = False) -> Done | None:
        """Send, and return the end of the transfer; None where a newer one took its place.

        Args: ask_first: a part may have arrived already: the manifest alone asks which.
        """
        begin = self.outgoing.on_connected if ask_first else self.outgoing.start
        self._put(begin(self._clock(), self._rng.random()))
        while True:
            try:
                async with asyncio.timeout(max(0.0, self.outgoing.deadline - self._clock())):
                    effect = await self._effects.get()
            except TimeoutError:
                self._put(self.outgoing.on_time(self._clock(), self._rng.random()))
                continue
            if effect is None or isinstance(effect, Done):
                return effect
            if isinstance(effect, Lowered):
                if effect.new < effect.old:
                    log.warning("chunks lowered from %d to %d bytes: %s", effect.old, effect.new, effect.why)
                self._on_lowered(effect)
            elif self._connected:
                await self._send(effect)

    def _put(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._effects.put_nowait(effect)

    async def _send(self, effect: Send) -> None:
        t = self._topic
        manifest = effect.manifest
        window = asyncio.Semaphore(IN_FLIGHT)

        async def send_chunk(index: int) -> None:
            async with window:
                if not self._connected or self.outgoing.done or manifest is not self.outgoing.manifest:
                    return
                self._in_flight.add(index)
                chunk = chunk_of(self.outgoing.content, manifest, index)
                topic = FlTopic(t.federation, Kind.UPDATE_CHUNK, t.participant, transfer=manifest.id, index=index)
                try:
                    await self._publish_bytes(topic, encode_chunk(chunk))
                except PublishRefused:
                    self._in_flight.discard(index)
                    raise
                self._in_flight.discard(index)  # what a lost session leaves in flight stays until `on_lost` looked
                if manifest is self.outgoing.manifest:
                    self.outgoing.on_acknowledged(index)

        try:
            if effect.announce:
                topic = FlTopic(t.federation, Kind.UPDATE_MANIFEST, t.participant, transfer=manifest.id)
                await self._publish_json(topic, manifest)
            outcomes = await asyncio.gather(*(send_chunk(i) for i in effect.chunks), return_exceptions=True)
        except SessionLost:
            return  # the link reports the loss; the reconnect repeats the manifest
        except PublishRefused as error:
            log.warning("the broker refused the manifest of transfer %s: %s", manifest.id, error)
            return  # asked again when the answer is due
        for outcome in outcomes:
            if isinstance(outcome, PublishRefused):
                log.warning("the broker refused a chunk of transfer %s: %s", manifest.id, outcome)
            elif isinstance(outcome, BaseException) and not isinstance(outcome, SessionLost):
                raise outcome
