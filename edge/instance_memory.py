"""What an edge remembers of each instance's inference, so that a restart goes on where it stopped. Pure.

Without it leaves could go back in event time, an alarm would forget that it is on, and a backlog would look live.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from edge.alarm import AlarmMemory, AlarmState
from edge.backlog import Lag


@dataclass(slots=True)
class InstanceMemory:
    """Attributes:
    published_s: event time of the state leaves; None where nothing was published.
    usual_s: usual time between two samples, for the age of a stale mark.
    lag: how late samples usually are. alarm: of the rule `edge.alarm` follows.
    """

    published_s: float | None = None
    usual_s: float | None = None
    lag: Lag | None = None
    alarm: AlarmMemory = field(default_factory=AlarmMemory)

    def dump(self) -> bytes:
        """As JSON."""
        alarm, lag = self.alarm, self.lag
        states = [[s.active, s.cleared] for s in (alarm.before, alarm.now)]
        return json.dumps(
            {
                "published_s": self.published_s,
                "usual_s": self.usual_s,
                "lag": [lag.since_s, lag.least_s, lag.before_s] if lag is not None else None,
                "alarm": [*states, alarm.time_s, alarm.key] if alarm != AlarmMemory() else None,
            }
        ).encode()

    @classmethod
    def load(cls, raw: bytes) -> InstanceMemory:
        """What `dump` wrote; empty where it is something else: it is learnt anew."""
        try:
            found = json.loads(raw)
            lag, alarm, memory = found["lag"], found["alarm"], AlarmMemory()
            if alarm is not None:
                (was_on, was_cleared), (is_on, cleared), time_s, key = alarm
                before, now = AlarmState(bool(was_on), int(was_cleared)), AlarmState(bool(is_on), int(cleared))
                memory = AlarmMemory(before, now, float(time_s), str(key))
            return cls(
                _number(found["published_s"]),
                _number(found["usual_s"]),
                Lag(*(float(value) for value in lag)) if lag is not None else None,
                memory,
            )
        except (ValueError, KeyError, TypeError):
            return cls()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
