"""Store and forward: one participant's held transfers, sent one after the other, each until its answer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from broker_bridge.bridge.custody import Custody, CustodyError, Gone, Held
from broker_bridge.bridge.egress import Egress
from broker_bridge.bridge.inspection import Why
from broker_bridge.bridge.ledger import Transfer
from broker_bridge.bridge.uplink import Uplink
from broker_bridge.outgoing import Lowered, Outgoing
from broker_bridge.threads import on
from broker_bridge.upload import Upload
from uns_topics.envelope import seal
from uns_topics.model import Value
from uns_topics.rounds import Receipt
from uns_topics.topics import FlTopic, Kind

log = logging.getLogger("headgate.bridge")

RETRY_S = 5.0
"""A disk that fails is tried again after this."""
MANIFEST_BYTES = 48 * 1024
"""What a manifest takes at most, for the budget of a whole transfer."""


class Queue(Protocol):
    """The transfers that wait, and what becomes of them."""

    @property
    def queue(self) -> tuple[Held, ...]:
        """Oldest first."""

    @property
    def limit(self) -> int | None:
        """Larger chunks don't pass."""

    def lower(self, chunk_bytes: int) -> None:
        """Larger chunks than these don't pass, as was found out."""

    def give_up(self, held: Held, why: Why, detail: str) -> None:
        """It is not sent after all."""

    def begun(self, held: Held) -> None:
        """From now on some of it may have left."""

    def gone(self, held: Held) -> None:
        """The store has it no more."""

    def answered(self, receipt: Receipt) -> None:
        """The final answer came."""


class Delivery:
    """Args: max_age_s: older transfers are given up; disk: the thread of the store."""

    def __init__(
        self,
        federation: str,
        participant: str,
        queue: Queue,
        uplink: Uplink,
        custody: Custody,
        egress: Egress,
        disk: Executor,
        *,
        max_age_s: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._topic = FlTopic(federation, Kind.STATUS, participant)
        self._queue = queue
        self._uplink = uplink
        self._custody = custody
        self._egress = egress
        self._disk = disk
        self._max_age_s = max_age_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng
        self._upload: Upload | None = None
        self._transfer: Transfer | None = None
        self._changed = asyncio.Event()
        self.sending: Held | None = None
        """The transfer that is on its way now."""

    def look_again(self) -> None:
        """The queue, the uplink or the time has moved on."""
        self._changed.set()

    def on_open(self, is_open: bool) -> None:
        """Whether anything may leave."""
        if self._upload is not None:
            if is_open:
                self._upload.on_connected()
            else:
                self._upload.on_lost()
        self._changed.set()

    def on_limit(self, chunk_bytes: int) -> None:
        """The next broker announced a limit."""
        if self._upload is not None:
            self._upload.on_limit(chunk_bytes)

    def on_receipt(self, receipt: Receipt) -> bool:
        """An answer from above; whether it belongs to the transfer that is on its way."""
        upload = self._upload
        if upload is None or upload.outgoing.manifest.id != receipt.id:
            return False
        upload.on_receipt(receipt)
        return True

    def on_rechunked(self, held: Held) -> None:
        """The same bytes go by another manifest from now on."""
        if self._upload is not None and self.sending is not None and self.sending.position == held.position:
            self.sending = held
            self._upload.rechunk(held.manifest)
        self._changed.set()

    def on_settled(self, transfer: str) -> None:
        """A transfer has its final answer, whoever gave it."""
        if self._upload is not None and self._upload.outgoing.manifest.id == transfer:
            self._upload.supersede()
        self._changed.set()

    async def run(self) -> None:
        """Send what is held, until cancelled."""
        while True:
            held = self._next()
            if held is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                await self._send(held)
            except Gone:
                self._queue.gone(held)
            except CustodyError as error:
                log.error("%s", error)  # noqa: TRY400 - a sentence for people
                await asyncio.sleep(RETRY_S)
            finally:
                self._upload = self.sending = None
                self._transfer = None

    def _next(self) -> Held | None:
        """The oldest held transfer, if it may be sent now; those that waited too long are given up on the way."""
        limit = self._queue.limit
        for held in self._queue.queue:
            age_s = self._wall_clock() - held.stored_at
            if age_s > self._max_age_s and not held.begun:
                self._queue.give_up(held, Why.EXPIRED, f"it waited {age_s:.0f} s; its round is over")
                continue
            if self._uplink.is_open and (limit is None or held.manifest.chunk_bytes <= limit):
                return held  # what doesn't fit waits for smaller chunks, and holds nobody up
        return None

    async def _send(self, held: Held) -> None:
        manifest = held.manifest
        if not self._egress.lasts(manifest.bytes + MANIFEST_BYTES, 1 + len(manifest.chunks)):
            self._queue.give_up(held, Why.BUDGET, "today's budget doesn't last for it")
            return
        content = await on(self._disk, lambda: self._custody.content(held.position))
        self._transfer = Transfer(manifest.sha256, content)
        self.sending = held
        if not held.begun:
            await on(self._disk, lambda: self._custody.begin(held.position))
            self._queue.begun(held)
        upload = self._upload = Upload(
            Outgoing(content, manifest, own=False),
            self._topic,
            self._leave_manifest,
            self._leave_chunk,
            self._clock,
            self._rng,
            self._on_lowered,
        )
        if not self._uplink.is_open:
            upload.on_lost()
        # What has arrived above of a transfer that was under way before is asked for first.
        done = await upload.result(ask_first=held.begun)
        if done is not None:  # else it was settled otherwise
            self._queue.answered(Receipt(id=manifest.id, result=done.result, code=done.code))

    def _on_lowered(self, lowered: Lowered) -> None:
        """Chunks of this size don't pass: the participant hears it by its route and announces smaller ones."""
        if lowered.new < lowered.old:
            self._queue.lower(lowered.new)
            if self._upload is not None:
                self._upload.supersede()  # it comes again in smaller chunks; what is behind it may fit
        else:
            log.error("%s; raise it (Mosquitto: message_size_limit, max_packet_size); it is tried on", lowered.why)

    async def _leave_manifest(self, topic: FlTopic, body: Value) -> None:
        assert self.sending is not None
        await self._uplink.leave(topic, seal(self.sending.envelope, body), retain=False, transfer=self._transfer)

    async def _leave_chunk(self, topic: FlTopic, payload: bytes) -> None:
        await self._uplink.leave(topic, payload, retain=False, transfer=self._transfer)
