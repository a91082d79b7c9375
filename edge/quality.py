"""What the data of one participant look like: shares and rates of the last samples and messages. Pure.

Counted are the rows that became samples, not single messages: a silent tag counts in every sample that lacks it. Older
ones are forgotten by and by, so that neither a bad first day nor a good first year decides for ever. What follows from
it, pass, warn or hold, is up to `edge.quality_gate`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.quality_gate import GateState, Measure, Verdict, step
from uns_topics.codes import DataProblem, QualityCheck
from uns_topics.contract import Contract
from uns_topics.reports import DataQuality, FeatureQuality, QualityFinding

HALF_ROWS = 1000
"""A row counts half after as many later ones."""
HALF_MESSAGES = 10_000
RATE_WEIGHT = 0.02
"""Of the newest gap between two samples in their usual gap."""
WARN_AT = 0.5
"""A share warns from this part of the contract's threshold on."""
WARN_WITHOUT_LIMIT = 0.5
"""A share warns above this where the contract sets no limit."""
WARN_PROBLEMS = 0.05
"""Share of messages with a problem that warns."""
NORMAL = frozenset({"retained", "duplicate"})
"""Counted, but part of an ordinary day: brokers replay and redeliver."""
MAX_FINDINGS = 100
MIN_ROWS = 20
"""Below it nothing is said."""


@dataclass(frozen=True)
class Judgement:
    """`hold`: receives models but does not contribute. `reasons`: sentences for the plant's own people."""

    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Observed:
    """What others count.

    Attributes:
        problems: reasons of `Ingest`; messages: all of them, both since the process started.
        stale: share of instances whose inputs have stopped.
        unlabelled: share of the last samples whose label's window closed without one.
        more: measures that others made, such as units that look wrong.
    """

    problems: Mapping[str, int] = field(default_factory=dict)
    messages: int = 0
    stale: float = 0.0
    unlabelled: float = 0.0
    more: Sequence[Measure] = ()


