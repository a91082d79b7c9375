"""Stores in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aggregator.databases import Databases
from tests.servers import Server, postgresql


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """One for the whole run: it takes seconds to start."""
    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """SQLite, then PostgreSQL."""
    return Databases(None if request.param == "sqlite" else request.getfixturevalue("postgresql_server"))
