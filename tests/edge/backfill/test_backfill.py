"""Exports become the very samples that the live messages would have become."""

from __future__ import annotations

import random
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.backfill import order
from edge.backfill.tables import TableError
from edge.binding import bind
from edge.ingest import Ingest
from edge.store import SampleStore
from tests.edge.backfill.exports import LINE, NOW_S, START_S, boards, fill, stored, write
from tests.edge.examples import engine_contract, engine_map, flat, solder_contract, solder_map, umh

BOARDS = 100
LONG = ("Timestamp", "TagName", "Value")


@pytest.fixture
def live(tmp_path: Path) -> tuple[object, ...]:
    """What an edge stores that hears the same as messages."""
    folder = tmp_path / "live"
    folder.mkdir()
    ingest = Ingest(bind(solder_map(), solder_contract()), solder_contract())
    with SampleStore(folder / "samples.sqlite") as store:
        store.use(solder_contract())
        for n in range(BOARDS):
            time_s = START_S + 60 * n
            verdict = "BRIDGE" if n % 5 == 0 else "OK"
            for topic, at_s, payload in (
                ("printer/viscosity", time_s, umh(time_s, 200_000 + n)),
                ("air", time_s, umh(time_s, 77.0)),
                ("spi", time_s + 5, flat(time_s + 5, serial=f"00{n}", h=120 + n % 7, panel=f"P{n // 2}")),
                ("aoi", time_s + 30, flat(time_s + 30, serial=f"00{n}", verdict=verdict)),
            ):
                store.add(ingest.feed(f"{LINE}/{topic}", payload, arrival_s=at_s))
    return stored(folder)


def iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def test_a_long_export_gives_what_the_live_messages_gave(tmp_path: Path, live: tuple[object, ...]) -> None:
    file = write(tmp_path / "long.csv", LONG, [(iso(t), tag, v) for t, tag, v in boards(BOARDS)])
    outcome = fill(tmp_path, file)
    assert stored(tmp_path) == live
    assert (outcome.rows, outcome.readings, outcome.made, outcome.added) == (7 * BOARDS, 7 * BOARDS, BOARDS, BOARDS)
    assert (outcome.labels, outcome.labelled) == (BOARDS, BOARDS)
    matured = len(live[1])  # type: ignore[arg-type]
    assert (outcome.matured, outcome.trainable) == (matured, int(0.6 * matured))
    assert matured == BOARDS - 17  # the last 1000 s of event time are still open
    assert sum(outcome.classes.values()) == matured
    assert (dict(outcome.problems), dict(outcome.unread), outcome.sorted) == ({}, {}, ())
    assert outcome.why_no_training == "49 matured samples to train on, and the contract wants 50"


def test_a_second_run_adds_nothing(tmp_path: Path, live: tuple[object, ...]) -> None:
    file = write(tmp_path / "long.csv", LONG, [(iso(t), tag, v) for t, tag, v in boards(BOARDS)])
    fill(tmp_path, file)
    again = fill(tmp_path, file)
    assert (again.made, again.added, again.stored) == (BOARDS, 0, BOARDS)
    assert stored(tmp_path) == live


def test_a_second_run_adds_nothing_where_the_store_is_too_small(tmp_path: Path) -> None:
    file = write(tmp_path / "long.csv", LONG, [(iso(t), tag, v) for t, tag, v in boards(2000)])
    first = fill(tmp_path, file, max_samples=500)
    assert first.added > first.stored
    before = stored(tmp_path)
    again = fill(tmp_path, file, max_samples=500)
    assert (again.made, again.added) == (2000, 0)
    assert stored(tmp_path) == before


def test_tag_after_tag_is_sorted_first(
    tmp_path: Path, live: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "RUN_READINGS", 50)  # fourteen runs on disk
    rows = sorted(((iso(t), tag, v) for t, tag, v in boards(BOARDS)), key=lambda row: row[1])
    file = write(tmp_path / "long.csv", LONG, rows)
    outcome = fill(tmp_path, file)
    assert outcome.sorted == (file,)
    assert stored(tmp_path) == live
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["live"]


