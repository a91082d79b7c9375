"""The sample store: what one edge keeps of its plant. SQLite, one file, one writer.

Samples, their labels and what the models said of them lie side by side; rows that overlapping windows share lie once.
The store decides which word on a label stands and when a sample has matured: it is the only place that knows all.
Nothing in here ever leaves the plant.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from broker_bridge.durable import sync_folder
from edge.dataset import Dataset
from edge.effects import Effect, LabelSet, RunEnded, SampleReady
from edge.labels import LabelRecord, is_timely, remaining_steps, revised
from edge.splits import NO_GROUP, SAID, split
from edge.store_lock import StoreLock, StoreLocked
from uns_topics.contract import ClassLabel, Contract, DeclaredContext

log = logging.getLogger("headgate.edge")

SCHEMA_VERSION = 1
CACHED_IDS = 10_000
RECENT_SAMPLES = 1_000
"""Whose labels are looked for."""
MIN_DUE = 20
"""Samples that should have a label, below which nothing is said of the others."""

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


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """What a version said of a sample; it meets the label later. `version` 0 is a model of this plant alone."""

    instance: str
    key: str
    time_s: float
    version: int
    value: float


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """`new`: matured since the mark, or ever without one."""

    samples: int
    matured: int
    new: int


@dataclass(frozen=True)
class PredictionRows:
    """Predictions that have met their label, in time order; all arrays of shape (n,).

    Attributes: labels: class index or remaining steps (uncapped); NaN where the contract has no label.
    """

    times: npt.NDArray[np.float64]
    instances: npt.NDArray[np.int64]
    versions: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]


class SampleStore:
    """One edge's samples. Each `add` is one transaction; calls from several threads wait for each other.

    Args:
        path: the SQLite file, made where there is none.
        max_samples: beyond it the oldest samples by event time are dropped, with their labels, rows and predictions;
            what is older than the newest that was dropped is not taken any more.

    Raises:
        StoreError: no sample store, or one of a later release. StoreBusy: another process has it.
    """

    def __init__(self, path: Path, *, max_samples: int = 1_000_000) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        """What takes its place while samples are set aside."""
        self._max_samples = max_samples
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
        self._instances: dict[str, int] = {}
        self._groups: dict[tuple[int, str], int] = {}
        self._segments: dict[tuple[int, int, float], int] = {}
        self._matured_at_dataset = 0
        self.added = 0
        """Samples that were new since it was opened."""
        self._load()

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

    def _load(self) -> None:
        self._instances = {path: id_ for id_, path in self._db.execute("SELECT id, path FROM instances")}
        self._groups.clear()
        self._segments.clear()
        self._samples = int(self._db.execute("SELECT count(*) FROM samples").fetchone()[0])
        self._labels = int(self._db.execute("SELECT count(*) FROM labels").fetchone()[0])
        self._dropped_until_s = float(self.get("_dropped-until") or "-inf")

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
        with self._lock:
            self._db.execute("BEGIN")
            try:
                for name, content in changes.items():
                    if content is None:
                        self._db.execute("DELETE FROM kv WHERE name = ?", (name,))
                    else:
                        self._put(name, content)
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # a full disk has ended it already
            self._db.execute("ROLLBACK")

    def _put(self, name: str, content: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (name, content))

    def use(self, contract: Contract) -> Path | None:
        """Say which contract samples are made under, before the first one is added.

        Where the file holds samples of a contract with other features, labels or sample rule, they can't be trained on
        any more: the file is kept under another name and a new one begins. Small things (`put`) stay.

        Returns: where the old samples lie now; None where nothing had to be set aside.
        """
        with self._lock:
            known, now = self.get("_samples-of"), _shape_of(contract).encode()
            aside = None
            if known is not None and known != now and self._samples:
                aside = self._set_aside(known.decode()[:8])
                log.warning("the contract's features, label or sample rule changed; older samples lie in %s", aside)
            self._put("_samples-of", now)
            return aside

    def is_of(self, contract: Contract) -> bool:
        """Whether samples made under this contract can be added and read."""
        known = self.get("_samples-of")
        return known is not None and known == _shape_of(contract).encode()

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
        self._matured_at_dataset = 0
        self._load()
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

    # Writing ----------------------------------------------------------------------------------------------------------

    def add(
        self,
        effects: Iterable[Effect],
        predictions: Sequence[StoredPrediction] = (),
        kept: Mapping[str, bytes] | None = None,
    ) -> None:
        """Store a batch in one transaction: samples, then labels, ends of runs, predictions; problems are no samples.

        What is there already (a message that came again after a restart) changes nothing.

        Args: kept: what to `put` with it.
        """
        batch = list(effects)
        with self._lock:
            self._db.execute("BEGIN")
            try:
                self._add_samples([e for e in batch if isinstance(e, SampleReady)])
                for effect in batch:
                    if isinstance(effect, LabelSet):
                        self._add_label(effect)
                    elif isinstance(effect, RunEnded):
                        self._end_run(effect)
                self._add_predictions(predictions)
                for name, content in (kept or {}).items():
                    self._put(name, content)
                self._drop_oldest()
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                self._load()
                raise

    def _add_samples(self, samples: list[SampleReady]) -> None:
        samples = [s for s in samples if s.time_s > self._dropped_until_s]
        if not samples:
            return
        before = self._db.execute("SELECT coalesce(max(id), 0) FROM samples").fetchone()[0]
        rows: list[tuple[int, int, bytes]] = []
        records = []
        watermarks: dict[int, float] = {}
        for s in samples:
            instance = self._instance_id(s.instance)
            group = self._group_id(instance, s.group)
            watermarks[instance] = max(s.time_s, watermarks.get(instance, s.time_s))
            segment = start = stop = blob = None
            if s.rows is None or s.segment_s is None:
                blob = s.values.tobytes()
            else:
                segment = self._segment_id(instance, group, s.segment_s)
                stop = s.step + 1
                start = max(0, stop - len(s.values))
                first = stop - len(s.rows)
                rows += [(segment, first + i, row.tobytes()) for i, row in enumerate(s.rows)]
            event = (instance, s.key, s.time_s, s.arrival_s, group, SAID[s.split], s.context, s.matures_s)
            records.append((*event, segment, start, stop, blob))
        self._db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", rows)
        added = self._db.executemany(
            "INSERT OR IGNORE INTO samples (instance, key, time_s, arrival_s, grp, said, context, matures_s, segment,"
            " start, stop, features) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            records,
        )
        self._samples += added.rowcount
        self.added += added.rowcount
        self._db.execute(  # labels that came before their sample
            "UPDATE samples SET label = l.value FROM labels l WHERE samples.id > ? AND l.instance = samples.instance"
            " AND l.key = samples.key AND l.time_s <= samples.matures_s",
            (before,),
        )
        for instance, time_s in watermarks.items():
            self._advance(instance, time_s)

    def _advance(self, instance: int, time_s: float) -> None:
        self._db.execute(
            "UPDATE instances SET watermark_s = ? WHERE id = ? AND watermark_s < ?", (time_s, instance, time_s)
        )

    def _add_label(self, said: LabelSet) -> None:
        instance = self._instance_id(said.instance)
        self._advance(instance, said.time_s)
        sample = self._db.execute(
            "SELECT time_s FROM samples WHERE instance = ? AND key = ?", (instance, said.key)
        ).fetchone()
        if sample is not None and not is_timely(sample[0], said.time_s, said.matures_after_s):
            return
        if sample is None and said.time_s <= self._dropped_until_s:
            return
        found = self._db.execute(
            "SELECT value, source, precedence, revision, time_s FROM labels WHERE instance = ? AND key = ?",
            (instance, said.key),
        ).fetchone()
        known = LabelRecord(*found) if found is not None else None
        record = revised(known, said.value, said.source, said.precedence, said.time_s)
        if record is None:
            return
        self._db.execute(
            "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?)",
            (instance, said.key, record.value, record.source, record.precedence, record.revision, record.time_s),
        )
        self._labels += known is None
        if sample is not None:
            self._db.execute(
                "UPDATE samples SET label = ? WHERE instance = ? AND key = ?", (record.value, instance, said.key)
            )

    def _end_run(self, end: RunEnded) -> None:
        """Label the run's samples with the steps that were left."""
        instance = self._instance_id(end.instance)
        group = self._group_id(instance, end.group)
        found = self._db.execute(
            "SELECT id, time_s FROM samples WHERE label IS NULL AND time_s <= ? AND segment IN"
            " (SELECT id FROM segments WHERE instance = ? AND grp = ?)",
            (end.time_s, instance, group),
        ).fetchall()
        times = np.array([time_s for _, time_s in found], np.float64)
        steps = remaining_steps(times, end.time_s, end.remaining, end.period_s).tolist()
        self._db.executemany(
            "UPDATE samples SET label = ? WHERE id = ?",
            [(left, sample) for left, (sample, _) in zip(steps, found, strict=True)],
        )

    def _add_predictions(self, predictions: Sequence[StoredPrediction]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO predictions SELECT id, ?, ?, ? FROM samples WHERE instance = ? AND key = ?",
            [(p.version, p.value, p.time_s, self._instance_id(p.instance), p.key) for p in predictions],
        )

    def _drop_oldest(self) -> None:
        """Keep the limits; a hundredth goes at once, so that not every batch has to."""
        excess = self._samples - self._max_samples
        if excess > 0:
            self._drop_samples(excess + self._max_samples // 100)
        excess = self._labels - 2 * self._max_samples
        if excess > 0:  # labels whose sample never came
            dropped = self._db.execute(
                "DELETE FROM labels WHERE (instance, key) IN (SELECT instance, key FROM labels l WHERE NOT EXISTS"
                " (SELECT 1 FROM samples s WHERE s.instance = l.instance AND s.key = l.key) ORDER BY time_s LIMIT ?)",
                (excess + self._max_samples // 100,),
            )
            self._labels -= dropped.rowcount

    def _drop_samples(self, count: int) -> None:
        db = self._db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS dropping (id INTEGER PRIMARY KEY)")
        db.execute("DELETE FROM dropping")
        db.execute("INSERT INTO dropping SELECT id FROM samples ORDER BY time_s, id LIMIT ?", (count,))
        matured = db.execute("SELECT count(*) FROM matured WHERE id IN dropping").fetchone()[0]
        self._put("_dropped", str(self._number("_dropped") + matured).encode())
        newest_s = db.execute("SELECT max(time_s) FROM samples WHERE id IN dropping").fetchone()[0]
        self._dropped_until_s = max(self._dropped_until_s, newest_s)
        self._put("_dropped-until", repr(self._dropped_until_s).encode())
        touched = db.execute(
            "SELECT DISTINCT segment FROM samples WHERE id IN dropping AND segment IS NOT NULL"
        ).fetchall()
        dropped = db.execute(
            "DELETE FROM labels WHERE (instance, key) IN (SELECT instance, key FROM samples WHERE id IN dropping)"
        )
        self._labels -= dropped.rowcount
        db.execute("DELETE FROM samples WHERE id IN dropping")
        db.execute("DELETE FROM predictions WHERE sample IN dropping")
        db.executemany(
            "DELETE FROM rows WHERE segment = ?1 AND step < (SELECT coalesce(min(start), 1 << 60) FROM samples"
            " WHERE segment = ?1)",
            touched,
        )
        db.executemany(
            "DELETE FROM segments WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM samples WHERE segment = ?1)", touched
        )
        db.execute("DELETE FROM groups WHERE id NOT IN (SELECT grp FROM samples)")
        self._groups.clear()
        self._segments.clear()
        self._samples -= count

    def _instance_id(self, path: str) -> int:
        known = self._instances.get(path)
        if known is None:
            row = self._db.execute("INSERT INTO instances (path, watermark_s) VALUES (?, -1e300) RETURNING id", (path,))
            known = self._instances[path] = int(row.fetchone()[0])
        return known

    def _group_id(self, instance: int, name: str) -> int:
        if not name:
            return NO_GROUP
        known = self._groups.get((instance, name))
        if known is None:
            if len(self._groups) >= CACHED_IDS:
                self._groups.clear()
            self._db.execute("INSERT OR IGNORE INTO groups (instance, name) VALUES (?, ?)", (instance, name))
            found = self._db.execute("SELECT id FROM groups WHERE instance = ? AND name = ?", (instance, name))
            known = self._groups[instance, name] = int(found.fetchone()[0])
        return known

    def _segment_id(self, instance: int, group: int, start_s: float) -> int:
        place = (instance, group, start_s)
        known = self._segments.get(place)
        if known is None:
            if len(self._segments) >= CACHED_IDS:
                self._segments.clear()
            self._db.execute("INSERT OR IGNORE INTO segments (instance, grp, start_s) VALUES (?, ?, ?)", place)
            found = self._db.execute("SELECT id FROM segments WHERE instance = ? AND grp = ? AND start_s = ?", place)
            known = self._segments[place] = int(found.fetchone()[0])
        return known

    # Reading ----------------------------------------------------------------------------------------------------------

    def counts(self) -> StoreCounts:
        """Samples, matured ones, and how many matured since the mark."""
        with self._lock:
            matured = self._matured()
            ever = matured + self._number("_dropped")
            return StoreCounts(self._samples, matured, max(0, ever - self._number("_marked")))

    def labelled(self) -> int:
        """Samples that have a label, matured or not."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM samples WHERE label IS NOT NULL").fetchone()[0])

    def matured_classes(self) -> dict[int, int]:
        """Matured samples per class index."""
        with self._lock:
            found = self._db.execute("SELECT label, count(*) FROM matured WHERE label IS NOT NULL GROUP BY label")
            return {int(value): int(count) for value, count in found}

    def unlabelled(self) -> float:
        """Share of the last samples whose label's window closed without one; 0 where there are too few of them.

        Their order is that of their arrival: a backlog counts as what it is, the newest that was heard.
        """
        with self._lock:
            due, without = self._db.execute(
                "SELECT count(*), coalesce(sum(s.label IS NULL), 0)"
                " FROM (SELECT instance, matures_s, label FROM samples ORDER BY id DESC LIMIT ?) s"
                " JOIN instances i ON i.id = s.instance WHERE s.matures_s <= i.watermark_s",
                (RECENT_SAMPLES,),
            ).fetchone()
        return without / due if due >= MIN_DUE else 0.0

    @property
    def matured_at_dataset(self) -> int:
        """Samples that had ever matured at the last `dataset`."""
        return self._matured_at_dataset

    def mark(self, name: str, matured: int) -> None:
        """An update was accepted: what matured since its snapshot is new from now on.

        Args:
            name: of the round; a second mark of the same name changes nothing.
            matured: samples that had ever matured by then. A snapshot for evaluation may have been taken since.
        """
        with self._lock:
            if self.get("_mark-name") == name.encode():
                return
            self._put("_mark-name", name.encode())
            self._put("_marked", str(min(matured, self._matured_at_dataset)).encode())  # less where all was dropped

    def _matured(self) -> int:
        labelled = self._db.execute(
            "SELECT coalesce(sum((SELECT count(*) FROM samples s WHERE s.instance = i.id AND s.label IS NOT NULL"
            " AND s.matures_s <= i.watermark_s)), 0) FROM instances i"
        ).fetchone()[0]
        unlabelled = self._db.execute("SELECT count(*) FROM samples WHERE matures_s IS NULL").fetchone()[0]
        return int(labelled + unlabelled)

    def _number(self, name: str) -> int:
        content = self.get(name)
        return int(content) if content is not None else 0

    def instances(self) -> tuple[str, ...]:
        """Paths of the instances; a `Dataset`'s instance number is the place in here."""
        with self._lock:
            return tuple(path for (path,) in self._db.execute("SELECT path FROM instances ORDER BY id"))

    def label(self, instance: str, key: str) -> LabelRecord | None:
        """The word that stands on a sample's label."""
        with self._lock:
            found = self._db.execute(
                "SELECT l.value, l.source, l.precedence, l.revision, l.time_s FROM labels l JOIN instances i"
                " ON i.id = l.instance WHERE i.path = ? AND l.key = ?",
                (instance, key),
            ).fetchone()
        return LabelRecord(*found) if found is not None else None

    def dataset(self, contract: Contract) -> Dataset:
        """All matured samples, split by the contract's rule, each instance by itself.

        Labels of a run to failure are uncapped.

        Raises:
            StoreError: the samples were made under a contract with other features, labels or sample rule.
        """
        with self._lock:
            known = self.get("_samples-of")
            if known is not None and known != _shape_of(contract).encode():
                raise StoreError(f"{self._path}: the samples were made under another contract")
            self._matured_at_dataset = self._matured() + self._number("_dropped")
            found = self._db.execute(
                "SELECT s.instance - 1, s.time_s, s.grp, s.said, s.context, s.label, s.segment, s.start, s.stop"
                " FROM matured s ORDER BY s.id"
            ).fetchall()
            table = np.array(found, np.float64).reshape(len(found), 9)
            width, length = len(contract.features), contract.window_length
            if length is None:
                blobs = self._db.execute("SELECT features FROM matured ORDER BY id")
                rows = _rows_of(blobs.fetchall(), width)
                windows = np.arange(len(rows), dtype=np.int64)[:, None] + np.array([0, 1])
            else:
                rows, windows = self._windows(table, width)
        instances, groups = table[:, 0].astype(np.int64), table[:, 2].astype(np.int64)
        said, times = table[:, 3].astype(np.uint8), table[:, 1]
        parts = np.zeros(len(table), np.uint8)
        for instance in np.unique(instances):
            of = instances == instance
            parts[of] = split(times[of], groups[of], said[of], contract.split)
        return Dataset(
            rows=rows,
            windows=windows,
            labels=table[:, 5].astype(np.float32),
            contexts=table[:, 4].astype(np.int64),
            parts=parts,
            times=times.copy(),
            instances=instances,
            groups=groups,
            length=length,
        )

    def predicted(self, version: int) -> npt.NDArray[np.bool_]:
        """Which samples of a `dataset` taken at the same moment this version has run on. Shape (N,)."""
        with self._lock:
            found = self._db.execute(
                "SELECT EXISTS (SELECT 1 FROM predictions p WHERE p.sample = s.id AND p.version = ?) FROM matured s"
                " ORDER BY s.id",
                (version,),
            ).fetchall()
        return np.array(found, bool).reshape(len(found))

    def _windows(
        self, table: npt.NDArray[np.float64], width: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """All rows, and per sample where its window lies in them; rows that were dropped count as missing."""
        places = np.array(
            self._db.execute("SELECT segment, step FROM rows ORDER BY segment, step").fetchall(), np.int64
        ).reshape(-1, 2)
        blobs = self._db.execute("SELECT features FROM rows ORDER BY segment, step").fetchall()
        place = (places[:, 0] << 32) + places[:, 1]
        segment, start, stop = (table[:, column].astype(np.int64) for column in (6, 7, 8))
        first = np.searchsorted(place, (segment << 32) + start)
        last = np.searchsorted(place, (segment << 32) + stop)
        return _rows_of(blobs, width), np.stack([first, last], axis=1).astype(np.int64)

    def predictions(self) -> PredictionRows:
        """What versions said of samples that have matured."""
        with self._lock:
            found = self._db.execute(
                "SELECT p.time_s, s.instance - 1, p.version, p.value, s.label FROM predictions p JOIN matured s"
                " ON s.id = p.sample ORDER BY p.time_s, s.id, p.version"
            ).fetchall()
        table = np.array(found, np.float64).reshape(len(found), 5)
        return PredictionRows(
            table[:, 0].copy(),
            table[:, 1].astype(np.int64),
            table[:, 2].astype(np.int64),
            table[:, 3].astype(np.float32),
            table[:, 4].astype(np.float32),
        )


def _rows_of(blobs: list[tuple[bytes]], width: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(b"".join(blob for (blob,) in blobs), np.float32).reshape(len(blobs), width)


def _free_name(path: Path) -> Path:
    """This one, or the first of `-2`, `-3` and so on that is not there."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _shape_of(contract: Contract) -> str:
    """Hash of what a stored sample depends on: features with units, context values, classes and the sample rule."""
    context = contract.context
    meaning = [
        [[f.name, f.unit] for f in contract.features],
        list(context.values) if isinstance(context, DeclaredContext) else None,
        list(contract.label.classes) if isinstance(contract.label, ClassLabel) else contract.label.kind,
        contract.sample.model_dump(mode="json"),
    ]
    return hashlib.sha256(json.dumps(meaning, ensure_ascii=False).encode()).hexdigest()
