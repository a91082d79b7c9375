"""The receiving side of transfers up: which are open, what is missing, what is whole. A pure core.

The answer to a first manifest is silence, because its chunks follow at once; a manifest that comes again asks what is
missing. Limits hold before anything is allocated: bytes by the plan, two open transfers per participant, ten minutes
without a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker_bridge.assembly import Assembly, IntegrityError
from uns_topics.codes import Code
from uns_topics.transfers import Chunk, TransferManifest

OPEN_PER_PARTICIPANT = 2
IDLE_S = 600.0
"""An open transfer without a chunk for this long is dropped."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Answer `missing` with these chunks."""

    participant: str
    id: str
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer `rejected` with this code."""

    participant: str
    id: str
    code: Code
    detail: str
    manifest: TransferManifest


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes are here, and they are the manifest's."""

    participant: str
    manifest: TransferManifest
    content: bytes = field(repr=False)


Answer = Missing | Refused | Whole


@dataclass
class _Open:
    assembly: Assembly
    touched: float


class Inbox:
    """Open transfers of all participants. Every call returns the answers that are due now."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.strays = 0
        """Chunks that belonged to no open transfer."""
        self._open: dict[tuple[str, str], _Open] = {}

    @property
    def open_transfers(self) -> int:
        """Transfers of which chunks are missing."""
        return len(self._open)

    def on_manifest(self, participant: str, manifest: TransferManifest, now: float) -> list[Answer]:
        """A manifest came: opens the transfer, or says what is missing where it is open already."""
        if manifest.bytes > self.max_bytes:
            detail = f"{manifest.bytes} bytes where the plan allows {self.max_bytes}"
            return [Refused(participant, manifest.id, Code.OVERSIZED, detail, manifest)]
        key = (participant, manifest.id)
        known = self._open.get(key)
        if known is not None and known.assembly.manifest.chunk_bytes == manifest.chunk_bytes:
            known.touched = now
            return [Missing(participant, manifest.id, known.assembly.missing)]
        mine = sorted((o.touched, k) for k, o in self._open.items() if k[0] == participant and k != key)
        for _, oldest in mine[: max(0, len(mine) - OPEN_PER_PARTICIPANT + 1)]:
            del self._open[oldest]  # superseded: its sender repeats the manifest if it still wants it
        assembly = Assembly(manifest)
        self._open[key] = _Open(assembly, now)
        if known is None:
            return []
        assembly.adopt(known.assembly)  # smaller chunks of the same bytes: what has arrived need not come again
        return [Missing(participant, manifest.id, assembly.missing)] if assembly.received else []

    def on_chunk(self, participant: str, chunk: Chunk, now: float) -> list[Answer]:
        """A chunk came; the last one makes the transfer whole."""
        entry = self._open.get((participant, chunk.id))
        if entry is None:
            self.strays += 1
            return []
        entry.touched = now
        try:
            entry.assembly.add(chunk)
            if not entry.assembly.is_whole:
                return []
            content = entry.assembly.content()
        except IntegrityError as error:
            return [Refused(participant, chunk.id, Code.INTEGRITY, str(error), entry.assembly.manifest)]
        del self._open[participant, chunk.id]
        return [Whole(participant, entry.assembly.manifest, content)]

    def forget(self, participant: str, transfer: str) -> None:
        """The transfer was answered: its chunks are no longer wanted."""
        self._open.pop((participant, transfer), None)

    def expire(self, now: float) -> int:
        """Drop what idled too long; returns how many."""
        idle = [key for key, entry in self._open.items() if now - entry.touched >= IDLE_S]
        for key in idle:
            del self._open[key]
        return len(idle)
