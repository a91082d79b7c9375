"""What this edge has left on the plant's broker, retained: kept on disk, so that a rename or a leave clears it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from edge.store import SampleStore

_KEY = "published-leaves"


class Inventory:
    """Topics of retained leaves. Calls block on the store; they are made on its thread."""

    def __init__(self, store: SampleStore) -> None:
        self._store = store
        kept = store.get(_KEY)
        self._topics: set[str] = set(json.loads(kept)) if kept is not None else set()

    @property
    def topics(self) -> frozenset[str]:
        """Everything that may stand on the broker."""
        return frozenset(self._topics)

    def add(self, topics: Iterable[str]) -> None:
        """These are about to be published. Raises: sqlite3.Error."""
        if fresh := set(topics) - self._topics:
            self._write(self._topics | fresh)

    def forget(self, topics: Iterable[str]) -> None:
        """These were cleared. Raises: sqlite3.Error."""
        self._write(self._topics - set(topics))

    def foreign(self, is_ours: Callable[[str], bool]) -> list[str]:
        """What an earlier configuration published and this one never will, sorted."""
        return sorted(topic for topic in self._topics if not is_ours(topic))

    def _write(self, topics: set[str]) -> None:
        self._store.put(_KEY, json.dumps(sorted(topics)).encode())
        self._topics = topics