def test_a_file_per_tag_is_merged_by_time(tmp_path: Path, live: tuple[object, ...]) -> None:
    tags = sorted({tag for _, tag, _ in boards(1)}, reverse=True)  # labels and keys in any order
    files = [
        write(tmp_path / f"{n}.csv", LONG, [(iso(t), tag, v) for t, tag, v in boards(BOARDS) if tag == wanted])
        for n, wanted in enumerate(tags)
    ]
    outcome = fill(tmp_path, *files)
    assert stored(tmp_path) == live
    assert outcome.sorted == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_wide_export(tmp_path: Path, live: tuple[object, ...], delimiter: str) -> None:
    header = ["t_stamp", *dict.fromkeys(tag for _, tag, _ in boards(1)), "Werk Süd/smt/1/oven/unknown"]
    moments: dict[float, dict[str, object]] = {}
    for time_s, tag, value in boards(BOARDS):
        moments.setdefault(time_s, {})[tag] = value
    rows = [[round(t * 1000), *(said.get(tag, "") for tag in header[1:-1]), 1] for t, said in moments.items()]
    outcome = fill(tmp_path, write(tmp_path / "wide.csv", header, rows, delimiter))
    assert stored(tmp_path) == live
    assert dict(outcome.unread) == {"Werk Süd/smt/1/oven/unknown": 1}


def test_a_tag_map_names_topics_fields_and_columns(tmp_path: Path, live: tuple[object, ...]) -> None:
    names = {tag: f"PLC1.DB{n}" for n, tag in enumerate(dict.fromkeys(tag for _, tag, _ in boards(1)))}
    local = ZoneInfo("Europe/Berlin")
    rows = [
        (names[tag], str(v).replace(".", ","), datetime.fromtimestamp(t, local).strftime("%d.%m.%Y %H:%M:%S"))
        for t, tag, v in boards(BOARDS)
    ]
    rows.insert(3, ("PLC1.DB99", "1", rows[2][2]))
    file = tmp_path / "long.csv"
    content = "sep=;\nName;Wert;Zeit\n" + "".join(f"{';'.join(row)}\n" for row in rows)
    file.write_bytes(content.encode("cp1252"))
    tags = {
        names[f"{LINE}/printer/viscosity"]: f"{LINE}/printer/viscosity",
        names[f"{LINE}/air"]: {"topic": f"{LINE}/air"},
        names[f"{LINE}/spi/serial"]: {"topic": f"{LINE}/spi", "field": "serial"},
        names[f"{LINE}/spi/panel"]: f"{LINE}/spi/panel",
        names[f"{LINE}/spi/h"]: {"topic": f"{LINE}/spi", "field": "h"},
        names[f"{LINE}/aoi/serial"]: f"{LINE}/aoi/serial",
        names[f"{LINE}/aoi/verdict"]: f"{LINE}/aoi/verdict",
    }
    outcome = fill(
        tmp_path, file, tags=tags, encoding="cp1252",
        time={"column": "Zeit", "format": "%d.%m.%Y %H:%M:%S", "zone": "Europe/Berlin"},
        long={"tag": "Name", "value": "Wert"},
    )  # fmt: skip
    assert stored(tmp_path) == live
    assert dict(outcome.unread) == {"PLC1.DB99": 1}


def test_a_log_of_the_broker_holds_whole_messages(tmp_path: Path, live: tuple[object, ...]) -> None:
    rows = []
    for n in range(BOARDS):
        time_s, verdict = START_S + 60 * n, "BRIDGE" if n % 5 == 0 else "OK"
        spi = flat(time_s + 5, serial=f"00{n}", h=120 + n % 7, panel=f"P{n // 2}").decode()
        rows += [
            (time_s + 0.2, f"{LINE}/printer/viscosity", umh(time_s, 200_000 + n).decode()),
            (time_s, f"{LINE}/air", 77.0),
            (time_s + 5.2, f"{LINE}/spi", spi),
            (time_s + 30.2, f"{LINE}/aoi", flat(time_s + 30, serial=f"00{n}", verdict=verdict).decode()),
        ]
    fill(tmp_path, write(tmp_path / "log.csv", ("time", "topic", "payload"), rows))
    assert stored(tmp_path) == live


