"""What the bridge keeps survives being closed and opened again, and a disk that fails loses nothing that was kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker_bridge.bridge.custody import KEPT_RECEIPTS, Custody, CustodyError, Held, Mirrored
from tests.broker_bridge.bridge.examples import ENVELOPE, FEDERATION, PARTICIPANT, manifest_of, update
from uns_topics.rounds import Receipt
from uns_topics.transfers import make_manifest

CONTENTS = [update(round_number=n) for n in (1, 2, 3)]


def held(index: int) -> Held:
    manifest = manifest_of(CONTENTS[index], round_number=index + 1)
    return Held(0, ENVELOPE, manifest, "allow[0]", 100.0 + index)


def test_a_queue_keeps_its_order_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite"
    with closing(Custody(path)) as custody:
        kept = [custody.hold(PARTICIPANT, held(i), CONTENTS[i]) for i in range(3)]
        assert custody.queue(FEDERATION, "lyon") == []
    with closing(Custody(path)) as custody:
        assert custody.queue(FEDERATION, PARTICIPANT) == kept
        assert [custody.content(h.position) for h in kept] == CONTENTS


def test_an_answer_takes_the_bytes_and_stays_known(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite"
    receipt = Receipt(id=held(0).manifest.id, result="accepted")
    with closing(Custody(path)) as custody:
        kept = custody.hold(PARTICIPANT, held(0), CONTENTS[0])
        custody.settle(FEDERATION, PARTICIPANT, receipt)
        with pytest.raises(CustodyError, match="is gone"):
            custody.content(kept.position)
    with closing(Custody(path)) as custody:
        assert custody.queue(FEDERATION, PARTICIPANT) == []
        assert custody.receipts(FEDERATION, PARTICIPANT) == [receipt]
        assert custody.receipts(FEDERATION, "lyon") == []


def test_receipts_are_bounded(tmp_path: Path) -> None:
    with closing(Custody(tmp_path / "bridge.sqlite")) as custody:
        with custody._change() as cursor:
            rows = (
                ("f", "p", f"{i:016x}", Receipt(id=f"{i:016x}", result="accepted").model_dump_json())
                for i in range(5000)
            )
            cursor.executemany("INSERT INTO receipts (federation, participant, id, receipt) VALUES (?, ?, ?, ?)", rows)
        custody.settle("f", "p", Receipt(id="f" * 16, result="accepted"))
        kept = custody.receipts("f", "p")
        assert len(kept) == KEPT_RECEIPTS
        assert kept[-1].id == "f" * 16


def test_other_chunks_of_the_same_bytes(tmp_path: Path) -> None:
    with closing(Custody(tmp_path / "bridge.sqlite")) as custody:
        kept = custody.hold(PARTICIPANT, held(0), CONTENTS[0])
        smaller = manifest_of(CONTENTS[0], chunk_bytes=100)
        custody.rechunk(kept.position, ENVELOPE, smaller)
        (found,) = custody.queue(FEDERATION, PARTICIPANT)
        assert found.manifest == smaller
        assert custody.content(found.position) == CONTENTS[0]


def test_two_versions_of_the_very_same_bytes_are_two(tmp_path: Path) -> None:
    with closing(Custody(tmp_path / "bridge.sqlite")) as custody:
        manifests = [make_manifest(b"model", "model", 100, version=v) for v in (1, 2)]
        for manifest in manifests:
            custody.mirror("f", Mirrored(manifest, b"model"))
        assert [m.manifest for m in custody.mirrors("f")] == manifests
        custody.mirror("f", Mirrored(manifests[0], None))
        assert [(m.manifest.version, m.content) for m in custody.mirrors("f")] == [(1, None), (2, b"model")]
        custody.forget_mirrored("f", Mirrored(manifests[0], None).name)
        assert [m.manifest.version for m in custody.mirrors("f")] == [2]


def test_inventories_and_plans(tmp_path: Path) -> None:
    with closing(Custody(tmp_path / "bridge.sqlite")) as custody:
        custody.note("uplink", "f", "berlin", "t/1")
        custody.note("uplink", "f", "berlin", "t/1")
        custody.note("plant", "f", "", "t/2")
        assert custody.noted("uplink", "f", "berlin") == {"t/1"}
        custody.strike("uplink", "t/1")
        assert custody.noted("uplink", "f", "berlin") == set()
        assert custody.noted("plant", "f", "") == {"t/2"}
        assert custody.plan("f") is None
        custody.keep_plan("f", b"one")
        custody.keep_plan("f", b"two")
        assert custody.plan("f") == b"two"


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite"
    with closing(Custody(path)) as custody:
        first = custody.hold(PARTICIPANT, held(0), CONTENTS[0])
        pages = custody._db.execute("PRAGMA page_count").fetchone()[0]
        custody._db.execute(f"PRAGMA max_page_count = {pages}")
        big = CONTENTS[1] + bytes(100_000)
        with pytest.raises(CustodyError, match="is the disk full"):
            custody.hold(PARTICIPANT, held(1), big)
        assert custody.queue(FEDERATION, PARTICIPANT) == [first]
        custody._db.execute("PRAGMA max_page_count = 1000000")
        custody.hold(PARTICIPANT, held(1), CONTENTS[1])
        assert [h.manifest.round_number for h in custody.queue(FEDERATION, PARTICIPANT)] == [1, 2]


def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite"
    path.write_bytes(b"no database at all, just text that is long enough to be looked at" * 20)
    with pytest.raises(CustodyError, match="can't be used"):
        Custody(path)


def test_every_change_is_durable_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite"
    with closing(Custody(path)) as custody:
        assert custody._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert custody._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        custody.hold(PARTICIPANT, held(0), CONTENTS[0])
        with closing(sqlite3.connect(path)) as other:  # as a process that starts after a kill would see it
            assert other.execute("SELECT COUNT(*) FROM transfers").fetchone()[0] == 1
