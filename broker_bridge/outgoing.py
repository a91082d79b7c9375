"""The sending side of a transfer up, from its manifest to its receipt. A pure core: time and randomness are passed in.

Bytes go twice only if they were lost: with no answer the manifest alone is repeated, and the receiver says what it
lacks. A PUBACK is no durability, a receipt is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from uns_topics.codes import Code
from uns_topics.rounds import Receipt
from uns_topics.transfers import MIN_CHUNK_BYTES, TransferManifest, make_manifest

FIRST_REPEAT_S = 5.0
MAX_REPEAT_S = 300.0


@dataclass(frozen=True, slots=True)
class Send:
    """Publish the manifest, then these chunks of it; without `announce` the chunks alone.

    A manifest that comes again is a question: sent before chunks that were asked for, its answer would ask for them
    once more.
    """

    manifest: TransferManifest
    chunks: tuple[int, ...] = ()
    announce: bool = True


@dataclass(frozen=True, slots=True)
class Lowered:
    """The broker seems to swallow chunks of the old size: warn people with the limit that shows.

    `new` equals `old` where no smaller chunk is left to try.
    """

    old: int
    new: int
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """The receipt that ends it, or the broker's limit where no chunk size gets through (`code` is OVERSIZED)."""

    result: Literal["accepted", "rejected"]
    code: Code | None
    detail: str = ""


Effect = Send | Lowered | Done


@dataclass
class Outgoing:
    """One transfer up. Call the `on_...` methods and perform what they return; `deadline` is when to call `on_time`.

    `own`: the manifest is ours to make anew with smaller chunks. One that forwards somebody else's manifest only says
    that they are too large (`Lowered`), sends nothing more, and goes on with `rechunk`.
    """

    content: bytes = field(repr=False)
    manifest: TransferManifest
    own: bool = True
    deadline: float = 0.0
    stuck: bool = False
    """Another manifest is waited for: chunks of this size don't pass."""
    done: bool = False
    _asked: bool = False
    """A manifest went out alone since chunks were sent last: without a question a `missing` is an old one, repeated."""
    _proven_bytes: int = 0
    _repeats: int = 0
    _all_missing: int = 0
    _in_flight_at_loss: Counter[int] = field(default_factory=Counter)

    def start(self, now: float, unit_random: float) -> list[Effect]:
        """Manifest and all chunks, no waiting in between."""
        self._asked = False
        self._wait(now, unit_random)
        return [Send(self.manifest, tuple(range(len(self.manifest.chunks))))]

    def on_connected(self, now: float, unit_random: float) -> list[Effect]:
        """After a reconnect, of either side: ask what the receiver has."""
        self._repeats = 0
        return self._repeat(now, unit_random)

    def on_time(self, now: float, unit_random: float) -> list[Effect]:
        """The deadline passed without an answer."""
        return self._repeat(now, unit_random) if now >= self.deadline else []

    def on_acknowledged(self, index: int) -> None:
        """The broker took this chunk: chunks of its size are not what ends the connection."""
        self._proven_bytes = max(self._proven_bytes, self.manifest.chunk_size(index))

    def on_lost(self, in_flight: Collection[int], now: float, unit_random: float) -> list[Effect]:
        """The connection was lost with these chunks unacknowledged: twice the same one means that it is too large.

        Not where the broker took one of that size before: then it is the link that flaps.
        """
        if self.manifest.chunk_bytes <= self._proven_bytes:
            return []
        self._in_flight_at_loss.update(in_flight)
        if any(self._in_flight_at_loss[i] >= 2 for i in in_flight):
            effects = self._lower(now, unit_random, "the connection ended twice with the same chunk in flight")
            # Other chunks may have arrived: ask for what is missing instead of sending all of them again.
            return [self._question() if isinstance(e, Send) else e for e in effects]
        return []

    def on_limit(self, chunk_bytes: int, now: float, unit_random: float) -> list[Effect]:
        """Somebody on the way said that larger chunks don't pass."""
        if self.done or self.manifest.chunk_bytes <= chunk_bytes:
            return []
        return self._lower(now, unit_random, "a bridge on the way named its limit", chunk_bytes)

    def rechunk(self, manifest: TransferManifest, now: float, unit_random: float) -> list[Effect]:
        """The same bytes under a manifest of other chunks, from whoever may make one: asks what has arrived already."""
        self.manifest, self.stuck = manifest, False
        self._all_missing = self._repeats = 0
        self._in_flight_at_loss.clear()
        self._wait(now, unit_random)
        return [self._question()]

    def give_up(self) -> None:
        """Nobody waits for it any more: a newer update took its place."""
        self.done = True

    def on_receipt(self, receipt: Receipt, now: float, unit_random: float) -> list[Effect]:
        """The receiver's answer."""
        if self.done or receipt.id != self.manifest.id:
            return []
        if receipt.result != "missing":
            self.done = True
            return [Done(receipt.result, receipt.code)]
        if self.stuck or not self._asked:
            return []
        self._asked = False
        chunks = tuple(i for i in receipt.chunks if i < len(self.manifest.chunks))
        self._wait(now, unit_random)
        if len(chunks) == len(self.manifest.chunks):
            self._all_missing += 1
            if self._all_missing >= 2:
                return self._lower(now, unit_random, "no chunk arrived twice in a row")
        else:
            self._all_missing = 0
        return [Send(self.manifest, chunks, announce=False)] if chunks else []

    def _repeat(self, now: float, unit_random: float) -> list[Effect]:
        self._repeats += 1
        self._wait(now, unit_random)
        return [] if self.done or self.stuck else [self._question()]

    def _question(self) -> Send:
        """The manifest alone: what is missing?"""
        self._asked = True
        return Send(self.manifest)

    def _wait(self, now: float, unit_random: float) -> None:
        full = min(MAX_REPEAT_S, FIRST_REPEAT_S * 2**self._repeats)
        self.deadline = now + full * (0.75 + 0.5 * unit_random)

    def _lower(self, now: float, unit_random: float, why: str, size: int | None = None) -> list[Effect]:
        old, m = self.manifest.chunk_bytes, self.manifest
        new = max(old // 2, MIN_CHUNK_BYTES) if size is None else size
        if new >= old or new < MIN_CHUNK_BYTES:
            detail = f"{why} at {old} bytes a chunk: the broker's message limit is below {MIN_CHUNK_BYTES} bytes"
            self._all_missing = 0
            self._in_flight_at_loss.clear()
            if not self.own:  # its sender's to end, not ours: people hear of it, and it is tried on
                return [Lowered(old, old, detail)]
            self.done = True
            return [Done("rejected", Code.OVERSIZED, detail)]
        if not self.own:
            self.stuck = True
            return [Lowered(old, new, why)]
        self.manifest = make_manifest(
            self.content, m.kind, new, base=m.base, round_number=m.round_number, attempt=m.attempt, version=m.version
        )
        self._all_missing = 0
        self._in_flight_at_loss.clear()
        return [Lowered(old, new, why), *self.start(now, unit_random)]
