"""The store: what is kept, when it matures, what survives a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.dataset import Part
from edge.effects import LabelSet, Problem, RunEnded, SampleReady
from edge.ingest import Ingest
from edge.labels import LabelRecord
from edge.splits import NO_GROUP
from edge.store import SampleStore, StoredPrediction
from edge.store_file import StoreBusy, StoreError
from tests.edge.examples import engine_contract, engine_ingest, flat, solder_contract
from uns_topics.contract import Contract

CONTRACT = solder_contract()
MATURES_S = 1000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.sqlite"


def sample(number: int, *, instance: str = "Werk Süd/1", group: str = "", split: str = "") -> SampleReady:
    values = np.array([number, np.nan, 120], np.float32)
    time_s = float(number)
    return SampleReady(instance, f"B{number}", time_s, time_s + 1, group, split, 1, values, time_s + MATURES_S)


def label(number: int, value: float, source: str = "aoi", precedence: int = 1, time_s: float | None = None) -> LabelSet:
    said_s = number + 10.0 if time_s is None else time_s
    return LabelSet("Werk Süd/1", f"B{number}", value, source, precedence, said_s, MATURES_S)


def later(store: SampleStore, instance: str = "Werk Süd/1") -> None:
    """Event time passes: a later, unlabelled sample closes the windows of the ones before it."""
    store.add([sample(5000, instance=instance)])


def test_a_sample_matures_when_its_window_has_closed(path: Path) -> None:
    with SampleStore(path) as store:
        store.add([sample(1), sample(2), label(1, 1.0)])
        assert (store.counts().samples, store.counts().matured) == (2, 0)
        later(store)
        assert (store.counts().samples, store.counts().matured) == (3, 1)
        dataset = store.dataset(CONTRACT)
    assert dataset.labels.tolist() == [1.0]
    assert dataset.times.tolist() == [1.0]
    assert dataset.contexts.tolist() == [1]
    assert dataset.length is None
    np.testing.assert_equal(dataset.features(np.array([0])), [[1, np.nan, 120]])


def test_another_instances_time_closes_no_window(path: Path) -> None:
    with SampleStore(path) as store:
        store.add([sample(1), label(1, 1.0)])
        later(store, instance="Werk Süd/2")
        assert store.counts().matured == 0


def test_a_label_may_come_first_twice_late_or_from_a_stronger_source(path: Path) -> None:
    with SampleStore(path) as store:
        store.add([label(1, 1.0)])
        store.add([sample(1), sample(2), sample(3)])
        store.add([label(1, 1.0), label(2, 1.0), label(2, 0.0, "repair", 0), label(2, 1.0, time_s=900.0)])
        store.add([label(3, 1.0, time_s=3 + MATURES_S + 1)])
        assert store.label("Werk Süd/1", "B1") == LabelRecord(1.0, "aoi", 1, 1, 11.0)
        assert store.label("Werk Süd/1", "B2") == LabelRecord(0.0, "repair", 0, 2, 12.0)
        assert store.label("Werk Süd/1", "B3") is None
        later(store)
        assert store.dataset(CONTRACT).labels.tolist() == [1.0, 0.0]


def test_what_came_again_changes_nothing(path: Path) -> None:
    with SampleStore(path) as store:
        store.add([sample(1), label(1, 1.0), Problem("late", "t", "d")])
    with SampleStore(path) as store:
        store.add([sample(1), label(1, 1.0)])
        assert store.counts().samples == 1
        assert store.label("Werk Süd/1", "B1") == LabelRecord(1.0, "aoi", 1, 1, 11.0)


def test_everything_survives_a_restart(path: Path) -> None:
    with SampleStore(path) as store:
        store.use(CONTRACT)
        store.put("contract", b"\x00\xff")
        store.add([sample(n, group=f"p{n % 2}") for n in range(10)] + [label(n, n % 2) for n in range(10)])
        later(store)
        before = store.dataset(CONTRACT)
    with SampleStore(path) as store:
        assert store.use(CONTRACT) is None
        assert store.get("contract") == b"\x00\xff"
        assert store.get("never put") is None
        after = store.dataset(CONTRACT)
        assert store.instances() == ("Werk Süd/1",)
        assert store.counts().matured == 10
    for name in ("rows", "windows", "labels", "parts", "times", "instances", "groups"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert len(set(before.groups[::2])) == 1
    assert before.groups[0] != before.groups[1]


def test_splits_are_per_instance(path: Path) -> None:
    with SampleStore(path) as store:
        for instance, start in [("a", 0), ("b", 500)]:
            store.add([sample(start + n, instance=instance) for n in range(10)])
            store.add([LabelSet(instance, f"B{start + n}", 0.0, "aoi", 0, start + 20.0, MATURES_S) for n in range(10)])
            later(store, instance)
        dataset = store.dataset(CONTRACT)
    for number in (0, 1):
        parts = dataset.parts[dataset.instances == number]
        assert parts.tolist() == [Part.TRAIN] * 6 + [Part.SELECT] * 2 + [Part.REPORT] * 2
    assert set(dataset.groups) == {NO_GROUP}


def test_predictions_meet_their_labels_later(path: Path) -> None:
    with SampleStore(path) as store:
        said = [StoredPrediction("Werk Süd/1", f"B{n}", float(n), 3, 0.5 + n) for n in (1, 2)]
        store.add([sample(1), sample(2)], said)
        store.add([], [StoredPrediction("Werk Süd/1", "B1", 1.0, 4, 0.75)])
        assert len(store.predictions().times) == 0
        store.add([label(1, 1.0)])
        later(store)
        rows = store.predictions()
    assert rows.versions.tolist() == [3, 4]
    assert rows.outputs.tolist() == [1.5, 0.75]
    assert rows.labels.tolist() == [1.0, 1.0]


def test_new_is_what_matured_since_the_snapshot_of_an_accepted_round(path: Path) -> None:
    with SampleStore(path) as store:
        store.add([sample(n) for n in range(10)] + [label(n, 1.0) for n in range(4)])
        later(store)
        assert store.counts().new == 4
        store.dataset(CONTRACT)
        store.add([label(5, 1.0)])
        store.mark("round-1", store.matured_at_dataset)
        assert store.counts().new == 1
        store.dataset(CONTRACT)
        store.mark("round-1", store.matured_at_dataset)  # the receipt came twice
        assert store.counts().new == 1
        store.mark("round-2", store.matured_at_dataset)
        assert store.counts().new == 0


def test_the_oldest_are_dropped_with_all_that_hangs_on_them(path: Path) -> None:
    with SampleStore(path, max_samples=100) as store:
        for n in range(0, 30_000, 100):
            store.add([sample(n, group=f"p{n}"), label(n, 1.0)], [StoredPrediction("Werk Süd/1", f"B{n}", n, 1, 0.5)])
        store.add([sample(100_000)])
        counts = store.counts()
        assert 98 <= counts.samples <= 100
        assert counts.matured == counts.samples - 1
        assert counts.new == 300
        assert store.dataset(CONTRACT).times.min() >= 20_000
        assert len(store.predictions().times) == counts.matured
        assert store.label("Werk Süd/1", "B0") is None
    with sqlite3.connect(path) as db:
        for table in ("labels", "predictions", "groups"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] <= 100


def test_history_that_comes_after_newer_samples_pushes_none_of_them_out(path: Path) -> None:
    with SampleStore(path, max_samples=100) as store:
        store.add([sample(n) for n in range(1000, 1050)])
        for _ in range(2):
            for start in range(0, 500, 50):
                store.add([effect for n in range(start, start + 50) for effect in (sample(n), label(n, 1.0))])
            later(store)
            counts = store.counts()
            assert 98 <= counts.samples <= 100
            kept = store.dataset(CONTRACT).times.tolist()
            assert kept == [float(n) for n in range(500 - len(kept), 500)]
            assert store.label("Werk Süd/1", "B7") is None
    with SampleStore(path, max_samples=100) as store:
        store.add([sample(7)])
        assert store.counts() == counts


def test_a_store_has_one_writer(path: Path) -> None:
    with SampleStore(path) as store:
        with pytest.raises(StoreBusy, match="in use"):
            SampleStore(path)
        store.add([sample(1)])
    with SampleStore(path) as store:
        assert store.counts().samples == 1


def test_a_file_that_is_no_store_is_not_kept_locked(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            SampleStore(path)


def test_labels_without_samples_are_bounded(path: Path) -> None:
    with SampleStore(path, max_samples=100) as store:
        store.add([sample(1)])
        for start in range(0, 1000, 50):
            store.add([label(n, 1.0) for n in range(start, start + 50)])
        assert store.label("Werk Süd/1", "B1") is not None
        assert store.label("Werk Süd/1", "B2") is None
        assert store.label("Werk Süd/1", "B999") is not None


def test_a_batch_is_stored_whole_or_not_at_all(path: Path) -> None:
    with SampleStore(path) as store:
        broken = LabelSet("Werk Süd/1", "B2", "no number", "aoi", None, 1.0, 1.0)  # type: ignore[arg-type]
        with pytest.raises(sqlite3.IntegrityError):
            store.add([sample(1), broken])
        assert store.counts().samples == 0
        store.add([sample(1)])
        assert store.counts().samples == 1
        assert store.instances() == ("Werk Süd/1",)


def test_samples_of_another_contract_are_set_aside(path: Path) -> None:
    other = solder_contract(sample={"kind": "event", "key": "board", "patience_s": 7})
    with SampleStore(path) as store:
        assert store.use(CONTRACT) is None
        store.add([sample(1)])
        store.put("local-only", b"kept")
        with pytest.raises(StoreError, match="another contract"):
            store.dataset(other)
        aside = store.use(other)
        assert aside is not None
        assert store.counts().samples == 0
        assert store.get("local-only") == b"kept"
        store.add([sample(2)])
        assert store.counts().samples == 1
        assert len(store.dataset(other)) == 0
    with SampleStore(aside) as old:
        assert old.counts().samples == 1


OTHER = solder_contract(sample={"kind": "event", "key": "board", "patience_s": 7})


def of_contract(path: Path) -> None:
    with SampleStore(path) as store:
        store.use(CONTRACT)
        store.add([sample(1)])
        store.put("local-only", b"kept")


def test_samples_set_aside_twice_under_one_name_are_both_kept(path: Path) -> None:
    with SampleStore(path) as store:
        asides = []
        for contract in (CONTRACT, OTHER, CONTRACT, OTHER):
            asides.append(store.use(contract))
            store.add([sample(1)])
    assert asides[0] is None
    assert len({*asides}) == 4
    for aside in asides[1:]:
        assert aside is not None
        with SampleStore(aside) as old:
            assert old.counts().samples == 1


@pytest.mark.parametrize("fails_at", ["next", "aside"])
def test_samples_that_cannot_be_set_aside_stay(path: Path, fails_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_contract(path)
    connect, replace = sqlite3.connect, Path.replace

    def no_room(database: Path, **options: Any) -> sqlite3.Connection:
        db = connect(database, **options)
        if database.name.endswith(".next"):
            db.execute("PRAGMA max_page_count = 1")
        return db

    def no_name(self: Path, target: Path) -> Path:
        if self == path:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with SampleStore(path) as store:
        with monkeypatch.context() as patch:
            if fails_at == "next":
                patch.setattr(sqlite3, "connect", no_room)
            else:
                patch.setattr(Path, "replace", no_name)
            with pytest.raises((OSError, StoreError)):
                store.use(OTHER)
        assert store.is_of(CONTRACT)
        assert store.counts().samples == 1
        assert store.get("local-only") == b"kept"
        assert store.use(OTHER) is not None
        assert store.get("local-only") == b"kept"


def test_a_kill_while_samples_are_set_aside_loses_nothing_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_contract(path)

    def killed(_: SampleStore) -> None:
        raise KeyboardInterrupt

    store, opened = SampleStore(path), SampleStore._open
    with monkeypatch.context() as patch:
        patch.setattr(SampleStore, "_take_next", killed)
        patch.setattr(SampleStore, "_open", lambda store, at: store._db if at == path else opened(store, at))
        with pytest.raises(KeyboardInterrupt):
            store.use(OTHER)
    store.close()
    assert not path.exists()
    with SampleStore(path) as store:
        assert store.get("local-only") == b"kept"
        assert store.counts().samples == 0


def test_samples_that_another_program_reads_are_not_set_aside(path: Path) -> None:
    of_contract(path)
    with SampleStore(path) as store:
        reader = sqlite3.connect(path)
        reader.execute("SELECT count(*) FROM samples").fetchone()
        with pytest.raises(StoreError, match="another program"):
            store.use(OTHER)
        assert store.counts().samples == 1
        reader.close()
        assert store.use(OTHER) is not None
        store.add([sample(2)])
    with SampleStore(path) as store:
        assert store.counts().samples == 1


def test_a_full_disk_leaves_no_instance_behind_that_was_never_stored(path: Path) -> None:
    with SampleStore(path) as store:
        store.use(CONTRACT)
        store.add([sample(1, instance="Werk/1")])
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.add([sample(number, instance="Werk/2", group=f"panel {number}") for number in range(2, 2000)])
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.add([sample(1, instance="Werk/3"), sample(2, instance="Werk/2"), sample(3, instance="Werk/2")])
        assert sorted(store.instances()) == ["Werk/1", "Werk/2", "Werk/3"]
        assert store.counts().samples == 4


def test_a_new_title_or_threshold_sets_nothing_aside(path: Path) -> None:
    with SampleStore(path) as store:
        store.use(CONTRACT)
        store.add([sample(1)])
        assert store.use(solder_contract(title="new", quality={"min_samples": 7})) is None


def test_a_foreign_file_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SampleStore(path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="schema 99"):
        SampleStore(path)


def test_no_label_is_needed_where_the_contract_has_none(path: Path) -> None:
    contract = solder_contract(label={"kind": "none"}, metric="rmse")
    values = np.array([1, 2, 3], np.float32)
    with SampleStore(path) as store:
        store.add([SampleReady("a", "B1", 1.0, 1.0, "", "", 0, values, None)])
        assert store.counts().matured == 1
        assert np.isnan(store.dataset(contract).labels).all()


# Windows ----------------------------------------------------------------------------------------------------


def run(ingest: Ingest, store: SampleStore, engine: int, cycles: int, *, file: str, left: int | None) -> None:
    """One engine's cycles, 100 apart from the next engine's, then its end."""
    start = engine * 100
    for number in range(1, cycles + 1):
        fields = {"s2": float(engine * 1000 + number), "s7": 550.0, "engine": engine, "file": file}
        payload = flat(60.0 * (start + number), seconds=True, **fields)
        store.add(ingest.feed("test/a/cycle", payload, arrival_s=1e9))
    if left is not None:
        payload = flat(60.0 * (start + cycles), seconds=True, engine=engine, left=left)
        store.add(ingest.feed("test/a/end", payload, arrival_s=1e9))


def test_a_run_matures_at_its_end_and_its_labels_are_uncapped(path: Path) -> None:
    contract = engine_contract()
    with SampleStore(path) as store:
        ingest = engine_ingest()
        run(ingest, store, 1, 6, file="train", left=0)
        run(ingest, store, 2, 3, file="train", left=None)
        run(ingest, store, 3, 4, file="test", left=20)
        assert (store.counts().samples, store.counts().matured) == (13, 10)
        dataset = store.dataset(contract)
    assert dataset.length == 3
    assert dataset.labels.tolist() == [5, 4, 3, 2, 1, 0, 23, 22, 21, 20]
    assert dataset.parts.tolist() == [Part.TRAIN] * 6 + [Part.GAP] * 3 + [Part.REPORT]
    features = dataset.features(np.array([0, 2, 9]))[:, :, 0]
    np.testing.assert_equal(features, [[np.nan, np.nan, 1001], [1001, 1002, 1003], [3002, 3003, 3004]])


def test_rows_that_windows_share_lie_once(path: Path) -> None:
    with SampleStore(path) as store:
        run(engine_ingest(), store, 1, 20, file="train", left=0)
        dataset = store.dataset(engine_contract())
    assert dataset.rows.shape == (20, 2)
    assert dataset.windows.tolist()[:4] == [[0, 1], [0, 2], [0, 3], [1, 4]]


def test_windows_with_a_stride_and_gaps_keep_their_rows(path: Path) -> None:
    contract = engine_contract(stride=4, pad=False)
    ingest = engine_ingest(stride=4, pad=False)
    with SampleStore(path) as store:
        for number in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12):
            fields = {"s2": float(number), "s7": 550.0, "engine": 1, "file": "train"}
            store.add(ingest.feed("test/a/cycle", flat(60.0 * number, seconds=True, **fields), arrival_s=1e9))
        store.add([RunEnded("test/a", "1", 720.0, 0.0, 60.0)])
        dataset = store.dataset(contract)
    features = dataset.features(np.arange(len(dataset)))[:, :, 0]
    np.testing.assert_equal(features, [[1, 2, 3], [np.nan, 6, 7], [9, 10, 11]])
    assert dataset.labels.tolist() == [9, 5, 1]


def test_dropped_rows_count_as_missing(path: Path) -> None:
    contract: Contract = engine_contract()
    with SampleStore(path, max_samples=10) as store:
        run(engine_ingest(), store, 1, 60, file="train", left=0)
        dataset = store.dataset(contract)
        assert len(dataset) == 10
        assert dataset.rows.shape == (12, 2)
        assert dataset.features(np.array([0]))[0, :, 0].tolist() == [1049, 1050, 1051]


def test_labels_that_never_came_are_a_share_of_those_that_were_due(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.sqlite") as store:
        store.add([sample(n) for n in range(1, 19)])
        assert store.unlabelled() == 0.0  # too few to say
        store.add([sample(n) for n in range(19, 101)])
        store.add([label(n, 1.0) for n in range(1, 51)])
        store.add([sample(10_000)])  # every window has closed but its own
        assert store.unlabelled() == pytest.approx(0.5)


def test_what_is_kept_with_a_batch_is_found_by_its_prefix(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.sqlite") as store:
        store.add([], kept={"instance:a/b": b"1", "instance:c": b"2", "instanc": b"3"})
        assert store.named("instance:") == {"a/b": b"1", "c": b"2"}
