"""The aggregator's store: every event with its records, the new state and its pending effects in one transaction.

SQLite by default (WAL, every commit on disk), PostgreSQL by URL. Calls block; the service makes them in a thread. One
lock serialises them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, create_engine, delete, event, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from aggregator import tables
from aggregator.config import AggregatorConfig
from aggregator.effects import (
    EFFECT,
    Effect,
    Output,
    Record,
    RecordLate,
    RecordManifest,
    RecordReceipt,
    RecordRound,
    RecordStatistics,
    RecordUpdate,
    RecordVersion,
    RecordVersionStatus,
    effects,
    records,
)
from aggregator.events import Event
from aggregator.state import State
from uns_topics.codes import Code
from uns_topics.reports import Statistics
from uns_topics.rounds import Receipt, RoundSummary, VersionManifest

KEPT_EVENTS = 100_000
KEPT_RECEIPTS = 50_000
_SNAPSHOT = 1
_PAGE_BYTES = 16 * 1024
"""Of a new SQLite file. An update fills a hundred pages of the usual 4 KiB, and each costs two writes."""

STATISTICS, MANIFEST, STRATEGY_STATE = "statistics", "manifest", "strategy-state"
STEP, STEP_RESIDUAL = "step", "step-residual"
"""Names of attachments; an update's bytes are named by their SHA-256."""

Attachments = Mapping[str, bytes]


class StoreError(Exception):
    """The store can't be opened or was written by another version of this program."""


@dataclass(frozen=True)
class Entry:
    """One event as it was decided: what goes into the store together."""

    event: Event
    at: float
    outputs: tuple[Output, ...] = ()
    attachments: Attachments = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Counted:
    """An accepted update in the round where it counts.

    Attributes: round_number: of the round that it was asked in; staleness: versions promoted since its base.
    """

    participant: str
    round_number: int
    num_examples: int
    staleness: int


@dataclass(frozen=True)
class PendingEffect:
    """An effect that is not known to be performed; ids count up in the order of the effects."""

    id: int
    effect: Effect


