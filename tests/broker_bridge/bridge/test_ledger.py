"""The ledger: durable before anything leaves, numbered over restarts, torn lines kept apart, readable meanwhile."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker_bridge.bridge.contents import ContentAltered, Contents, ContentsError
from broker_bridge.bridge.ledger import (
    Damaged,
    Departure,
    Entry,
    Ledger,
    LedgerError,
    Transfer,
    day_files,
    read,
)
from tests.contracts.examples import UPDATE
from uns_topics.transfers import MIN_CHUNK_BYTES, chunk_of, encode_chunk, make_manifest

NOON = datetime(2026, 11, 25, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()
DAY = 86_400.0
FILE = "2026-11-25.jsonl"
STATUS = Departure("solder", "berlin", "fl/v1/solder/up/berlin/status", "status", "allow[0]", b'{"samples":720}')


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def status(text: str = "{}", **changes: str) -> Departure:
    return replace(STATUS, payload=text.encode(), **changes)


def open_ledger(folder: Path, clock: Clock | None = None, **options: object) -> Ledger:
    return Ledger(folder, "dmz", clock or Clock(), **options)  # type: ignore[arg-type]


def record(folder: Path, *departures: Departure, clock: Clock | None = None) -> None:
    ledger = open_ledger(folder, clock)
    ledger.record(departures)
    ledger.close()


def numbers(folder: Path) -> list[int]:
    return [entry.n for entry in read(folder) if isinstance(entry, Entry)]


def damaged(folder: Path) -> list[Damaged]:
    return [line for line in read(folder) if isinstance(line, Damaged)]


def kept(folder: Path, digest: str) -> bytes | None:
    contents = Contents.open_to_read(folder)
    assert contents is not None
    try:
        return contents.get(digest)
    finally:
        contents.close()


def test_a_line_is_what_the_format_says_in_its_order(tmp_path: Path) -> None:
    record(tmp_path, STATUS)
    expected = {
        "v": 1, "n": 1, "time": "2026-11-25T12:00:00.250Z", "bridge": "dmz", "federation": "solder",
        "participant": "berlin", "topic": "fl/v1/solder/up/berlin/status", "kind": "status", "bytes": 15,
        "sha256": sha256(STATUS.payload), "policy": "allow[0]", "content": None, "previous": None, "signature": None,
    }  # fmt: skip
    assert (tmp_path / FILE).read_text() == json.dumps(expected, separators=(",", ":")) + "\n"
    assert kept(tmp_path, sha256(STATUS.payload)) == STATUS.payload


def test_a_batch_is_one_write_and_one_fsync_and_both_come_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def write(file: int, lines: bytes) -> int:
        done.append(f"write {len(lines.splitlines())}")
        return os.write(file, lines)

    ledger = open_ledger(tmp_path, write=write)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    ledger.record([status("1"), status("2"), status("3")])
    assert done == ["write 3", "fsync"]
    ledger.record([])
    assert len(done) == 2
    ledger.close()


def test_numbers_go_on_over_restarts_and_days(tmp_path: Path) -> None:
    clock = Clock()
    record(tmp_path, status("1"), status("2"), clock=clock)
    clock.now += DAY
    record(tmp_path, status("3"), clock=clock)
    ledger = open_ledger(tmp_path, clock)
    ledger.record([status("4")])
    clock.now += DAY
    ledger.record([status("5")])
    ledger.close()
    assert numbers(tmp_path) == [1, 2, 3, 4, 5]
    assert [file.name for file in day_files(tmp_path)] == [FILE, "2026-11-26.jsonl", "2026-11-27.jsonl"]


def test_a_clock_that_was_set_back_goes_on_in_the_newest_file(tmp_path: Path) -> None:
    clock = Clock()
    record(tmp_path, status("1"), clock=clock)
    clock.now -= 3 * DAY
    record(tmp_path, status("2"), clock=clock)
    assert [file.name for file in day_files(tmp_path)] == [FILE]
    assert numbers(tmp_path) == [1, 2]
    until = datetime(2026, 11, 23, tzinfo=UTC)
    assert [entry.n for entry in read(tmp_path, until=until) if isinstance(entry, Entry)] == [2]


def test_starting_reads_only_the_end_of_the_newest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    record(tmp_path, *[status(topic="t" * 5000) for _ in range(200)], clock=clock)
    clock.now += DAY
    record(tmp_path, *[status(topic="t" * 5000) for _ in range(200)], clock=clock)
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args: (opened.append(path.name), real(path, *args))[1])
    record(tmp_path, status(), clock=clock)
    assert opened == ["2026-11-26.jsonl"]
    assert numbers(tmp_path)[-1] == 401


@pytest.mark.parametrize("cut", [1, 2, 20, 150, 300])
def test_a_torn_line_stays_apart_and_is_reported(tmp_path: Path, cut: int) -> None:
    record(tmp_path, status("1"), status("2"))
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    if cut > 1:  # else the line is whole but for its end
        assert damaged(tmp_path) == [Damaged(FILE, 2, at_end=True)]
    record(tmp_path, status("3"))
    assert file.read_bytes().startswith(whole[:-cut] + b"\n{")
    expected = [Damaged(FILE, 2, at_end=False)] if cut > 1 else []
    assert damaged(tmp_path) == expected
    assert numbers(tmp_path) == ([1, 3] if cut > 1 else [1, 2, 3])


def test_a_file_of_which_nothing_is_whole_does_not_start_the_numbers_again(tmp_path: Path) -> None:
    clock = Clock()
    record(tmp_path, status("1"), status("2"), clock=clock)
    (tmp_path / "2026-11-26.jsonl").write_bytes(b'{"v":1,"')
    clock.now += DAY
    record(tmp_path, status("3"), clock=clock)
    assert numbers(tmp_path) == [1, 2, 3]
    assert damaged(tmp_path) == [Damaged("2026-11-26.jsonl", 1, at_end=False)]


@pytest.mark.parametrize("wrote", [None, 0, 40, 500])
def test_a_full_disk_is_an_error_and_the_ledger_goes_on_once_there_is_room(tmp_path: Path, wrote: int | None) -> None:
    full = False

    def write(file: int, lines: bytes) -> int:
        if not full:
            return os.write(file, lines)
        if wrote is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(file, lines[:wrote])

    ledger = open_ledger(tmp_path, write=write)
    ledger.record([status("1")])
    full = True
    for _ in range(2):
        with pytest.raises(LedgerError, match="nothing leaves until it can"):
            ledger.record([status("2"), status("3")])
    full = False
    ledger.record([status("4")])
    ledger.close()
    found = numbers(tmp_path)
    assert found == sorted(set(found))  # never the same number twice, whatever a failed write left behind
    assert found[0] == 1
    assert [e.sha256 for e in read(tmp_path) if isinstance(e, Entry)][-1] == sha256(b"4")


def test_a_failed_fsync_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path)

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(LedgerError, match="Input/output error"):
            ledger.record([status("1")])
    ledger.record([status("2")])
    ledger.close()
    assert numbers(tmp_path) == [1, 2]


def test_contents_that_cannot_be_stored_are_an_error_and_nothing_is_recorded(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    blocker = sqlite3.connect(tmp_path / "contents.sqlite", isolation_level=None)
    blocker.execute("DROP TABLE contents")
    with pytest.raises(LedgerError, match="no such table"):
        ledger.record([status("1")])
    blocker.close()
    ledger.close()
    assert numbers(tmp_path) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="in use by another bridge"):
        open_ledger(tmp_path)
    ledger.close()
    open_ledger(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="can't be used"):
        open_ledger(tmp_path / "file" / "ledger")


def test_a_damaged_contents_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "contents.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError, match=r"contents\.sqlite"):
        open_ledger(tmp_path)
    with pytest.raises(ContentsError):
        Contents.open_to_read(tmp_path)


def chunks(content: bytes) -> list[Departure]:
    manifest = make_manifest(content, "update", MIN_CHUNK_BYTES)
    whole = Transfer(manifest.sha256, content)
    return [
        Departure(
            "solder", "berlin", f"fl/{i}", "update", "allow[0]", encode_chunk(chunk_of(content, manifest, i)), whole
        )
        for i in range(len(manifest.chunks))
    ]


@pytest.mark.parametrize("size", [1, MIN_CHUNK_BYTES, 3 * MIN_CHUNK_BYTES, 3 * MIN_CHUNK_BYTES + 7])
def test_a_transfer_is_kept_once_as_a_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    parts = chunks(content)
    record(tmp_path, *parts)
    entries = [e for e in read(tmp_path) if isinstance(e, Entry)]
    assert [(e.sha256, e.content) for e in entries] == [(sha256(p.payload), sha256(content)) for p in parts]
    contents = Contents.open_to_read(tmp_path)
    assert contents is not None
    assert contents.get(sha256(content)) == content
    assert contents.counts().contents == 1
    contents.close()


def test_what_is_no_piece_of_its_transfer_is_kept_itself(tmp_path: Path) -> None:
    (part,) = chunks(UPDATE)
    other = encode_chunk(chunk_of(b"row 17 of line 3", make_manifest(b"row 17 of line 3", "update"), 0))
    # msgpack takes a key twice: the first one would travel unseen
    twice = bytes([part.payload[0] + 1]) + b"\xa1i\xa6SECRET" + part.payload[1:]
    for payload in (b"a manifest", other, twice, part.payload + b"x"):
        record(tmp_path, replace(part, payload=payload))
        entry = [e for e in read(tmp_path) if isinstance(e, Entry)][-1]
        assert entry.content is None
        assert kept(tmp_path, entry.sha256) == payload


def test_contents_are_bounded_and_the_oldest_make_room(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, keep_contents_bytes=25)
    for text in ("a" * 10, "b" * 10, "a" * 10, "c" * 10, "d" * 26):
        ledger.record([status(text)])
    ledger.close()
    assert numbers(tmp_path) == [1, 2, 3, 4, 5]
    assert [kept(tmp_path, sha256(text.encode())) is not None for text in ("a" * 10, "b" * 10, "c" * 10, "d" * 26)] == [
        False, True, True, False,
    ]  # fmt: skip
    contents = Contents.open_to_read(tmp_path)
    assert contents is not None
    counts = contents.counts()
    contents.close()
    assert (counts.contents, counts.bytes, counts.dropped, counts.dropped_bytes) == (2, 20, 1, 10)


def test_a_content_that_leaves_again_on_another_day_is_no_longer_the_oldest(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock, keep_contents_bytes=20)
    ledger.record([status("a" * 10), status("b" * 10)])
    clock.now += DAY
    ledger.record([status("a" * 10)])
    ledger.record([status("c" * 10)])
    ledger.close()
    assert kept(tmp_path, sha256(b"a" * 10)) is not None
    assert kept(tmp_path, sha256(b"b" * 10)) is None


def test_altered_contents_are_seen(tmp_path: Path) -> None:
    record(tmp_path, STATUS)
    db = sqlite3.connect(tmp_path / "contents.sqlite")
    with db:
        db.execute("UPDATE contents SET content = ?", (b"nothing",))
    db.close()
    with pytest.raises(ContentAltered):
        kept(tmp_path, sha256(STATUS.payload))


def test_old_days_go_as_whole_files_with_their_contents(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock, keep_days=2)
    for day in range(5):
        ledger.record([status(f"day {day}"), status("every day")])
        clock.now += DAY
    ledger.close()
    assert [file.stem for file in day_files(tmp_path)] == ["2026-11-27", "2026-11-28", "2026-11-29"]
    assert [kept(tmp_path, sha256(f"day {day}".encode())) is not None for day in range(5)] == [False] * 2 + [True] * 3
    assert kept(tmp_path, sha256(b"every day")) is not None


def test_numbers_go_on_after_a_rest_longer_than_what_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    record(tmp_path, status("1"), status("2"), clock=clock)
    clock.now += 400 * DAY
    ledger = open_ledger(tmp_path, clock, keep_days=2)
    ledger.record([status("3")])
    ledger.close()
    assert numbers(tmp_path)[-1] == 3


def test_reading_selects_by_time_kind_and_participant(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.record([status("1")])
    clock.now += 60
    ledger.record([status("2", kind="statistics")])
    clock.now += DAY
    ledger.record([status("3", participant="lyon")])
    ledger.close()

    def chosen(**selection: object) -> list[int]:
        return [e.n for e in read(tmp_path, **selection) if isinstance(e, Entry)]  # type: ignore[arg-type]

    assert chosen(kind="statistics") == [2]
    assert chosen(participant="lyon") == [3]
    moment = datetime.fromtimestamp(NOON + 60, UTC)
    assert chosen(since=moment) == [2, 3]
    assert chosen(until=moment) == [1]
    assert chosen(since=datetime(2026, 11, 26, tzinfo=UTC)) == [3]


def test_a_reader_beside_a_writer_sees_entries_in_order_and_no_damage(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.record([status("0")])
    ended = threading.Event()
    problems: list[str] = []

    def look() -> None:
        seen = 0
        while not (ended.is_set() and seen >= 601):
            found = list(read(tmp_path))
            if any(isinstance(line, Damaged) and not line.at_end for line in found):
                problems.append("damaged")
            ns = [e.n for e in found if isinstance(e, Entry)]
            if ns != list(range(1, len(ns) + 1)) or len(ns) < seen:
                problems.append(f"{len(ns)} after {seen}")
            seen = len(ns)
            if problems:
                return

    reader = threading.Thread(target=look, name="reader")
    reader.start()
    for _ in range(30):
        ledger.record([status(str(i)) for i in range(20)])
    ended.set()
    reader.join()
    ledger.close()
    assert problems == []


def test_a_killed_writer_leaves_everything_that_it_said_was_recorded(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom broker_bridge.bridge.ledger import Departure, Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), 'dmz')\n"
        "for i in range(100000):\n"
        "    ledger.record([Departure('f', 'p', 't', 'status', 'allow[0]', b'%d' % i)])\n"
        "    print(i, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    said = 20 + writer.stdout.read().count(b"\n")
    writer.wait()
    writer.stdout.close()
    assert len(numbers(tmp_path)) >= said
    record(tmp_path, STATUS)
    found = numbers(tmp_path)
    assert found == list(range(1, len(found) + 1))
    assert kept(tmp_path, sha256(b"19")) == b"19"