@pytest.mark.parametrize("is_wide", [False, True])
def test_parquet(tmp_path: Path, live: tuple[object, ...], is_wide: bool) -> None:
    readings = boards(BOARDS)
    if is_wide:
        moments: dict[float, dict[str, object]] = {}
        for time_s, tag, value in readings:
            moments.setdefault(time_s, {})[tag] = value
        columns = {tag: [said.get(tag) for said in moments.values()] for _, tag, _ in boards(1)}
        stamps = pa.array([round(t * 1e9) + 1 for t in moments], pa.timestamp("ns", tz="UTC"))
        table = pa.table({"timestamp": stamps, **columns})
    else:
        stamps = pa.array([round(t * 1000) for t, _, _ in readings], pa.timestamp("ms", tz="UTC"))
        texts = [str(value) for _, _, value in readings]
        table = pa.table({"timestamp": stamps, "tag": [tag for _, tag, _ in readings], "value": texts})
    pq.write_table(table, tmp_path / "export.parquet", row_group_size=64)
    outcome = fill(tmp_path, tmp_path / "export.parquet")
    assert stored(tmp_path) == live
    assert outcome.made == BOARDS


def test_what_is_not_good_is_missing(tmp_path: Path) -> None:
    qualities = {f"{LINE}/air": "Bad", f"{LINE}/printer/viscosity": "GOOD"}
    rows = [(t, tag, v, qualities.get(tag, 192)) for t, tag, v in boards(3)]
    outcome = fill(tmp_path, write(tmp_path / "long.csv", ("time", "tag", "value", "quality"), rows))
    assert outcome.problems["bad-quality"] == 3
    with SampleStore(tmp_path / "samples.sqlite") as store:
        store.add([])
        assert store.counts().samples == 3
    with sqlite3.connect(tmp_path / "samples.sqlite") as db:
        (blob,) = db.execute("SELECT features FROM samples LIMIT 1").fetchone()
    db.close()
    assert pa.py_buffer(blob).size == 12
    viscosity, temperature, height = memoryview(blob).cast("f")
    assert (round(viscosity), round(height)) == (200, 120)
    assert temperature != temperature


def test_a_column_of_a_wide_file_may_have_its_quality_in_another(tmp_path: Path) -> None:
    rows = [(START_S + n, 120 + n, "good" if n else "bad", f"B{n}", 200_000) for n in range(2)]
    header = ("time", "HEIGHT", "HEIGHT_Q", f"{LINE}/spi/serial", f"{LINE}/printer/viscosity")
    tags = {"HEIGHT": {"topic": f"{LINE}/spi", "field": "h", "quality": "HEIGHT_Q"}}
    outcome = fill(tmp_path, write(tmp_path / "wide.csv", header, rows), tags=tags)
    assert outcome.made == 2
    assert outcome.problems["bad-quality"] == 1
    with sqlite3.connect(tmp_path / "samples.sqlite") as db:
        heights = [memoryview(blob).cast("f")[2] for (blob,) in db.execute("SELECT features FROM samples ORDER BY key")]
    db.close()
    assert heights[0] != heights[0]
    assert heights[1] == 121


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(t, tag, v) for t, tag, v in boards(5)]
    rows[0] = (rows[0][0], rows[0][1], "I/O Timeout")
    rows[7:7] = [("yesterday", f"{LINE}/air", 1), (START_S + 60, f"{LINE}/air", 77, "one", "too many")]
    rows.append((NOW_S + 3600, f"{LINE}/air", 77.0))
    rows.append((NOW_S + 3600, "x" * 70_000, 77.0))
    rows.append(("END OF EXPORT",))
    outcome = fill(tmp_path, write(tmp_path / "long.csv", LONG, rows))
    assert dict(outcome.problems) == {"wrong-type": 1, "bad-timestamp": 1, "undecodable": 3, "future": 1}
    assert outcome.unread == {}
    assert outcome.made == 5


