"""Messages that are not what their topic declares: counted by reason, and said seldom, however many come."""

from __future__ import annotations

import logging
from collections import Counter

SAID_AT = (1, 10, 100)
SAID_EVERY = 1000


class Unusable(Counter[str]):
    """By the class of the error. Args: log: where they are said; source: from whom they come, for people."""

    def __init__(self, log: logging.Logger, source: str) -> None:
        super().__init__()
        self._log = log
        self._source = source

    def take(self, topic: str, error: Exception) -> None:
        """One more."""
        reason = type(error).__name__
        self[reason] += 1
        if self[reason] in SAID_AT or self[reason] % SAID_EVERY == 0:
            self._log.warning("%s, %s: %s (%d so far)", self._source, topic[:200], error, self[reason])
