"""Backups: of a running aggregator, into an empty folder, from one kind of database into the other."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aggregator import backup as backups
from aggregator.backup import BackupError, backup, restore
from aggregator.config import AggregatorConfig
from aggregator.events import LinkChanged
from aggregator.state import VersionRef
from aggregator.store import Entry, Store
from aggregator.vectors import VECTORS, VectorFiles
from broker_bridge.memory import MemoryBroker
from tests.aggregator.databases import Databases
from tests.aggregator.test_aggregator_store import Process, play
from tests.aggregator.test_service import history, is_final, make_config, running, sync
from tests.servers import Server
from tests.support.scripted_participant import ScriptedParticipant
from uns_topics.plan import Tolerances


@sync
async def test_a_restored_aggregator_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    """The aggregator's machine burns after the backup; what it did since is on the broker and at the participants."""
    broker = MemoryBroker()
    first = make_config(tmp_path, tolerances=Tolerances(rounds=1))
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in ("a", "b")]
        a = people[0]
        async with running(broker, first):
            await a.until(lambda: is_final(a))
            made = backup(first, tmp_path / "aggregator.tar")  # while it runs
            assert (made.current, made.last_round, made.epoch) == (2, 1, 1)
        async with running(broker, make_config(tmp_path, tolerances=Tolerances(rounds=2))):
            await a.until(lambda: a.current is not None and a.current.version == 3 and is_final(a))
        lost = a.current
        second = make_config(tmp_path, data_dir=tmp_path / "second", tolerances=Tolerances(rounds=3))
        assert restore(second, tmp_path / "aggregator.tar") == made
        async with running(broker, second):
            await a.until(lambda: len(history(broker).rounds) == 3 and is_final(a))
            assert a.aggregator is not None
            assert a.aggregator.epoch > 1
            assert a.current is not None
            assert a.current.epoch > 1
            assert a.current.lineage.parent == 3
            assert lost is not None
            assert lost.sha256 != a.current.sha256


@pytest.fixture
def played(tmp_path: Path) -> AggregatorConfig:
    """An aggregator that stopped while version 2 was a candidate."""
    process = Process(tmp_path)
    play(process)
    process.store.close()
    return process.config.model_copy(update={"database": None})


def elsewhere(config: AggregatorConfig, folder: Path, **changes: object) -> AggregatorConfig:
    return config.model_copy(update={"data_dir": folder, "model": folder / "model.onnx", **changes})


def files_of(folder: Path) -> set[str]:
    return {f"{kind}/{path.name}" for kind in ("vectors", "templates") for path in (folder / kind).iterdir()}


def test_everything_that_a_recovery_needs_is_in_it(tmp_path: Path, played: AggregatorConfig) -> None:
    backup(played, tmp_path / "aggregator.tar")
    other = elsewhere(played, tmp_path / "other")
    made = restore(other, tmp_path / "aggregator.tar")
    assert (tmp_path / "other/model.onnx").read_bytes() == played.model.read_bytes()
    before, after = (
        Store(f"sqlite:///{played.data_dir}/aggregator.db"),
        Store(f"sqlite:///{tmp_path}/other/aggregator.db"),
    )
    was, state = before.load(), after.load()
    assert was is not None
    assert state == was.but(epoch=2)
    assert made.epoch == was.epoch
    assert after.pending() == before.pending()
    assert after.get("boots") == []
    assert after.update_bytes("a", 1) == before.update_bytes("a", 1)
    more = after.commit([Entry(LinkChanged(up=True), 1.0, ())], state)
    assert more == []
    before.close()
    after.close()
    assert files_of(other.data_dir) == files_of(played.data_dir)
    assert not list(other.data_dir.glob("restore-*"))


