"""The data-quality gate: what was seen of each feature, and whether a participant may contribute with it. Pure.

Counted are the rows that became samples, not single messages: a silent tag counts in every sample that lacks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from uns_topics.codes import DataProblem
from uns_topics.contract import Contract
from uns_topics.reports import DataQuality, FeatureQuality

FLAT_ROWS = 500
"""A feature that shows the very same number in this many rows of an instance is flat-lined."""
WARN_AT = 0.5
"""A share warns from this part of the contract's threshold on."""
WARN_PROBLEMS = 0.05
"""Share of messages with a problem that warns."""
NORMAL = frozenset({"retained", "duplicate"})
"""Counted, but part of an ordinary day: brokers replay and redeliver."""

Verdict = Literal["pass", "warn", "hold"]


@dataclass(frozen=True)
class Judgement:
    """`hold`: receives models but does not contribute. `reasons`: sentences for the plant's own people."""

    verdict: Verdict
    reasons: tuple[str, ...]


class QualityCounters:
    """Running counts per feature of one participant."""

    def __init__(self, contract: Contract) -> None:
        width = len(contract.features)
        self._contract = contract
        self._low = np.array([f.minimum for f in contract.features])
        self._high = np.array([f.maximum for f in contract.features])
        self._rows = 0
        self._missing = np.zeros(width, np.int64)
        self._out_of_range = np.zeros(width, np.int64)
        self._flat: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] = {}

    def add(self, instance: str, rows: npt.NDArray[np.float32]) -> None:
        """Count rows of one instance in time order. Args: rows: shape (n, F), contract units, NaN = missing."""
        if len(rows) == 0:
            return
        present = ~np.isnan(rows)
        self._rows += len(rows)
        self._missing += (~present).sum(axis=0)
        self._out_of_range += ((rows < self._low) | (rows > self._high)).sum(axis=0)
        self._add_flat(instance, rows)

    def _add_flat(self, instance: str, rows: npt.NDArray[np.float32]) -> None:
        """Length of the run of equal numbers that each feature ends with; a missing value ends a run."""
        width = rows.shape[1]
        last, run = self._flat.get(instance, (np.full(width, np.nan, np.float32), np.zeros(width, np.int64)))
        changed = np.vstack([last, rows[:-1]]) != rows  # NaN differs from all, itself included
        after_change = np.argmax(changed[::-1], axis=0)
        since = np.where(changed.any(axis=0), after_change + 1, run + len(rows))
        self._flat[instance] = (rows[-1].copy(), np.where(np.isnan(rows[-1]), 0, since))

    @property
    def features(self) -> tuple[FeatureQuality, ...]:
        """Shares of missing and out-of-range values per feature; 0 before any row."""
        rows, present = max(1, self._rows), np.maximum(1, self._rows - self._missing)
        return tuple(
            FeatureQuality(
                feature=feature.name,
                missing=float(self._missing[i] / rows),
                out_of_range=float(self._out_of_range[i] / present[i]),
            )
            for i, feature in enumerate(self._contract.features)
        )

    @property
    def flat_lined(self) -> tuple[str, ...]:
        """Features that show the same number for long, at any instance."""
        runs = [run for _, run in self._flat.values()]
        longest = np.max(runs, axis=0) if runs else np.zeros(len(self._contract.features), np.int64)
        return tuple(f.name for f, length in zip(self._contract.features, longest, strict=True) if length >= FLAT_ROWS)

    def judge(self, problems: Mapping[str, int], messages: int) -> Judgement:
        """Pass, warn or hold.

        Args: problems: counted reasons of `Ingest`; messages: how many messages there were in all.
        """
        limits = self._contract.quality
        held: list[str] = []
        warned: list[str] = []
        for declared, seen in zip(self._contract.features, self.features, strict=True):
            checks = [("out of range", seen.out_of_range, limits.max_out_of_range)]
            if not declared.optional:
                checks.append(("missing", seen.missing, limits.max_missing))
            for what, share, limit in checks:
                text = f"{seen.feature} is {what} in {share:.0%} of the samples (limit {limit:.0%})"
                if share > limit:
                    held.append(text)
                elif share > limit * WARN_AT:
                    warned.append(text)
        warned += [f"{name} has not changed in {FLAT_ROWS} samples" for name in self.flat_lined]
        for code, count in sorted(problems.items()):
            if code not in NORMAL and messages and count / messages > WARN_PROBLEMS:
                warned.append(f"{code}: {count} of {messages} messages")
        verdict: Verdict = "hold" if held else "warn" if warned else "pass"
        return Judgement(verdict, (*held, *warned))

    def report(self, problems: Mapping[str, int], messages: int, samples: int, matured: int) -> DataQuality:
        """What leaves the plant of all this: bounded numbers, no sentences."""
        return DataQuality(
            verdict=self.judge(problems, messages).verdict,
            samples=samples,
            matured=matured,
            features=self.features,
            problems={DataProblem(code): count for code, count in sorted(problems.items()) if count > 0},
        )
