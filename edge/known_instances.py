"""Which instances an edge has seen, read beside the edge while it runs: nothing is locked and nothing written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edge.store_file import SCHEMA_VERSION, StoreError


def known_instances(path: Path) -> tuple[str, ...]:
    """Paths of the instances that gave a sample or a label to a store, sorted; none where there is no store yet.

    Raises: StoreError: no sample store, or one of another release.
    """
    if not path.exists():
        return ()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                raise StoreError(f"{path}: schema {version}; this release reads schema {SCHEMA_VERSION}")
            return tuple(row[0] for row in db.execute("SELECT path FROM instances ORDER BY path"))
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