def test_a_backup_of_one_database_can_be_restored_into_the_other(
    tmp_path: Path, played: AggregatorConfig, postgresql_server: Server
) -> None:
    backup(played, tmp_path / "sqlite.tar")
    databases = Databases(postgresql_server)
    there = elsewhere(played, tmp_path / "there", database=databases.url(tmp_path / "there"))
    restore(there, tmp_path / "sqlite.tar")
    with pytest.raises(BackupError, match="there is a store already"):
        restore(there, tmp_path / "sqlite.tar")
    store = Store(str(there.database))
    state = store.load()
    assert state is not None
    store.commit([Entry(LinkChanged(up=True), 1.0, ())], state)  # ids go on behind those that came along
    count = store.count_events()
    store.close()
    backup(there, tmp_path / "postgresql.tar")
    back = elsewhere(played, tmp_path / "back")
    restore(back, tmp_path / "postgresql.tar")
    again = Store(f"sqlite:///{tmp_path}/back/aggregator.db")
    assert again.count_events() == count + 1
    assert again.load() == state.but(epoch=3)
    again.close()


def test_what_a_backup_refuses(tmp_path: Path, played: AggregatorConfig) -> None:
    with pytest.raises(BackupError, match="no aggregator has run"):
        backup(elsewhere(played, tmp_path / "nowhere"), tmp_path / "b.tar")
    (tmp_path / "b.tar").touch()
    with pytest.raises(BackupError, match="never replaces"):
        backup(played, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").stat().st_size == 0


def test_a_vector_that_is_let_go_meanwhile_makes_it_begin_again(
    tmp_path: Path, played: AggregatorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 0
    whole = backups._copy

    def slow(source: str, target: str) -> None:
        nonlocal copies
        copies += 1
        whole(source, target)
        if copies == 1:
            for path in (played.data_dir / "vectors").glob("*"):
                path.rename(path.with_name(f"moved-{path.name}"))
        else:
            for path in (played.data_dir / "vectors").glob("moved-*"):
                path.rename(path.with_name(path.name.removeprefix("moved-")))

    monkeypatch.setattr(backups, "_copy", slow)
    backup(played, tmp_path / "b.tar")
    assert copies == 2
    assert [path.name for path in tmp_path.glob(".headgate-backup-*")] == []


def test_what_plants_run_on_of_the_generation_before_is_needed(tmp_path: Path, played: AggregatorConfig) -> None:
    store = Store(f"sqlite:///{played.data_dir}/aggregator.db")
    state, (number, sha256) = store.load(), store.newest_versions(10)[-1]
    assert state is not None
    assert number == 0
    path = VectorFiles(played.data_dir / VECTORS).path(number, sha256)
    path.unlink()
    assert f"vectors/{path.name}" not in backups._vectors(played.data_dir, store, state)
    with pytest.raises(backups._Gone, match="version 0"):
        backups._vectors(played.data_dir, store, state.but(former=VersionRef(version=number, sha256=sha256)))
    store.close()


def _without(name: str) -> Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]:
    return lambda members: [member for member in members if member[0] != name]


def _changed(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [(name, content[:-1] + b"x" if name.startswith("vectors/") else content) for name, content in members]


def _outside(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [*members, ("../evil", b"x")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without("backup.json"), "is no backup of an aggregator"),
        (_without("store.sqlite"), "is damaged: store.sqlite"),
        (_changed, "is damaged: vectors/"),
        (_outside, "which its contents don't name"),
        (lambda _: [], "is no backup of an aggregator"),
    ],
)
def test_a_damaged_backup_restores_nothing(
    tmp_path: Path, played: AggregatorConfig, change: Callable[..., list[tuple[str, bytes]]], sentence: str
) -> None:
    backup(played, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        for name, content in change(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    other = elsewhere(played, tmp_path / "other")
    with pytest.raises(BackupError, match=sentence):
        restore(other, tmp_path / "c.tar")
    assert {path.name for path in other.data_dir.iterdir()} <= {"lock"}
    assert not (tmp_path / "evil").exists()


def test_it_is_of_one_federation(tmp_path: Path, played: AggregatorConfig) -> None:
    backup(played, tmp_path / "b.tar")
    with pytest.raises(BackupError, match="is of federation tiny, not of other"):
        restore(elsewhere(played, tmp_path / "other", federation="other"), tmp_path / "b.tar")