def test_labels_that_meet_no_sample_are_why(tmp_path: Path) -> None:
    rows = [(t, tag, f"{v}-other" if tag == f"{LINE}/aoi/serial" else v) for t, tag, v in boards(3)]
    outcome = fill(tmp_path, write(tmp_path / "long.csv", LONG, rows))
    assert (outcome.labels, outcome.labelled) == (3, 0)
    assert outcome.why_no_training is not None
    assert outcome.why_no_training.startswith("none of the 3 labels met a sample")


def test_the_arrival_of_a_sample_is_when_it_was_filled_in(tmp_path: Path) -> None:
    fill(tmp_path, write(tmp_path / "long.csv", LONG, boards(3)))
    with sqlite3.connect(tmp_path / "samples.sqlite") as db:
        found = db.execute("SELECT DISTINCT arrival_s FROM samples").fetchall()
    db.close()
    assert found == [(NOW_S,)]


def test_windows_and_runs_to_failure(tmp_path: Path) -> None:
    contract, signal_map = engine_contract(), engine_map()
    header = ("time", *(f"test/a/cycle/{name}" for name in ("s2", "s7", "engine", "file")))
    rows = [(60.0 * (100 * e + c), 600 + c, 550, e, "train") for e in (1, 2) for c in range(1, 7)]
    cycles = write(tmp_path / "cycles.csv", header, rows)
    ends = write(
        tmp_path / "ends.csv", ("time", "test/a/end/engine", "test/a/end/left"),
        [(60.0 * (100 * e + 6), e, 0) for e in (1, 2)],
    )  # fmt: skip
    outcome = fill(tmp_path, cycles, ends, contract=contract, signal_map=signal_map)
    assert (outcome.made, outcome.matured, outcome.classes) == (12, 12, {})
    with SampleStore(tmp_path / "samples.sqlite") as store:
        assert store.dataset(contract).labels.tolist() == [5, 4, 3, 2, 1, 0] * 2
    assert fill(tmp_path, cycles, ends, contract=contract, signal_map=signal_map).added == 0


def test_sparkplug_metrics_by_their_name(tmp_path: Path) -> None:
    height = {"topic": "spBv1.0/{plant}/+/{line}/spi", "form": "sparkplug", "key": "Board/Serial"}
    sources = [
        {**height, "features": [{"feature": "height", "field": "Board/Height", "unit": "um"}]},
        {
            "topic": "spBv1.0/{plant}/+/{line}", "form": "sparkplug",
            "features": [{"feature": "viscosity", "field": "Paste", "unit": "Pa.s"}],
        },
    ]  # fmt: skip
    signal_map = type(solder_map()).model_validate({"instance": "{plant}/{line}", "sources": sources})
    header = ("time", "spBv1.0/b/DDATA/l/spi/Board/Serial", "spBv1.0/b/NCMD/l/spi/Board/Height", "PASTE")
    rows = [(START_S + n, f"B{n}", 120, 200) for n in range(3)]
    tags = {"PASTE": {"topic": "spBv1.0/b/NDATA/l", "field": "Paste"}}
    outcome = fill(tmp_path, write(tmp_path / "wide.csv", header, rows), signal_map=signal_map, tags=tags)
    assert outcome.made == 3
    with sqlite3.connect(tmp_path / "samples.sqlite") as db:
        (blob,) = db.execute("SELECT features FROM samples LIMIT 1").fetchone()
    db.close()
    assert memoryview(blob).cast("f")[0] == 200
    assert memoryview(blob).cast("f")[2] == 120


def test_samples_of_a_running_plant_stay_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, write(tmp_path / "new.csv", LONG, [(t, tag, v) for t, tag, v in boards(60) if t > START_S + 1200]))
    before = stored(tmp_path)
    outcome = fill(tmp_path, write(tmp_path / "all.csv", LONG, boards(60)))
    assert outcome.added == 20
    after = stored(tmp_path)
    assert set(map(tuple, before[2])) <= set(map(tuple, after[2]))


