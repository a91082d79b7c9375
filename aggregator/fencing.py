"""Two aggregators must not run one federation. Pure decisions on what is seen on `down/status`.

A newcomer looks at the retained status: absent, offline or of its own store -> start. Otherwise it listens for two
heartbeats: a live status of that boot means that the other runs; silence means a stale copy. Every start over a foreign
status raises the epoch, because participants ignore a lower epoch than the highest they have seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from uns_topics.presence import AggregatorStatus

HEARTBEATS = 2
"""How long a newcomer listens."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A status on `down/status` that is not ours."""

    boot: str
    status: AggregatorStatus


@dataclass(frozen=True, slots=True)
class Start:
    """Nobody else runs: start with at least this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Listen:
    """Somebody else seems to run: wait for a live status of this boot; with silence, start with this epoch."""

    boot: str
    epoch: int


def first_look(found: Foreign | None, own_boots: Collection[str], epoch: int, takeover: bool) -> Start | Listen:
    """What the retained status (None: there is none) means to a newcomer with this epoch in its store."""
    if found is None or found.boot in own_boots:
        return Start(epoch + 1 if takeover else epoch)
    above = max(epoch, found.status.epoch) + 1
    if takeover or found.status.state == "offline":
        return Start(above)
    return Listen(found.boot, above)


def must_yield(found: Foreign, own_boot: str, own_epoch: int) -> bool:
    """Whether a live status of another aggregator ends us: a higher epoch, or on a tie the smaller boot wins."""
    if found.status.state == "offline" or found.boot == own_boot:
        return False
    return (found.status.epoch, own_boot) > (own_epoch, found.boot)