class Store:
    """Open with `Store(url)`, end with `close()`.

    Raises: StoreError: no such database, or one of another schema.
    """

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._closed = False
        options: dict[str, Any] = {}
        if url.startswith("sqlite"):
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        try:
            self._engine = create_engine(url, **options)
            if url.startswith("sqlite"):
                event.listen(self._engine, "connect", _durable)
            tables.metadata.create_all(self._engine)
            found = self.get("schema")
            if found is None:
                self.put("schema", tables.SCHEMA_VERSION)
        except SQLAlchemyError as error:
            raise StoreError(f"the store can't be opened: {str(error).splitlines()[0]}") from None
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the database needs {error.name}, which is not installed: pip install 'headgate[postgres]'"
            ) from None
        if found is not None and found != tables.SCHEMA_VERSION:
            self.close()
            raise StoreError(
                f"the store has schema {found}; this program writes {tables.SCHEMA_VERSION}: go on with the release "
                "that wrote it, or start anew with another data_dir and `headgate aggregator --from` the last model"
            )
        self._next_effect = 1 + max((p.id for p in self.pending()), default=0)

    def close(self) -> None:
        """Let go of the database, after what a thread is writing now."""
        with self._lock:
            self._closed = True
            self._engine.dispose()

    # Events -----------------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], state: State, done: Iterable[int] = ()) -> list[PendingEffect]:
        """Write events, their records, the state after the last, and their effects as pending, in one transaction.

        Args: done: ids of effects that were performed meanwhile.
        Returns: the effects, to be performed now in this order.
        """
        found: list[PendingEffect] = []
        with self._transaction() as connection:
            for entry in entries:
                body = entry.event.model_dump_json()
                connection.execute(insert(tables.events).values(at=entry.at, kind=entry.event.kind, body=body))
                for record in records(entry.outputs):
                    _RECORDERS[type(record)](connection, record, entry.attachments)
                for effect in effects(entry.outputs):
                    found.append(PendingEffect(self._next_effect, effect))
                    self._next_effect += 1
            if found:
                rows = [{"id": p.id, "body": p.effect.model_dump_json()} for p in found]
                connection.execute(insert(tables.pending), rows)
            if gone := list(done):
                connection.execute(delete(tables.pending).where(tables.pending.c.id.in_(gone)))
            connection.execute(delete(tables.snapshot).where(tables.snapshot.c.id == _SNAPSHOT))
            connection.execute(insert(tables.snapshot).values(id=_SNAPSHOT, body=state.model_dump_json()))
        return found

    def load(self) -> State | None:
        """The state after the last event; None in an empty store."""
        with self._transaction() as connection:
            body = connection.execute(select(tables.snapshot.c.body)).scalar()
        return None if body is None else State.model_validate_json(body)

    def pending(self) -> list[PendingEffect]:
        """Effects that may not have been performed, in order."""
        with self._transaction() as connection:
            rows = connection.execute(select(tables.pending).order_by(tables.pending.c.id)).all()
        return [PendingEffect(row.id, EFFECT.validate_json(row.body)) for row in rows]

    def count_events(self) -> int:
        """Events that are kept."""
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.events)).scalar_one())

    # What was recorded ------------------------------------------------------------------------------------------------

    def receipt(self, participant: str, transfer: str) -> Receipt | None:
        """The first answer to this transfer."""
        t = tables.receipts
        query = select(t).where(t.c.participant == participant, t.c.transfer == transfer).order_by(t.c.id).limit(1)
        with self._transaction() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Receipt(id=row.transfer, result=row.result, code=None if row.code is None else Code(row.code))

    def update_bytes(self, participant: str, round_number: int) -> bytes:
        """An accepted update as it came. Raises: KeyError: none is kept."""
        t = tables.updates
        query = select(t.c.body).where(t.c.participant == participant, t.c.round_number == round_number)
        with self._transaction() as connection:
            body = connection.execute(query).scalar()
        if body is None:
            raise KeyError(f"no update of {participant} is kept for round {round_number}")
        return bytes(body)

    def counted(self, round_number: int) -> tuple[Counted, ...]:
        """The updates that count in a round, by participant and the round that they were asked in."""
        t = tables.updates
        query = select(t.c.participant, t.c.round_number, t.c.num_examples, t.c.staleness)
        with self._transaction() as connection:
            rows = connection.execute(query.where(t.c.counted_in == round_number)).all()
        found = (Counted(row.participant, row.round_number, row.num_examples, row.staleness) for row in rows)
        return tuple(sorted(found, key=lambda one: (one.participant, one.round_number)))

    def statistics(self, participant: str, generation: int) -> Statistics:
        """A participant's statistics. Raises: KeyError."""
        t = tables.statistics
        query = select(t.c.body).where(t.c.participant == participant, t.c.generation == generation)
        with self._transaction() as connection:
            body = connection.execute(query).scalar()
        if body is None:
            raise KeyError(f"no statistics of {participant} for generation {generation}")
        return Statistics.model_validate_json(body)

    def all_statistics(self, generation: int) -> dict[str, Statistics]:
        """Everybody's statistics that a generation starts from, by participant and in their order."""
        t = tables.statistics
        query = select(t.c.participant, t.c.body).where(t.c.generation == generation).order_by(t.c.participant)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return {row.participant: Statistics.model_validate_json(row.body) for row in rows}

    def version(self, number: int) -> tuple[str, VersionManifest | None] | None:
        """A version's SHA-256 and manifest (None before it was prepared); None where there is no such version."""
        t = tables.versions
        with self._transaction() as connection:
            row = connection.execute(select(t.c.sha256, t.c.manifest).where(t.c.version == number)).first()
        if row is None:
            return None
        return row.sha256, None if row.manifest is None else VersionManifest.model_validate_json(row.manifest)

    def generation(self, version: int) -> int | None:
        """The generation of a version; None where there is no such version."""
        t = tables.versions
        with self._transaction() as connection:
            found: int | None = connection.execute(select(t.c.generation).where(t.c.version == version)).scalar()
        return found

    def newest_versions(self, count: int) -> list[tuple[int, str]]:
        """Numbers and SHA-256 of the newest versions."""
        t = tables.versions
        query = select(t.c.version, t.c.sha256).order_by(t.c.version.desc()).limit(count)
        with self._transaction() as connection:
            return [(row.version, row.sha256) for row in connection.execute(query)]

    def lineage(self, number: int) -> str:
        """A version's lineage as JSON. Raises: KeyError."""
        t = tables.versions
        with self._transaction() as connection:
            found = connection.execute(select(t.c.lineage).where(t.c.version == number)).scalar()
        if found is None:
            raise KeyError(f"no version {number}")
        return str(found)

    def strategy_state(self, version: int) -> bytes | None:
        """The strategy's state that belongs to a version."""
        return self._of_version(tables.strategy_state.c.body, version)

    def step(self, version: int) -> bytes | None:
        """The encoded step from a version's parent; None where it only goes down whole."""
        return self._of_version(tables.steps.c.body, version)

    def step_residual(self, version: int) -> bytes | None:
        """What the step to a version left out: the next step from it adds that."""
        return self._of_version(tables.steps.c.residual, version)

    def _of_version(self, column: Column[Any], version: int) -> bytes | None:
        with self._transaction() as connection:
            found = connection.execute(select(column).where(column.table.c.version == version)).scalar()
        return None if found is None else bytes(found)

    def history(self, last: int) -> tuple[RoundSummary, ...]:
        """The last rounds, oldest first."""
        t = tables.rounds
        query = select(t.c.summary).order_by(t.c.round_number.desc()).limit(last)
        with self._transaction() as connection:
            found = [RoundSummary.model_validate_json(body) for body in connection.execute(query).scalars()]
        return tuple(reversed(found))

    # Small things -----------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Any:
        """A small named value; None where there is none."""
        with self._transaction() as connection:
            text = connection.execute(select(tables.kv.c.value).where(tables.kv.c.name == name)).scalar()
        return None if text is None else json.loads(text)

    def put(self, name: str, value: Any) -> None:
        """Set a small named value (anything that JSON holds)."""
        with self._transaction() as connection:
            connection.execute(delete(tables.kv).where(tables.kv.c.name == name))
            connection.execute(insert(tables.kv).values(name=name, value=json.dumps(value)))

    def prune(
        self, last_round: int, oldest_version: int = 0, *, keep_rounds: int = 2, spared_round: int | None = None
    ) -> None:
        """Let go of what no recovery needs: old update bytes, events and receipts, steps and states of old versions.

        Args:
            keep_rounds: the last ones, whose updates are kept whole; older ones keep their hash.
            spared_round: another one of that kind.
        """
        with self._transaction() as connection:
            t = tables.updates
            old = (t.c.counted_in <= last_round - keep_rounds) & t.c.body.is_not(None)
            if spared_round is not None:
                old &= t.c.counted_in != spared_round
            connection.execute(update(t).where(old).values(body=None))
            connection.execute(delete(tables.steps).where(tables.steps.c.version < oldest_version))
            states = tables.strategy_state
            connection.execute(delete(states).where(states.c.version < oldest_version))
            for table, kept in ((tables.events, KEPT_EVENTS), (tables.receipts, KEPT_RECEIPTS)):
                newest = connection.execute(select(func.max(table.c.id))).scalar() or 0
                connection.execute(delete(table).where(table.c.id <= newest - kept))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._lock:
            if self._closed:  # a thread whose task was cancelled at the end
                raise StoreError("the store is closed")
            with self._engine.begin() as connection:
                yield connection