def test_classic_umh_and_nested_keys(tmp_path: Path) -> None:
    """Messages with more than one tag: field by field, or whole out of a log."""
    viscosity = {"feature": "viscosity", "field": "paste.viscosity", "unit": "Pa.s"}
    sources = [
        {
            "topic": "a/{line}/tags",
            "form": "umh",
            "features": [viscosity, {"feature": "temperature", "field": "air", "unit": "degC"}],
        },
        {
            "topic": "a/{line}/spi",
            "form": "flat",
            "key": "board",
            "features": [{"feature": "height", "field": "h", "unit": "um"}],
        },
    ]
    signal_map = type(solder_map()).model_validate({"instance": "a/{line}", "sources": sources})
    by_field = [
        (START_S, "a/1/tags/paste.viscosity", 200),
        (START_S, "a/1/tags/air", 25),
        (START_S, "a/1/spi/board", "B1"),
        (START_S, "a/1/spi/h", 120),
    ]
    log = [
        (START_S, "a/1/tags", f'{{"timestamp_ms": {START_S * 1000:.0f}, "paste": {{"viscosity": 200}}, "air": 25}}'),
        (START_S, "a/1/spi", f'{{"timestamp": {START_S * 1000:.0f}, "board": "B1", "h": 120}}'),
    ]
    for name, rows in (("fields", by_field), ("log", log)):
        folder = tmp_path / name
        folder.mkdir()
        outcome = fill(folder, write(tmp_path / f"{name}.csv", LONG, rows), signal_map=signal_map)
        assert (outcome.made, dict(outcome.problems)) == (1, {})
        with sqlite3.connect(folder / "samples.sqlite") as db:
            (blob,) = db.execute("SELECT features FROM samples").fetchone()
        db.close()
        assert memoryview(blob).cast("f").tolist() == [200, 25, 120]


# Files that can't be used ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "its first line is no header"),
        ("a.csv", b"alpha,beta\n1,2\n", "no column looks like the time"),
        ("a.csv", b"time,alpha\n1,2\n", "no column is a tag that the signal map reads"),
        ("a.csv", b"time,tag,value\n", "no rows with a timestamp"),
        ("a.csv", b"time,tag,value\n2024-01-01 10:00:00,a,1\n", "name no time zone: say it with --zone UTC"),
        ("a.csv", b"time,tag,value\nlast week,a,1\n", "'last week' is no timestamp"),
        ("a.csv", b"time,tag,value\n1,\xff\xfe,1\n", "it is not utf-8"),
        ("a.csv.gz", b"no gzip", "Not a gzipped file"),
        ("a.parquet", b"no parquet", "it can't be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=sentence) as caught:
        fill(tmp_path, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("tag_map", "sentence"),
    [
        ({"time": {"column": "when"}}, "no column 'when'"),
        ({"long": {"tag": "tag", "value": "wert"}}, "no column 'wert'"),
        ({"time": {"zone": "Mars/Olympus"}}, "'Mars/Olympus' is no time zone"),
        ({"time": {"format": "%d.%m.%Y"}}, "is no timestamp"),
        ({"encoding": "klingon"}, "is no encoding"),
    ],
)
def test_a_tag_map_that_does_not_fit(tmp_path: Path, tag_map: dict[str, object], sentence: str) -> None:
    file = write(tmp_path / "a.csv", ("time", "tag", "value"), [("1700000000", f"{LINE}/air", 1)])
    with pytest.raises(TableError, match=sentence):
        fill(tmp_path, file, **tag_map)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("gone.csv", "gone.parquet"):
        with pytest.raises(TableError, match="no such file"):
            fill(tmp_path, tmp_path / name)


def test_any_bytes_end_in_a_sentence_or_in_counts(tmp_path: Path) -> None:
    rng = random.Random(7)
    good = "".join(f"{t},{tag},{v}\n" for t, tag, v in boards(10)).encode()
    for _ in range(300):
        content = bytearray(b"time,tag,value\n" + good)
        for _ in range(rng.randrange(1, 30)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "a.csv").write_bytes(content)
        try:
            outcome = fill(tmp_path, tmp_path / "a.csv", encoding=rng.choice(["utf-8-sig", "latin-1"]))
        except TableError:
            continue
        assert outcome.rows <= 10 * 7 + 30
