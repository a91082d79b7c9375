"""The sample store: what one edge keeps of its plant, in a file of `edge.store_file`.

Samples, their labels and what the models said of them lie side by side; rows that overlapping windows share lie once.
The store decides which word on a label stands and when a sample has matured: it is the only place that knows all.
Nothing in here ever leaves the plant.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.dataset import Dataset
from edge.effects import Effect, LabelSet, RunEnded, SampleReady
from edge.labels import LabelRecord, is_timely, remaining_steps, revised
from edge.splits import NO_GROUP, SAID, split
from edge.store_file import StoreError, StoreFile
from uns_topics.contract import ClassLabel, Contract, DeclaredContext

log = logging.getLogger("headgate.edge")

CACHED_IDS = 10_000
RECENT_SAMPLES = 1_000
"""Whose labels are looked for."""
MIN_DUE = 20
"""Samples that should have a label, below which nothing is said of the others."""


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


class SampleStore(StoreFile):
    """One edge's samples. Each `add` is one transaction; calls from several threads wait for each other.

    Args:
        path: the SQLite file, made where there is none.
        max_samples: beyond it the oldest samples by event time are dropped, with their labels, rows and predictions;
            what is older than the newest that was dropped is not taken any more.

    Raises:
        StoreError: no sample store, or one of a later release. StoreBusy: another process has it.
    """

    def __init__(self, path: Path, *, max_samples: int = 1_000_000) -> None:
        super().__init__(path)
        self._max_samples = max_samples
        self._instances: dict[str, int] = {}
        self._groups: dict[tuple[int, str], int] = {}
        self._segments: dict[tuple[int, int, float], int] = {}
        self._matured_at_dataset = 0
        self.added = 0
        """Samples that were new since it was opened."""
        self._load()

    def _load(self) -> None:
        self._instances = {path: id_ for id_, path in self._db.execute("SELECT id, path FROM instances")}
        self._groups.clear()
        self._segments.clear()
        self._samples = int(self._db.execute("SELECT count(*) FROM samples").fetchone()[0])
        self._labels = int(self._db.execute("SELECT count(*) FROM labels").fetchone()[0])
        self._dropped_until_s = float(self.get("_dropped-until") or "-inf")

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
                self._matured_at_dataset = 0
                self._load()
                log.warning("the contract's features, label or sample rule changed; older samples lie in %s", aside)
            self._put("_samples-of", now)
            return aside

    def is_of(self, contract: Contract) -> bool:
        """Whether samples made under this contract can be added and read."""
        known = self.get("_samples-of")
        return known is not None and known == _shape_of(contract).encode()

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
            try:
                with self._transaction():
                    self._add(batch, predictions, kept or {})
            except BaseException:
                self._load()
                raise

    def _add(self, batch: Sequence[Effect], predictions: Sequence[StoredPrediction], kept: Mapping[str, bytes]) -> None:
        self._add_samples([e for e in batch if isinstance(e, SampleReady)])
        for effect in batch:
            if isinstance(effect, LabelSet):
                self._add_label(effect)
            elif isinstance(effect, RunEnded):
                self._end_run(effect)
        self._add_predictions(predictions)
        for name, content in kept.items():
            self._put(name, content)
        self._drop_oldest()

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
