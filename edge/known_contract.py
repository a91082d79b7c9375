"""The contract that an edge reads its plant by: the approved file, or the one that a plan brought earlier."""

from __future__ import annotations

import contextlib
import logging
import sqlite3

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
    kept = store.get(CONTRACT_KEY) if config.approve == "any" else None  # a plan's word counts more than a file's
    if config.contract is not None and kept is None:
        return validate(Contract, read_yaml(config.contract), str(config.contract))
    try:
        return Contract.model_validate_json(kept) if kept is not None else None
    except ValidationError as error:
        log.warning(
            "the contract of an earlier plan can't be read (%s): it is asked for anew", error.errors()[0]["msg"]
        )
        return None


def peeked_contract(config: EdgeConfig) -> Contract | None:
    """The same beside an edge that may be running, which has its store to itself. Raises: ConfigError."""
    if config.contract is not None:
        return validate(Contract, read_yaml(config.contract), str(config.contract))
    path = config.data_dir / "samples.sqlite"
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT content FROM kv WHERE name = ?", (CONTRACT_KEY,)).fetchone()
        return Contract.model_validate_json(found[0]) if found is not None else None
    except (sqlite3.Error, ValidationError):
        return None