def _durable(connection: Any, record: object) -> None:
    """A commit that returned survives a power cut; readers don't wait for the writer."""
    del record
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # before anything else: a file that is there keeps its own
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _replace(connection: Connection, table: Any, keys: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Delete and insert: an upsert in plain SQL."""
    connection.execute(delete(table).where(*(table.c[name] == value for name, value in keys.items())))
    connection.execute(insert(table).values(**keys, **values))


def _record_update(connection: Connection, record: RecordUpdate, attachments: Attachments) -> None:
    _replace(
        connection,
        tables.updates,
        {"participant": record.participant, "round_number": record.round_number},
        {
            "counted_in": record.counted_in,
            "staleness": record.staleness,
            "sha256": record.sha256,
            "num_examples": record.num_examples,
            "body": attachments[record.sha256],
        },
    )


def _record_late(connection: Connection, record: RecordLate, attachments: Attachments) -> None:
    del attachments
    t = tables.updates
    for one in record.updates:
        key = (t.c.participant == one.participant) & (t.c.round_number == one.round_number)
        values = {"counted_in": record.counted_in, "staleness": one.staleness}
        connection.execute(update(t).where(key).values(values))


def _record_receipt(connection: Connection, record: RecordReceipt, attachments: Attachments) -> None:
    del attachments
    code = record.code.value if record.code is not None else None
    values = record.model_dump(include={"participant", "transfer", "round_number", "result"})
    connection.execute(insert(tables.receipts).values(**values, code=code))


def _record_statistics(connection: Connection, record: RecordStatistics, attachments: Attachments) -> None:
    keys = {"participant": record.participant, "generation": record.generation}
    _replace(connection, tables.statistics, keys, {"body": attachments[STATISTICS].decode()})


def _record_version(connection: Connection, record: RecordVersion, attachments: Attachments) -> None:
    values = {
        "sha256": record.sha256,
        "generation": record.generation,
        "lineage": record.lineage.model_dump_json(),
        "status": record.status,
        "manifest": None,
    }
    _replace(connection, tables.versions, {"version": record.version}, values)
    _replace(connection, tables.strategy_state, {"version": record.version}, {"body": attachments[STRATEGY_STATE]})
    if STEP in attachments:
        step = {"body": attachments[STEP], "residual": attachments[STEP_RESIDUAL]}
        _replace(connection, tables.steps, {"version": record.version}, step)


def _record_manifest(connection: Connection, record: RecordManifest, attachments: Attachments) -> None:
    t = tables.versions
    manifest = attachments[MANIFEST].decode()
    connection.execute(update(t).where(t.c.version == record.version).values(manifest=manifest))


def _record_version_status(connection: Connection, record: RecordVersionStatus, attachments: Attachments) -> None:
    del attachments
    t = tables.versions
    connection.execute(update(t).where(t.c.version == record.version).values(status=record.status))


def _record_round(connection: Connection, record: RecordRound, attachments: Attachments) -> None:
    del attachments
    keys = {"round_number": record.summary.round_number}
    _replace(connection, tables.rounds, keys, {"summary": record.summary.model_dump_json()})


_RECORDERS: dict[type[Record], Any] = {
    RecordUpdate: _record_update,
    RecordLate: _record_late,
    RecordReceipt: _record_receipt,
    RecordStatistics: _record_statistics,
    RecordVersion: _record_version,
    RecordManifest: _record_manifest,
    RecordVersionStatus: _record_version_status,
    RecordRound: _record_round,
}


def sqlite_url(data_dir: Path) -> str:
    """The default store in a data directory."""
    return f"sqlite:///{_file(data_dir)}"


def url_of(config: AggregatorConfig) -> str:
    """Where an aggregator's store lies."""
    return config.database or sqlite_url(config.data_dir)


def has_file(config: AggregatorConfig) -> bool:
    """Whether there is something to open; of a database that is named in the configuration only a connection says."""
    return config.database is not None or _file(config.data_dir).exists()


def _file(data_dir: Path) -> Path:
    return data_dir / "aggregator.db"
