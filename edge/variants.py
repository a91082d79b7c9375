"""Which model runs on the tags: the federation's, one of this plant's own, or the last good one. Pure.

What runs (the very model, not its kind) goes on running until another one is surely better: better in every one of the
paired resamples of the select part. A published interval leaves out 5 % of them; here several models are compared at
every version, and with that rule one of three equally good others would take over every eleventh time. A newer model of
the same kind takes over unless it is surely worse, and so does the current version after a last good one: that is a
refuge, not a home.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy.typing as npt
from numpy import float32, int64

from edge.decision import Decision
from edge.metrics import Figure, paired_difference
from edge.models import Model
from uns_topics.contract import Metric
from uns_topics.presence import Variant
from uns_topics.reports import ModelName

INTERVAL = (0.0, 100.0)
"""Percentiles of the resamples: all of them."""
RESAMPLES = 400
"""With three others that are equally good, one version in a hundred changes what runs (2 of 250 simulated)."""
NAMES: Mapping[Variant, ModelName] = {
    Variant.GLOBAL: "current",
    Variant.PERSONALISED: "personalised",
    Variant.LOCAL: "local_only",
    Variant.LAST_GOOD: "last_good",
}
"""What an evaluation calls them."""


@dataclass(frozen=True)
class Served:
    """A model that runs on the tags, or could.

    Attributes:
        model: as it is compared with others. version: the global one that it is or stands in for.
        decision: what was fitted for it here. calibrated: the same model with its calibration; None: it has none.
    """

    model: Model
    version: int
    variant: Variant
    decision: Decision = field(default_factory=Decision)
    calibrated: Model | None = None

    @property
    def runs(self) -> Model:
        """What the plant's samples go through."""
        return self.calibrated if self.calibrated is not None else self.model

    def is_same(self, other: Served) -> bool:
        """Whether nothing changes where one runs after the other."""
        known = (other.version, other.variant, other.decision)
        return self.model is other.model and (self.version, self.variant, self.decision) == known


def gains(
    metric: Metric,
    labels: npt.NDArray[float32],
    running: npt.NDArray[float32],
    others: Mapping[Variant, npt.NDArray[float32]],
    groups: npt.NDArray[int64],
) -> dict[Variant, Figure]:
    """How much better each other model is than what runs, on the same rows; positive is better.

    Args: labels, running, others: shape (n,) each, as for `edge.metrics.figure`.
    """
    found = {}
    for variant, predicted in others.items():
        given = (running, predicted) if metric is Metric.RMSE else (predicted, running)  # of errors less is better
        found[variant] = paired_difference(metric, labels, *given, groups, interval=INTERVAL, resamples=RESAMPLES)
    return found


def choose(running: Variant, gains: Mapping[Variant, Figure]) -> Variant | None:
    """What is to run; None: what runs. Args: gains: of each other model over it, one of its own kind among them."""
    surely = {variant: gain.value for variant, gain in gains.items() if gain.decided and gain.low > 0}
    if others := {variant: value for variant, value in surely.items() if variant is not running}:
        return max(others, key=lambda variant: others[variant])
    heir = Variant.GLOBAL if running is Variant.LAST_GOOD else running
    gain = gains.get(heir)
    return heir if gain is not None and not (gain.decided and gain.high < 0) else None


class Serving:
    """What runs now, and what it is compared with. Args: allowed: variants that the site lets run."""

    def __init__(self, allowed: Collection[Variant] = tuple(Variant)) -> None:
        self.allowed = frozenset({*allowed, Variant.GLOBAL})
        self.served: Served | None = None
        self.last_good: Served | None = None
        """The global version before the current one, or what stood in for it."""
        self._chosen = Variant.GLOBAL
        self._offered: int | None = None

    @property
    def chosen(self) -> Variant:
        """The variant that the last review chose."""
        return self._chosen

    @property
    def incumbent(self) -> Served | None:
        """The model that another one has to beat; None where that is the current version, which runs at once."""
        return self.served if self._chosen is not Variant.GLOBAL else None

    def restore(self, served: Served, version: Served) -> None:
        """What a restart runs until the federation says more. Args: version: the global one that it stands in for."""
        self.served = served
        self.last_good = replace(version, variant=Variant.LAST_GOOD)
        if served.variant is not Variant.LAST_GOOD:
            self._chosen = served.variant

    def offer(self, current: Served) -> Served:
        """There is a new current version. Returns: what is to run until a review: it, unless something else was chosen.

        It does not run yet: see `enter`.
        """
        self._offered = current.version
        known = self.served
        if known is None or known.model.template.sha256 != current.model.template.sha256:
            return current
        return current if self._chosen is Variant.GLOBAL else known

    def enter(self, current: Served, served: Served) -> Served | None:
        """What was offered is ready. Args: current: what it was about; served: it, or what runs on in its place.

        Returns: what runs from now on; None: a newer version came meanwhile.
        """
        if self._offered != current.version:
            return None
        known = self.served
        if known is None or known.model.template.sha256 != served.model.template.sha256:
            self.last_good = None
        self._chosen, self.served = served.variant, served
        return served

    def settle(self, current: Served, choice: Served) -> Served | None:
        """A review is done. Args: current: what it was about.

        Returns: what is to run; None: a newer version came meanwhile.
        """
        if self._offered != current.version:
            return None
        self._chosen, self.served = choice.variant, choice
        if choice.variant is not Variant.LAST_GOOD:
            self.last_good = replace(current, variant=Variant.LAST_GOOD)
        return choice

    def release(self, served: Served) -> Served | None:
        """A held swap may go on. Returns: what runs from now on; None: a newer version came meanwhile."""
        if self._offered != served.version:
            return None
        self._chosen, self.served = served.variant, served
        return served