class QualityCounters:
    """Running figures of one participant, and its gate.

    Args: kept: what `dump` gave before a restart; of another contract's features it counts as nothing.
    """

    def __init__(self, contract: Contract, kept: bytes | None = None) -> None:
        width = len(contract.features)
        self._contract = contract
        self._low = np.array([f.minimum for f in contract.features])
        self._high = np.array([f.maximum for f in contract.features])
        self._rows = 0.0
        self._missing = np.zeros(width)
        self._out_of_range = np.zeros(width)
        self._flat: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] = {}
        self._usual_gap: dict[str, float] = {}
        self._newest_s: dict[str, float] = {}
        self._messages = 0.0
        self._labels = 0.0
        self._problems: dict[str, float] = {}
        self._seen: tuple[int, int, dict[str, int]] = (0, 0, {})
        self._labels_seen = 0
        self._gate = GateState()
        self._findings: tuple[QualityFinding, ...] = ()
        if kept is not None:
            self._load(kept)

    # Counting --------------------------------------------------------------------------------------------------------

    def add(self, instance: str, rows: npt.NDArray[np.float32], time_s: float | None = None) -> None:
        """Count rows of one instance in time order.

        Args: rows: shape (n, F), contract units, NaN = missing; time_s: event time of their sample.
        """
        if time_s is not None:
            self._add_time(instance, time_s)
        if len(rows) == 0:
            return
        present = ~np.isnan(rows)
        fade, weight = _forget(len(rows), HALF_ROWS)
        outside = (rows < self._low) | (rows > self._high)
        self._rows = self._rows * fade + weight * len(rows)
        self._missing = self._missing * fade + weight * (~present).sum(axis=0)
        self._out_of_range = self._out_of_range * fade + weight * outside.sum(axis=0)
        self._add_flat(instance, rows)

    def add_samples(self, samples: Iterable[tuple[str, npt.NDArray[np.float32], float]]) -> None:
        """Count a batch, which costs hardly more than one sample. Args: samples: instance, rows, time as in `add`."""
        by_instance: dict[str, list[npt.NDArray[np.float32]]] = {}
        for instance, rows, time_s in samples:
            self._add_time(instance, time_s)
            by_instance.setdefault(instance, []).append(rows)
        for instance, parts in by_instance.items():
            self.add(instance, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def add_labels(self, count: int) -> None:
        """Labels with a code that the signal map knows."""
        self._labels_seen += count

    def _add_time(self, instance: str, time_s: float) -> None:
        """The usual gap is a geometric mean: a weekend's pause among a thousand boards changes little."""
        before = self._newest_s.get(instance)
        if before is not None and time_s <= before:
            return
        self._newest_s[instance] = time_s
        if before is not None:
            gap = time_s - before
            usual = self._usual_gap.get(instance, gap)
            self._usual_gap[instance] = math.exp((1 - RATE_WEIGHT) * math.log(usual) + RATE_WEIGHT * math.log(gap))

    def _add_flat(self, instance: str, rows: npt.NDArray[np.float32]) -> None:
        """Length of the run of equal numbers that each feature ends with; a missing value ends a run."""
        width = rows.shape[1]
        last, run = self._flat.get(instance, (np.full(width, np.nan, np.float32), np.zeros(width, np.int64)))
        changed = np.vstack([last, rows[:-1]]) != rows  # NaN differs from all, itself included
        after_change = np.argmax(changed[::-1], axis=0)
        since = np.where(changed.any(axis=0), after_change + 1, run + len(rows))
        self._flat[instance] = (rows[-1].copy(), np.where(np.isnan(rows[-1]), 0, since))

    def _observe(self, observed: Observed) -> None:
        """Take over what others counted since the last time."""
        messages, labels, problems = self._seen
        fresh = max(0, observed.messages - messages)
        fade, weight = _forget(fresh, HALF_MESSAGES)
        self._messages = self._messages * fade + weight * fresh
        self._labels = self._labels * fade + weight * (self._labels_seen - labels)
        counts = {code: max(0, count - problems.get(code, 0)) for code, count in observed.problems.items()}
        codes = self._problems.keys() | counts.keys()
        self._problems = {code: self._problems.get(code, 0.0) * fade + weight * counts.get(code, 0) for code in codes}
        self._seen = (observed.messages, self._labels_seen, dict(observed.problems))

    # What it comes to ------------------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """The newest event time; 0 before any."""
        return max(self._newest_s.values(), default=0.0)

    @property
    def features(self) -> tuple[FeatureQuality, ...]:
        """Shares of missing and out-of-range values per feature; 0 before any row."""
        rows = max(1e-9, self._rows)
        present = np.maximum(1e-9, self._rows - self._missing)
        return tuple(
            FeatureQuality(
                feature=feature.name,
                missing=float(min(1.0, self._missing[i] / rows)),
                out_of_range=float(min(1.0, self._out_of_range[i] / present[i])),
            )
            for i, feature in enumerate(self._contract.features)
        )

    @property
    def flat(self) -> dict[str, float]:
        """Share of the instances where a feature has shown the same number for long, by its name."""
        runs = [run for _, run in self._flat.values()]
        width = len(self._contract.features)
        shares = np.mean(np.array(runs) >= self._contract.quality.flat_rows, axis=0) if runs else np.zeros(width)
        return {f.name: float(share) for f, share in zip(self._contract.features, shares, strict=True)}

    @property
    def per_hour(self) -> float | None:
        """Samples of an instance by event time: the median over the instances; None before it is known."""
        gaps = list(self._usual_gap.values())
        return 3600.0 / float(np.median(gaps)) if gaps else None

    def judge(self, observed: Observed) -> Judgement:
        """Pass, warn or hold, by what was seen lately and by the verdict before."""
        self._observe(observed)
        measures = [*self._measures(observed), *observed.more]
        self._gate = step(self._gate, measures, self.time_s, self._contract.quality.min_dwell_s)
        raised = sorted((m for m in measures if m.key in self._gate.raised), key=lambda m: -m.strain)
        held = [m.text for m in raised if self._gate.raised[m.key] == "hold"]
        warned = [m.text for m in raised if self._gate.raised[m.key] == "warn"]
        if self._gate.better_since_s is not None:
            dwell = self._contract.quality.min_dwell_s
            held.insert(0, f"the data are better; {self._gate.verdict} until that has lasted {dwell:g} s")
        self._findings = tuple(
            QualityFinding(
                check=m.check,
                feature=m.feature,
                verdict="hold" if self._gate.raised[m.key] == "hold" else "warn",
                value=min(1e9, max(0.0, m.value)),
            )
            for m in raised[:MAX_FINDINGS]
        )
        return Judgement(self._gate.verdict, (*held, *warned))

    def report(self, observed: Observed, samples: int, matured: int) -> tuple[DataQuality, Judgement]:
        """What leaves the plant of all this (bounded numbers, no sentences), and what its own people are told."""
        judgement = self.judge(observed)
        return (
            DataQuality(
                verdict=judgement.verdict,
                samples=samples,
                matured=matured,
                features=self.features,
                findings=self._findings,
                problems={DataProblem(code): count for code, count in sorted(observed.problems.items()) if count > 0},
            ),
            judgement,
        )

    def _measures(self, observed: Observed) -> list[Measure]:
        limits = self._contract.quality
        found: list[Measure] = []
        if self._rows >= MIN_ROWS:
            for declared, seen in zip(self._contract.features, self.features, strict=True):
                of = declared.name
                found.append(_share(QualityCheck.OUT_OF_RANGE, of, seen.out_of_range, limits.max_out_of_range))
                if not declared.optional:
                    found.append(_share(QualityCheck.MISSING, of, seen.missing, limits.max_missing))
            for name, share_flat in self.flat.items():
                found.append(_share(QualityCheck.FLAT, name, share_flat, limits.max_flat, warns_above=0.0))
            found.append(_share(QualityCheck.LABEL_LAG, None, observed.unlabelled, limits.max_unlabelled))
            found += self._rate()
        found.append(_share(QualityCheck.STALE, None, observed.stale, limits.max_stale))
        return found + self._of_messages()

    def _rate(self) -> list[Measure]:
        limits, rate = self._contract.quality, self.per_hour
        if rate is None or (limits.min_per_hour is None and limits.max_per_hour is None):
            return []
        low, high = limits.min_per_hour or 0.0, limits.max_per_hour or math.inf
        text = f"{rate:.3g} samples per hour and instance (limits {low:g} to {high:g})"
        return [Measure(QualityCheck.RATE, None, rate, max(low / rate, rate / high), 1.0, True, text)]

    def _of_messages(self) -> list[Measure]:
        limits, messages = self._contract.quality, self._messages
        if messages < MIN_ROWS:
            return []
        shares = {code: min(1.0, count / messages) for code, count in self._problems.items()}
        unmapped = self._problems.get("unmapped-code", 0.0)
        share = unmapped / max(1e-9, unmapped + self._labels)
        found = [
            _share(QualityCheck.DUPLICATES, None, shares.get("duplicate", 0.0), limits.max_duplicates),
            _share(QualityCheck.UNMAPPED, None, share, limits.max_unmapped, warns_above=WARN_PROBLEMS),
        ]
        counted = {code: s for code, s in shares.items() if code not in NORMAL and code != "unmapped-code"}
        if counted:
            worst = max(counted, key=lambda code: counted[code])
            value = counted[worst]
            text = f"{worst}: {value:.0%} of the messages"
            found.append(Measure(QualityCheck.PROBLEMS, None, value, value / WARN_PROBLEMS, 1.0, False, text))
        return found

    # Over a restart --------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """What a restart needs to judge on as before."""
        kept: dict[str, Any] = {
            "features": list(self._contract.feature_names),
            "rows": self._rows,
            "missing": self._missing.tolist(),
            "out_of_range": self._out_of_range.tolist(),
            "messages": self._messages,
            "labels": self._labels,
            "problems": self._problems,
            "usual_gap": self._usual_gap,
            "newest_s": self._newest_s,
            "gate": self._gate.dump(),
        }
        return json.dumps(kept).encode()

    def _load(self, kept: bytes) -> None:
        try:
            found = json.loads(kept)
            if found["features"] != list(self._contract.feature_names):
                return
            gate = GateState.load(found["gate"])
            missing, out = np.array(found["missing"], np.float64), np.array(found["out_of_range"], np.float64)
            if missing.shape != self._missing.shape or out.shape != self._out_of_range.shape:
                return
            self._rows, self._missing, self._out_of_range = float(found["rows"]), missing, out
            self._messages, self._labels = float(found["messages"]), float(found["labels"])
            self._problems = {str(code): float(count) for code, count in found["problems"].items()}
            self._usual_gap = {str(path): float(gap) for path, gap in found["usual_gap"].items()}
            self._newest_s = {str(path): float(time_s) for path, time_s in found["newest_s"].items()}
            self._gate = gate
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # an earlier release's, or damaged: it is learnt anew


def _forget(count: int, half: int) -> tuple[float, float]:
    """What older ones still count after `count` more, and what each of these counts: as if they had come one by one."""
    fade = 0.5 ** (count / half)
    return fade, (1 - fade) * half / (math.log(2) * count) if count else 1.0


_WORDS = {
    QualityCheck.MISSING: "{feature} is missing in {value:.0%} of the samples",
    QualityCheck.OUT_OF_RANGE: "{feature} is out of range in {value:.0%} of the samples",
    QualityCheck.FLAT: "{feature} does not change in {value:.0%} of the instances",
    QualityCheck.STALE: "the inputs of {value:.0%} of the instances have stopped",
    QualityCheck.DUPLICATES: "{value:.0%} of the messages are duplicates",
    QualityCheck.LABEL_LAG: "{value:.0%} of the samples got no label in time",
    QualityCheck.UNMAPPED: "{value:.0%} of the labels have a code that the signal map doesn't know",
}


def _share(
    check: QualityCheck, feature: str | None, value: float, limit: float | None, *, warns_above: float | None = None
) -> Measure:
    """A share beside its limit. Args: warns_above: a share, where it isn't half of the limit."""
    text = _WORDS[check].format(feature=feature, value=value)
    if limit is None:
        above = WARN_WITHOUT_LIMIT if warns_above is None else warns_above
        return Measure(check, feature, value, value / max(above, 1e-9), 1.0, False, text)
    warns_at = WARN_AT if warns_above is None else min(WARN_AT, warns_above / limit)
    return Measure(check, feature, value, value / limit, warns_at, True, f"{text} (limit {limit:.0%})")
