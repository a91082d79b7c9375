"""Backup of a running aggregator and its restore: one tar file with the store, the vectors and the model file.

The store is copied row by row within one read transaction, which is a snapshot in SQLite (WAL) as in PostgreSQL, into a
file of SQLite: a backup of one database can be restored into the other.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from sqlalchemy import Connection, create_engine, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from aggregator import tables
from aggregator.config import AggregatorConfig
from aggregator.events import EpochRaised
from aggregator.reducer import step
from aggregator.state import State
from aggregator.store import Entry, Store, StoreError, has_file, url_of
from aggregator.templates import TEMPLATES
from aggregator.vectors import VECTORS, DirectoryLock, VectorFiles
from broker_bridge.durable import put_in_place
from uns_topics.model import Count, Sha256, Slug, Value, Version

CONTENTS, STORE, MODEL = "backup.json", "store.sqlite", "model.onnx"
ATTEMPTS = 3
"""A vector that the snapshot needs may be let go while it is being copied: then all of it is copied again."""
_ROWS = 200
_LARGEST_CONTENTS = 2**24


class BackupError(Exception):
    """Nothing was written, or nothing was restored, and why."""


class _Gone(Exception):
    """A vector that the snapshot needs was let go meanwhile."""


class Contents(Value):
    """What lies in a backup. `files`: SHA-256 by name."""

    backup: Literal[1] = 1
    federation: Slug
    generation: int
    epoch: int
    current: Version
    last_round: Count
    files: dict[str, Sha256] = Field(max_length=100_000)


def backup(config: AggregatorConfig, target: Path) -> Contents:
    """Write a backup, while the aggregator runs or not. Raises: BackupError; OSError: `target` can't be written."""
    if not has_file(config):
        raise BackupError(f"{config.data_dir}: no aggregator has run on this directory")
    if target.exists():
        raise BackupError(f"{target} is there already; a backup never replaces another one")
    for _ in range(ATTEMPTS):
        try:
            return _backup(config, target)
        except _Gone as error:
            gone = error
    raise BackupError(f"the aggregator lets go of versions faster than they can be copied: {gone}")


def _backup(config: AggregatorConfig, target: Path) -> Contents:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".headgate-backup-") as name:
        copy = Path(name) / STORE
        try:
            _copy(url_of(config), f"sqlite:///{copy}")
            store = Store(f"sqlite:///{copy}")
        except (SQLAlchemyError, StoreError) as error:
            raise BackupError(f"the store can't be read: {str(error).splitlines()[0]}") from None
        try:
            state = store.load()
            if state is None:
                raise BackupError("the store is empty: no aggregator has run on it")
            files = {STORE: copy, MODEL: config.model, **_vectors(config.data_dir, store, state)}
            files |= {f"{TEMPLATES}/{path.name}": path for path in (config.data_dir / TEMPLATES).glob("*.onnx")}
        finally:
            store.close()
        _require_whole(copy)
        contents = Contents(
            federation=state.rules.federation,
            generation=state.rules.generation,
            epoch=state.epoch,
            current=state.current.version,
            last_round=state.last_round,
            files={name: _sha256(path) for name, path in files.items()},
        )
        part = Path(name) / "backup.tar"
        with tarfile.open(part, "w") as tar:
            raw = contents.model_dump_json(indent=1).encode()
            head = tarfile.TarInfo(CONTENTS)
            head.size = len(raw)
            tar.addfile(head, io.BytesIO(raw))
            for member, path in files.items():
                tar.add(path, member, recursive=False)
        put_in_place(part, target)
    return contents


def _vectors(data_dir: Path, store: Store, state: State) -> dict[str, Path]:
    """Every vector that is still there, by its name in the backup. Raises: _Gone: one without which nothing goes on."""
    files = VectorFiles(data_dir / VECTORS)
    needed = {state.current.version}
    if state.round is not None:
        needed.add(state.round.base.version)
    if state.candidate is not None and state.candidate.sha256 is not None:
        needed.add(state.candidate.version)
    if state.former is not None:  # plants run it on, and the next change of meaning would start from it
        needed.add(state.former.version)
    found: dict[str, Path] = {}
    for version, sha256 in store.newest_versions(10_000):
        path = files.path(version, sha256)
        if path.exists():
            found[f"{VECTORS}/{path.name}"] = path
        elif version in needed:
            raise _Gone(f"version {version}")
    return found


