"""The contract that an edge reads its plant by: the approved file, or the one that a plan brought earlier."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from pydantic import ValidationError

from broker_bridge.settings import read_yaml, validate
from edge.config import EdgeConfig
from edge.store import SampleStore
from uns_topics.contract import Contract

log = logging.getLogger("headgate.edge")

CONTRACT_KEY = "contract"
"""Name in the store of what a plan brought."""


def known_contract(config: EdgeConfig, store: SampleStore) -> Contract | None:
    """None where no file is named and no plan has come yet, or another release kept its contract.

    Raises: ConfigError: the file can't be used.
    """
    return _choose(config, store.get(CONTRACT_KEY) if config.approve == "any" else None)


def peeked_contract(config: EdgeConfig) -> Contract | None:
    """The same beside an edge that may be running, which has its store to itself. Raises: ConfigError."""
    may_count = config.approve == "any" or config.contract is None
    return _choose(config, _peek(config.data_dir / "samples.sqlite") if may_count else None)


def _choose(config: EdgeConfig, kept: bytes | None) -> Contract | None:
    """What a plan brought counts more than a file."""
    if config.contract is not None and kept is None:
        return validate(Contract, read_yaml(config.contract), str(config.contract))
    try:
        return Contract.model_validate_json(kept) if kept is not None else None
    except ValidationError as error:
        log.warning(
            "the contract of an earlier plan can't be read (%s): it is asked for anew", error.errors()[0]["msg"]
        )
        return None


def _peek(path: Path) -> bytes | None:
    """What a plan brought; None where there is no store yet, or one that can't be read."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT content FROM kv WHERE name = ?", (CONTRACT_KEY,)).fetchone()
    except sqlite3.Error:
        return None
    return found[0] if found is not None else None
