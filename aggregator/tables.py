"""The store's tables. Plain SQL types only, so that SQLite and PostgreSQL hold the same."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

SCHEMA_VERSION = 2

metadata = MetaData()
_Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only where the type is INTEGER

events = Table(
    "events",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("body", Text, nullable=False),
)
snapshot = Table(
    "snapshot",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
pending = Table(
    "pending_effects",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
updates = Table(
    "updates",
    metadata,
    Column("participant", String(64), primary_key=True),
    Column("round_number", Integer, primary_key=True),
    Column("counted_in", Integer, nullable=False, index=True),
    Column("staleness", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("num_examples", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=True),
)
receipts = Table(
    "receipts",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("participant", String(64), nullable=False, index=True),
    Column("transfer", String(16), nullable=False, index=True),
    Column("round_number", Integer, nullable=False),
    Column("result", String(16), nullable=False),
    Column("code", String(32), nullable=True),
)
versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("lineage", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("manifest", Text, nullable=True),
)
strategy_state = Table(
    "strategy_state",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)
steps = Table(
    "steps",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("residual", LargeBinary, nullable=False),
)
statistics = Table(
    "statistics",
    metadata,
    Column("participant", String(64), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("body", Text, nullable=False),
)
rounds = Table(
    "rounds",
    metadata,
    Column("round_number", Integer, primary_key=True, autoincrement=False),
    Column("summary", Text, nullable=False),
)
kv = Table(
    "kv",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