def restore(config: AggregatorConfig, source: Path) -> Contents:
    """Make the store, the vectors and, where there is none, the model file anew, with a raised epoch.

    Raises: BackupError: no backup, another federation's, damaged, or there is a store already. OSError.
    """
    with DirectoryLock(config.data_dir), tempfile.TemporaryDirectory(dir=config.data_dir, prefix="restore-") as name:
        folder = Path(name)
        contents = _unpacked(source, folder)
        if contents.federation != config.federation:
            raise BackupError(f"{source} is of federation {contents.federation}, not of {config.federation}")
        if _has_store(config):
            raise BackupError(f"there is a store already at {config.database or config.data_dir}: move it away first")
        for kind in (VECTORS, TEMPLATES):
            (config.data_dir / kind).mkdir(exist_ok=True)
            for path in (folder / kind).glob("*"):
                put_in_place(path, config.data_dir / kind / path.name)
        if not config.model.exists():
            put_in_place(folder / MODEL, config.model)
        try:
            _raise_epoch(f"sqlite:///{folder / STORE}")
            _copy(f"sqlite:///{folder / STORE}", url_of(config))
        except (SQLAlchemyError, StoreError) as error:
            raise BackupError(f"the store can't be written: {str(error).splitlines()[0]}") from None
    return contents


def _raise_epoch(url: str) -> None:
    """Participants must prefer what the restored aggregator says to what the lost one left on the broker.

    The ids of earlier processes are forgotten: what stands on `down/status` may be from after the backup.
    """
    store = Store(url)
    try:
        state = store.load()
        assert state is not None  # a backup has one
        event = EpochRaised(epoch=state.epoch + 1)
        after, outputs = step(state, event, state.at)
        store.commit([Entry(event, state.at, outputs)], after)
        store.put("boots", [])
    finally:
        store.close()


def _copy(source: str, target: str) -> None:
    """All rows of all tables, from one snapshot. Raises: SQLAlchemyError."""
    read, write = create_engine(source), create_engine(target)
    try:
        if read.dialect.name != "sqlite":  # there a read transaction is a snapshot by itself
            read = read.execution_options(isolation_level="REPEATABLE READ")
        tables.metadata.create_all(write)
        with read.connect() as rows, write.begin() as connection:
            for table in tables.metadata.sorted_tables:
                found = rows.execution_options(yield_per=_ROWS).execute(select(table))
                for part in found.mappings().partitions(_ROWS):
                    connection.execute(insert(table), [dict(row) for row in part])
            _count_on(connection)
    finally:
        read.dispose()
        write.dispose()


def _count_on(connection: Connection) -> None:
    """PostgreSQL's serial columns go on behind the rows that came with a number."""
    if connection.dialect.name != "postgresql":
        return
    for table in (tables.events, tables.receipts):
        sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
        highest = f"(SELECT COALESCE(MAX(id), 0) + 1 FROM {table.name})"  # noqa: S608 - names of our own tables
        connection.exec_driver_sql(f"SELECT setval({sequence}, {highest}, false)")


def _has_store(config: AggregatorConfig) -> bool:
    if config.database is None:
        return has_file(config)
    engine = create_engine(config.database)
    try:
        return bool(set(inspect(engine).get_table_names()) & set(tables.metadata.tables))
    except SQLAlchemyError as error:
        raise BackupError(f"the database can't be reached: {str(error).splitlines()[0]}") from None
    finally:
        engine.dispose()


def _unpacked(source: Path, folder: Path) -> Contents:
    """The backup's files, each with the hash that its contents name. Raises: BackupError."""
    try:
        with tarfile.open(source, "r:") as tar:
            first = tar.next()
            if first is None or first.name != CONTENTS or first.size > _LARGEST_CONTENTS:
                raise BackupError(f"{source} is no backup of an aggregator")
            head = tar.extractfile(first)
            assert head is not None
            contents = Contents.model_validate_json(head.read())
            while (member := tar.next()) is not None:
                if member.name not in contents.files or not member.isfile():
                    raise BackupError(f"{source} holds {member.name!r}, which its contents don't name")
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, ValidationError, EOFError) as error:
        raise BackupError(f"{source} is no backup of an aggregator: {str(error).splitlines()[0]}") from None
    for name, sha256 in contents.files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != sha256:
            raise BackupError(f"{source} is damaged: {name} is missing or another one than was written")
    return contents


def _require_whole(path: Path) -> None:
    """SQLite without its log beside it: all of it is in the one file. Raises: BackupError."""
    if any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal")):
        raise BackupError(f"{path} was not closed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
