"""The file of the sample store: SQLite, one file, one writer, and small things by name beside the samples.

It is opened, checked and locked here, and set aside whole where another one takes its place; what a sample is, only
`edge.store` knows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from broker_bridge.durable import sync_folder
from edge.store_lock import StoreLock, StoreLocked

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE kv (name TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, watermark_s REAL NOT NULL);
CREATE TABLE groups (id INTEGER PRIMARY KEY, instance INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (instance, name));
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, instance INTEGER NOT NULL, grp INTEGER NOT NULL, start_s REAL NOT NULL,
    UNIQUE (instance, grp, start_s)
);
CREATE TABLE rows (
    segment INTEGER NOT NULL, step INTEGER NOT NULL, features BLOB NOT NULL, PRIMARY KEY (segment, step)
) WITHOUT ROWID;
CREATE TABLE samples (
    id INTEGER PRIMARY KEY, instance INTEGER NOT NULL, key TEXT NOT NULL, time_s REAL NOT NULL, arrival_s REAL NOT NULL,
    grp INTEGER NOT NULL, said INTEGER NOT NULL, context INTEGER NOT NULL, matures_s REAL,
    segment INTEGER, start INTEGER, stop INTEGER, features BLOB, label REAL,
    UNIQUE (instance, key)
);
CREATE INDEX samples_segment ON samples (segment, stop) WHERE segment IS NOT NULL;
CREATE INDEX samples_labelled ON samples (instance, matures_s) WHERE label IS NOT NULL;
CREATE INDEX samples_unlabelled ON samples (instance) WHERE matures_s IS NULL;
CREATE INDEX samples_time ON samples (time_s);
CREATE TABLE labels (
    instance INTEGER NOT NULL, key TEXT NOT NULL, value REAL NOT NULL, source TEXT NOT NULL,
    precedence INTEGER NOT NULL, revision INTEGER NOT NULL, time_s REAL NOT NULL, PRIMARY KEY (instance, key)
) WITHOUT ROWID;
CREATE INDEX labels_time ON labels (time_s);
CREATE TABLE predictions (
    sample INTEGER NOT NULL, version INTEGER NOT NULL, value REAL NOT NULL, time_s REAL NOT NULL,
    PRIMARY KEY (sample, version)
) WITHOUT ROWID;
CREATE VIEW matured AS SELECT s.* FROM samples s JOIN instances i ON i.id = s.instance
    WHERE s.matures_s IS NULL OR (s.label IS NOT NULL AND s.matures_s <= i.watermark_s);
"""


class StoreError(Exception):
    """A file that is no sample store of ours, or one whose samples were made under another contract."""


class StoreBusy(StoreError):
    """Another process has the store: an edge that runs, or a backfill."""


class StoreFile:
    """An open file. Calls from several threads wait for each other.

    Args: path: made where there is none.

    Raises:
        StoreError: no sample store, or one of a later release. StoreBusy: another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        """What takes its place while samples are set aside."""
        self._lock = threading.RLock()
        try:
            self._file_lock = StoreLock(path)
        except StoreLocked:
            raise StoreBusy(f"{path} is in use: its edge runs, or a backfill does; stop that first") from None
        try:
            self._take_next()
            self._db = self._open(path)
        except BaseException:
            self._file_lock.release()
            raise

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last moments, never the file
            db.execute("PRAGMA cache_size = -32000")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise StoreError(f"{path}: schema {version}; this release reads schema {SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            db.close()
            raise StoreError(f"{path}: {error}") from error
        except StoreError:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file; what was added is in it."""
        with self._lock:
            self._db.close()
            self._file_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Small things that must survive a restart -------------------------------------------------------------------------

    def get(self, name: str) -> bytes | None:
        """What `put` kept under a name."""
        with self._lock:
            found = self._db.execute("SELECT content FROM kv WHERE name = ?", (name,)).fetchone()
        return bytes(found[0]) if found is not None else None

    def named(self, prefix: str) -> dict[str, bytes]:
        """All that `put` kept under names with this prefix, by the rest of the name."""
        with self._lock:
            found = self._db.execute(
                "SELECT substr(name, ?), content FROM kv WHERE substr(name, 1, ?) = ?",
                (len(prefix) + 1, len(prefix), prefix),
            ).fetchall()
        return {name: bytes(content) for name, content in found}

    def put(self, name: str, content: bytes) -> None:
        """Keep bytes under a name."""
        with self._lock:
            self._put(name, content)

    def put_all(self, changes: Mapping[str, bytes | None]) -> None:
        """Keep several at once, or none of them; None forgets a name."""
        with self._transaction():
            for name, content in changes.items():
                if content is None:
                    self._db.execute("DELETE FROM kv WHERE name = ?", (name,))
                else:
                    self._put(name, content)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is written within, or nothing of it."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise

    def _put(self, name: str, content: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (name, content))

    # Setting aside ----------------------------------------------------------------------------------------------------

    def _set_aside(self, name: str) -> Path:
        """The next file is whole before this one gives way to it: what fails, or ends the process, loses nothing."""
        kept = self._db.execute("SELECT name, content FROM kv WHERE name NOT LIKE '\\_%' ESCAPE '\\'").fetchall()
        aside = _free_name(self._path.with_name(f"{self._path.stem}-{name}{self._path.suffix}"))
        self._make_next(kept)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        try:
            if self._path.with_name(f"{self._path.name}-wal").exists():  # else it would be taken for the next file's
                raise StoreError(f"{self._path}: another program reads it, so its samples can't be set aside now")
            self._path.replace(aside)
            self._take_next()
        finally:
            self._db = self._open(self._path)
        return aside

    def _make_next(self, kept: list[tuple[str, bytes]]) -> None:
        for suffix in ("", "-wal", "-shm"):  # of one that was not finished
            self._next.with_name(f"{self._next.name}{suffix}").unlink(missing_ok=True)
        db = self._open(self._next)
        try:
            db.execute("BEGIN")
            db.executemany("INSERT INTO kv VALUES (?, ?)", kept)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # on disk before it gets its name
        finally:
            db.close()

    def _take_next(self) -> None:
        """Where the file was set aside, the next one takes its name; also after a kill between the two."""
        if self._next.exists() and not self._path.exists():
            self._next.replace(self._path)
            sync_folder(self._path.parent)


def _free_name(path: Path) -> Path:
    """This one, or the first of `-2`, `-3` and so on that is not there."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
