"""Promote or refuse: the candidate against current on the pooled sums of the `select` parts.

Sums are added over participants, because the mean of per-site figures is not the pooled figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aggregator.state import Scores
from uns_topics.plan import Tolerances
from uns_topics.reports import Sums

_Z_95 = 1.96
"""Two-sided 95 % of the normal distribution: a site is decided if the interval of its own difference excludes 0."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a candidate, and why, in words for people."""

    promote: bool
    reason: str
    candidate_loss: float | None = None
    current_loss: float | None = None


def decide(scores: Mapping[str, Scores], tolerances: Tolerances) -> Decision:
    """Decide from what came. Losses: lower is better; only who scored both models on the same rows counts."""
    paired = {p: s for p, s in sorted(scores.items()) if s.current is not None and s.candidate.n and s.current.n}
    if not paired:
        promote = tolerances.on_no_evaluation == "promote"
        return Decision(promote, "no participant could compare it with current")
    nothing = Sums(n=0, sum=0.0, sum_squares=0.0)
    candidate = sum((s.candidate for s in paired.values()), nothing).mean
    current = sum((s.current for s in paired.values() if s.current is not None), nothing).mean
    if candidate > current + tolerances.promotion_margin * abs(current):
        reason = f"pooled loss {candidate:.6g} is worse than {current:.6g} by more than the margin"
        return Decision(False, reason, candidate, current)
    for participant, site in paired.items():
        if site.current is not None and _is_harmed(site.difference, site.current.mean, tolerances.site_limit):
            reason = f"{participant} is decidedly worse off than its limit allows"
            return Decision(False, reason, candidate, current)
    return Decision(True, f"pooled loss {candidate:.6g} against {current:.6g}", candidate, current)


def _is_harmed(difference: Sums | None, current: float, limit: float) -> bool:
    """Whether one site's own paired difference is decided and beyond the limit (relative to its current loss)."""
    if difference is None or difference.n < 2:
        return False
    decided = difference.mean - _Z_95 * difference.standard_error > 0
    return decided and difference.mean > limit * abs(current)
