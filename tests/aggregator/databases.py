"""The databases that a store may lie in: one for each folder, on a server of the test run."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, text

from aggregator.store import sqlite_url
from tests.servers import Server


class Databases:
    """Args: server: PostgreSQL; None: files of SQLite."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._names: dict[Path, str] = {}

    @property
    def is_sqlite(self) -> bool:
        return self._server is None

    def url(self, folder: Path) -> str:
        """Of this folder's store, made empty where there is none yet."""
        server = self._server
        if server is None:
            return sqlite_url(folder)
        if folder not in self._names:
            name = self._names[folder] = f"store_{len(self._names)}"
            engine = create_engine(_url(server, "postgres"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
                connection.execute(text(f"CREATE DATABASE {name}"))
            engine.dispose()
        return _url(server, self._names[folder])


def _url(server: Server, name: str) -> str:
    return f"{server.scheme}://headgate@{server.host}:{server.port}/{name}"
