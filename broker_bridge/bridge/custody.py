"""What a bridge keeps on disk: transfers on their way up, receipts, the plan, and what it put on either broker.

One SQLite file, every change durable before the call returns (WAL, `synchronous FULL`), used by one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from uns_topics.envelope import Envelope
from uns_topics.rounds import Receipt
from uns_topics.transfers import TransferManifest

KEPT_RECEIPTS = 4096
"""Answers that are remembered over all participants: who asks again for an older one asks the aggregator."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    federation TEXT NOT NULL, participant TEXT NOT NULL, id TEXT NOT NULL,
    boot TEXT NOT NULL, sequence INTEGER NOT NULL, manifest TEXT NOT NULL, line TEXT NOT NULL,
    stored_at REAL NOT NULL, begun INTEGER NOT NULL DEFAULT 0, content BLOB NOT NULL,
    UNIQUE (federation, participant, id)
);
CREATE TABLE IF NOT EXISTS receipts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    federation TEXT NOT NULL, participant TEXT NOT NULL, id TEXT NOT NULL, receipt TEXT NOT NULL,
    UNIQUE (federation, participant, id)
);
CREATE TABLE IF NOT EXISTS plans (federation TEXT PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS mirrored (
    federation TEXT NOT NULL, name TEXT NOT NULL, manifest TEXT NOT NULL, content BLOB, PRIMARY KEY (federation, name)
);
CREATE TABLE IF NOT EXISTS retained (
    side TEXT NOT NULL, federation TEXT NOT NULL, participant TEXT NOT NULL, topic TEXT NOT NULL,
    PRIMARY KEY (side, topic)
);
"""


class CustodyError(Exception):
    """The file can't be opened or written; the text says why and what to do."""


class Gone(CustodyError):
    """The bytes of a transfer aren't kept any more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A whole transfer that waits for its receipt; its bytes stay on disk until it is sent."""

    position: int
    envelope: Envelope
    manifest: TransferManifest
    line: str
    """Of the export policy that allowed it."""
    stored_at: float
    """Wall-clock seconds."""
    begun: bool = False
    """Some of it may have left: nobody but the aggregator can say what became of it."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A transfer down whose chunks the bridge put, or is about to put, on the plant's broker."""

    manifest: TransferManifest
    content: bytes | None = field(repr=False)
    """None: superseded, its topics are being cleared."""

    @property
    def name(self) -> str:
        """Where its chunks stand: two versions may have the very same bytes on topics of their own."""
        return mirror_name(self.manifest)


def mirror_name(manifest: TransferManifest) -> str:
    """Kind, version and bytes of a transfer down."""
    return f"{manifest.kind}/{manifest.version}/{manifest.id}"


class Custody:
    """The bridge's store. Every method raises CustodyError where the disk fails; what was kept before stays kept."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise CustodyError(f"the bridge's store {path} can't be used: {error}") from None
        self._path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Cursor]:
        try:
            with self._db:
                yield self._db.cursor()
        except sqlite3.Error as error:
            raise CustodyError(
                f"the bridge's store {self._path} can't be written: {error}; is the disk full?"
            ) from None

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise CustodyError(f"the bridge's store {self._path} can't be read: {error}") from None

    # Transfers up -----------------------------------------------------------------------------------------------------

    def hold(self, participant: str, held: Held, content: bytes) -> Held:
        """Keep a whole transfer at the end of its participant's queue; returns it with its position."""
        envelope = held.envelope
        with self._change() as cursor:
            cursor.execute(
                "INSERT INTO transfers"
                " (federation, participant, id, boot, sequence, manifest, line, stored_at, content)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    envelope.federation, participant, held.manifest.id, envelope.boot, envelope.sequence,
                    held.manifest.model_dump_json(), held.line, held.stored_at, content,
                ),
            )  # fmt: skip
            position = cursor.lastrowid
        assert position is not None
        return Held(position, envelope, held.manifest, held.line, held.stored_at)

    def rechunk(self, position: int, envelope: Envelope, manifest: TransferManifest) -> None:
        """The same bytes are announced in other chunks."""
        with self._change() as cursor:
            cursor.execute(
                "UPDATE transfers SET manifest = ?, boot = ?, sequence = ? WHERE position = ?",
                (manifest.model_dump_json(), envelope.boot, envelope.sequence, position),
            )

    def begin(self, position: int) -> None:
        """The transfer is about to be sent."""
        with self._change() as cursor:
            cursor.execute("UPDATE transfers SET begun = 1 WHERE position = ?", (position,))

    def queue(self, federation: str, participant: str) -> list[Held]:
        """What a participant's queue holds, oldest first."""
        rows = self._rows(
            "SELECT position, boot, sequence, manifest, line, stored_at, begun FROM transfers"
            " WHERE federation = ? AND participant = ? ORDER BY position",
            federation,
            participant,
        )
        return [
            Held(
                int(str(position)),
                Envelope(federation, participant, str(boot), int(str(sequence))),
                TransferManifest.model_validate_json(str(manifest)),
                str(line),
                float(str(stored_at)),
                bool(begun),
            )
            for position, boot, sequence, manifest, line, stored_at, begun in rows
        ]

    def content(self, position: int) -> bytes:
        """The bytes of a held transfer. Raises: Gone; CustodyError."""
        rows = self._rows("SELECT content FROM transfers WHERE position = ?", position)
        if not rows:
            raise Gone(f"transfer at position {position} is gone from {self._path}")
        content = rows[0][0]
        assert isinstance(content, bytes)
        return content

    def settle(self, federation: str, participant: str, receipt: Receipt) -> None:
        """The transfer has its final answer: forget the bytes, remember the answer."""
        with self._change() as cursor:
            key = (federation, participant, receipt.id)
            cursor.execute("DELETE FROM transfers WHERE federation = ? AND participant = ? AND id = ?", key)
            cursor.execute(
                "INSERT OR REPLACE INTO receipts (federation, participant, id, receipt) VALUES (?, ?, ?, ?)",
                (*key, receipt.model_dump_json()),
            )
            cursor.execute(
                "DELETE FROM receipts WHERE position <= (SELECT MAX(position) FROM receipts) - ?", (KEPT_RECEIPTS,)
            )

    def receipts(self, federation: str, participant: str) -> list[Receipt]:
        """How a participant's transfers were answered, oldest first, as far back as they are kept."""
        rows = self._rows(
            "SELECT receipt FROM receipts WHERE federation = ? AND participant = ? ORDER BY position",
            federation,
            participant,
        )
        return [Receipt.model_validate_json(str(text)) for (text,) in rows]

    # Down -------------------------------------------------------------------------------------------------------------

    def keep_plan(self, federation: str, payload: bytes) -> None:
        """The federation's plan as it came."""
        with self._change() as cursor:
            cursor.execute("INSERT OR REPLACE INTO plans VALUES (?, ?)", (federation, payload))

    def plan(self, federation: str) -> bytes | None:
        """The last plan that was kept."""
        rows = self._rows("SELECT payload FROM plans WHERE federation = ?", federation)
        payload = rows[0][0] if rows else None
        assert payload is None or isinstance(payload, bytes)
        return payload

    def mirror(self, federation: str, mirrored: Mirrored) -> None:
        """Remember a transfer down; with content None it only stays known until its topics are cleared."""
        with self._change() as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO mirrored VALUES (?, ?, ?, ?)",
                (federation, mirrored.name, mirrored.manifest.model_dump_json(), mirrored.content),
            )

    def forget_mirrored(self, federation: str, name: str) -> None:
        """Its topics are cleared."""
        with self._change() as cursor:
            cursor.execute("DELETE FROM mirrored WHERE federation = ? AND name = ?", (federation, name))

    def mirrors(self, federation: str) -> list[Mirrored]:
        """Every transfer down that is known."""
        rows = self._rows("SELECT manifest, content FROM mirrored WHERE federation = ?", federation)
        found = []
        for manifest, content in rows:
            assert content is None or isinstance(content, bytes)
            found.append(Mirrored(TransferManifest.model_validate_json(str(manifest)), content))
        return found

    # Inventories ------------------------------------------------------------------------------------------------------

    def note(self, side: str, federation: str, participant: str, topic: str) -> None:
        """A retained topic that the bridge puts on the broker of this side (`plant` or `uplink`)."""
        with self._change() as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?)", (side, federation, participant, topic)
            )

    def strike(self, side: str, topic: str) -> None:
        """The topic was cleared."""
        with self._change() as cursor:
            cursor.execute("DELETE FROM retained WHERE side = ? AND topic = ?", (side, topic))

    def noted(self, side: str, federation: str, participant: str) -> set[str]:
        """The retained topics of this side that the bridge has put there for this participant ('' for all)."""
        rows = self._rows(
            "SELECT topic FROM retained WHERE side = ? AND federation = ? AND participant = ?",
            side,
            federation,
            participant,
        )
        return {str(topic) for (topic,) in rows}
