"""Which instances' inputs have stopped, by the time of arrival. Pure: the clock is an argument.

Without an age from the site, an instance is stale after ten times its usual time between two samples, and never before
a minute. The usual time is a running mean, in which one sample of ten counts a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

USUAL_GAPS = 10.0
SHORTEST_S = 60.0
UNKNOWN_S = 600.0
"""Age where the usual time between two samples isn't known yet."""
WEIGHT = 0.1
"""Of the newest gap in the usual one."""


@dataclass(slots=True)
class _Instance:
    last_s: float
    usual_s: float | None = None
    stale: bool = False


class Staleness:
    """Args: age_s: of the site's configuration; None: derived for each instance."""

    def __init__(self, age_s: float | None = None) -> None:
        self._age_s = age_s
        self._instances: dict[str, _Instance] = {}

    def restore(self, instance: str, now_s: float, usual_s: float | None) -> None:
        """An instance of an earlier process: its age counts from now."""
        self._instances[instance] = _Instance(now_s, usual_s)

    def heard(self, instance: str, now_s: float) -> bool:
        """A sample of this instance has come. Returns: it may become stale sooner than was known."""
        known = self._instances.get(instance)
        if known is None:
            self._instances[instance] = _Instance(now_s)
            return True
        before = float("inf") if known.stale else known.last_s + self._age(known)
        gap = max(0.0, now_s - known.last_s)
        if not known.stale:  # the gap of a line that stood still is not a usual one
            known.usual_s = gap if known.usual_s is None else known.usual_s + WEIGHT * (gap - known.usual_s)
        known.last_s, known.stale = now_s, False
        return known.last_s + self._age(known) < before

    def usual_s(self, instance: str) -> float | None:
        """The usual time between two samples; None where it isn't known."""
        known = self._instances.get(instance)
        return known.usual_s if known is not None else None

    def newly(self, now_s: float) -> list[str]:
        """Instances that have become stale since the last call."""
        found = [path for path, i in self._instances.items() if not i.stale and now_s >= i.last_s + self._age(i)]
        for path in found:
            self._instances[path].stale = True
        return found

    @property
    def due_s(self) -> float | None:
        """When the next instance becomes stale; None where none can."""
        return min((i.last_s + self._age(i) for i in self._instances.values() if not i.stale), default=None)

    @property
    def share(self) -> float:
        """Of the instances that are stale; 0 without any."""
        return sum(i.stale for i in self._instances.values()) / max(1, len(self._instances))

    def _age(self, instance: _Instance) -> float:
        if self._age_s is not None:
            return self._age_s
        return UNKNOWN_S if instance.usual_s is None else max(SHORTEST_S, USUAL_GAPS * instance.usual_s)
