"""The primary host of an edge node: who must be there before anything is said (Sparkplug 3.0.0, chapter 5). Pure."""

from __future__ import annotations

import json

from uns_topics.sparkplug import state_topic

MAX_STATE_BYTES = 1024


class PrimaryHost:
    """What is known of one host application. Args: host: its id.

    Its STATE is believed in the order of its timestamps: a late will of an earlier session changes nothing.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.topic = state_topic(host)
        self.is_online = False
        self._newest_ms: int | None = None

    def forget(self) -> None:
        """A new session begins: whether the host is on this broker is to be heard in it; the timestamp stays."""
        self.is_online = False

    def hear(self, payload: bytes) -> None:
        """One STATE message; what is none is left alone."""
        if len(payload) > MAX_STATE_BYTES:
            return
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        online, timestamp = said.get("online"), said.get("timestamp")
        if not isinstance(online, bool) or type(timestamp) is not int:
            return
        if self._newest_ms is None or timestamp >= self._newest_ms:
            self._newest_ms, self.is_online = timestamp, online
