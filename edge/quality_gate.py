"""From measures of the data to pass, warn or hold, with hysteresis, so that a participant doesn't come and go. Pure.

What is worse counts at once: a plant must not train on what has just gone wrong. What is better counts once each
measure has fallen clearly below what raised it, and once that has lasted for the contract's dwell in event time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from uns_topics.codes import QualityCheck

LEAVE = 0.8
"""Of the limit that raised a finding: it is over below this part of it."""

Verdict = Literal["pass", "warn", "hold"]
Key = tuple[str, str]
_ORDER: tuple[Verdict, ...] = ("pass", "warn", "hold")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of the data beside its limit.

    Attributes:
        value: for people: a share, or samples per hour.
        strain: the figure in units of its limit; above 1 is too much.
        warns_at: the strain that warns.
        holds: too much holds the participant back; else it only warns.
        text: a sentence for the plant's own people.
    """

    check: QualityCheck
    feature: str | None
    value: float
    strain: float
    warns_at: float
    holds: bool
    text: str

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.check.value, self.feature or ""


@dataclass(frozen=True)
class GateState:
    """What the gate remembers.

    Attributes:
        raised: measures that warn or hold now.
        better_since_s: event time since which the measures have been better than the verdict; None where they aren't.
    """

    verdict: Verdict = "pass"
    raised: Mapping[Key, Verdict] = field(default_factory=dict)
    better_since_s: float | None = None

    def dump(self) -> str:
        """As JSON."""
        raised = [[*key, verdict] for key, verdict in sorted(self.raised.items())]
        return json.dumps({"verdict": self.verdict, "raised": raised, "better_since_s": self.better_since_s})

    @classmethod
    def load(cls, text: str) -> GateState:
        """What `dump` wrote. Raises: ValueError, KeyError, TypeError: it is something else."""
        found = json.loads(text)
        raised = {(check, feature): _verdict(verdict) for check, feature, verdict in found["raised"]}
        since = found["better_since_s"]
        return cls(_verdict(found["verdict"]), raised, None if since is None else float(since))


def step(state: GateState, measures: Sequence[Measure], time_s: float, dwell_s: float) -> GateState:
    """The next verdict. Args: time_s: newest event time; dwell_s: how long measures must be better."""
    judged = {m.key: _judge(m, state.raised.get(m.key)) for m in measures}
    raised = {key: verdict for key, verdict in judged.items() if verdict != "pass"}
    target: Verdict = max(raised.values(), key=_ORDER.index, default="pass")
    if _ORDER.index(target) >= _ORDER.index(state.verdict):
        return GateState(target, raised)
    since = time_s if state.better_since_s is None else min(state.better_since_s, time_s)
    if time_s - since >= dwell_s:
        return GateState(target, raised)
    return GateState(state.verdict, raised, since)


def _judge(measure: Measure, before: Verdict | None) -> Verdict:
    if measure.holds and measure.strain > (LEAVE if before == "hold" else 1.0):
        return "hold"
    return "warn" if measure.strain > measure.warns_at * (LEAVE if before is not None else 1.0) else "pass"


def _verdict(text: object) -> Verdict:
    for known in _ORDER:
        if text == known:
            return known
    raise ValueError(f"no verdict: {text!r}")
