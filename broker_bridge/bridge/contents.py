"""What left, byte for byte: payloads by their SHA-256, so that they can be searched later. SQLite, bounded in size."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FILE = "contents.sqlite"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE contents (
    position INTEGER PRIMARY KEY AUTOINCREMENT, sha256 BLOB NOT NULL UNIQUE, day TEXT NOT NULL, content BLOB NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE INDEX contents_by_age ON contents (day, position, bytes);
CREATE TABLE dropped (one INTEGER PRIMARY KEY CHECK (one = 1), contents INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO dropped VALUES (1, 0, 0);
"""


class ContentsError(Exception):
    """The file can't be opened, read or written; the text says why."""


class ContentAltered(ContentsError):
    """What is stored under a SHA-256 has another one."""


@dataclass(frozen=True, slots=True)
class ContentCounts:
    """What is kept, and what had to make room or became too old."""

    contents: int
    bytes: int
    dropped: int
    dropped_bytes: int


class Contents:
    """The store. One writer; any number of readers may have the file open beside it."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._kept_bytes: int | None = None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """For writing; made where there is none. Raises: ContentsError."""
        path = folder / FILE
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # durable at each commit: what left must not be forgotten
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                db.close()
                raise ContentsError(f"{path} has schema {version}; this release reads schema {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise ContentsError(f"{path} can't be used: {error}") from None
        return cls(db, path)

    @classmethod
    def open_to_read(cls, folder: Path) -> Self | None:
        """For reading; None where no contents were ever kept. Raises: ContentsError."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            version = db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise ContentsError(f"{path} can't be read: {error}") from None
        if version != SCHEMA_VERSION:
            db.close()
            raise ContentsError(f"{path} has schema {version}; this release reads schema {SCHEMA_VERSION}")
        return cls(db, path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def keep(self, contents: Iterable[tuple[str, bytes]], day: str, max_bytes: int) -> None:
        """Store pairs of SHA-256 and content, durable when it returns; then drop the oldest ones above `max_bytes`.

        A content that leaves again counts as new, once a day. One that is larger than the whole bound is not stored.
        Raises: ContentsError: nothing of this call is stored.
        """
        pairs = {bytes.fromhex(sha256): content for sha256, content in contents if len(content) <= max_bytes}
        try:
            days = {digest: self._day_of(digest) for digest in pairs}
            if all(known is not None and known >= day for known in days.values()):
                return
            kept = self._count_bytes() if self._kept_bytes is None else self._kept_bytes
            self._kept_bytes = None  # until the transaction is through
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for digest, content in pairs.items():
                    if (known := days[digest]) is None:
                        self._db.execute(
                            "INSERT INTO contents (sha256, day, content, bytes) VALUES (?, ?, ?, ?)",
                            (digest, day, content, len(content)),
                        )
                        kept += len(content)
                    elif known < day:
                        self._db.execute("UPDATE contents SET day = ? WHERE sha256 = ?", (day, digest))
                kept -= self._make_room(kept - max_bytes)
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._kept_bytes = kept
        except sqlite3.Error as error:
            raise ContentsError(f"{self._path} can't be written: {error}") from None

    def drop_before(self, day: str) -> None:
        """Drop what last left before this day (`YYYY-MM-DD`, UTC). Raises: ContentsError."""
        self._kept_bytes = None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                count, size = self._db.execute(
                    "SELECT count(*), coalesce(sum(bytes), 0) FROM contents WHERE day < ?", (day,)
                ).fetchone()
                self._db.execute("DELETE FROM contents WHERE day < ?", (day,))
                self._count_dropped(count, size)
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except sqlite3.Error as error:
            raise ContentsError(f"{self._path} can't be written: {error}") from None

    def get(self, sha256: str) -> bytes | None:
        """A content; None where it is not kept. Raises: ContentAltered, ContentsError."""
        try:
            row = self._db.execute("SELECT content FROM contents WHERE sha256 = ?", (bytes.fromhex(sha256),)).fetchone()
        except sqlite3.Error as error:
            raise ContentsError(f"{self._path} can't be read: {error}") from None
        if row is None:
            return None
        content: bytes = row[0]
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ContentAltered(f"{self._path}: the content {sha256} was altered")
        return content

    def counts(self) -> ContentCounts:
        """How much is kept and how much was dropped. Raises: ContentsError."""
        try:
            kept = self._db.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM contents").fetchone()
            dropped = self._db.execute("SELECT contents, bytes FROM dropped").fetchone()
        except sqlite3.Error as error:
            raise ContentsError(f"{self._path} can't be read: {error}") from None
        return ContentCounts(*kept, *dropped)

    def _day_of(self, digest: bytes) -> str | None:
        row = self._db.execute("SELECT day FROM contents WHERE sha256 = ?", (digest,)).fetchone()
        return row[0] if row is not None else None

    def _count_bytes(self) -> int:
        return int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM contents").fetchone()[0])

    def _make_room(self, excess: int) -> int:
        """Drop the oldest until `excess` bytes are gone; returns the bytes dropped."""
        gone: list[tuple[int]] = []
        freed = 0
        if excess > 0:
            for position, size in self._db.execute("SELECT position, bytes FROM contents ORDER BY day, position"):
                gone.append((position,))
                freed += size
                if freed >= excess:
                    break
        if gone:
            self._db.executemany("DELETE FROM contents WHERE position = ?", gone)
            self._count_dropped(len(gone), freed)
        return freed

    def _count_dropped(self, contents: int, size: int) -> None:
        if contents:
            self._db.execute("UPDATE dropped SET contents = contents + ?, bytes = bytes + ?", (contents, size))

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # a full disk has SQLite roll back by itself
            self._db.execute("ROLLBACK")
