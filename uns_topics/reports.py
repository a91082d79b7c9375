"""What a participant reports: statistics, evaluation, data quality, its last update. Bounded numbers and enums only.

Everything that is pooled over participants is a sum, because the mean of per-site figures is not the pooled one.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from uns_topics.codes import Code, DataProblem, QualityCheck
from uns_topics.contract import Metric
from uns_topics.model import Count, Identifier, Sha256, TransferId, Value, Version
from uns_topics.presence import Variant
from uns_topics.sketch import Sketch
from uns_topics.standardisation import Moments

HISTOGRAM_BINS = 64
"""Equal bins of a score in [0, 1] before neighbours are merged until each holds ten rows."""


class FeatureCell(Value):
    """What is told of one feature at one context slot (0: all rows), values clipped to the contract's range."""

    slot: int = Field(ge=0, le=1024)
    feature: Identifier
    moments: Moments = Field(description="of the values scaled to the range")
    sketch: Sketch | None = Field(default=None, description="quantiles; of slot 0 alone, left out where it's too long")


class Statistics(Value):
    """`up/<participant>/statistics`, retained, once per generation."""

    generation: int = Field(ge=1, le=2**31)
    rows: Count
    label_counts: tuple[Count, ...] = Field(max_length=256)
    cells: tuple[FeatureCell, ...] = Field(max_length=100_000)


class Sums(Value):
    """n, sum and sum of squares of a per-row figure (a loss, or a paired difference of losses)."""

    n: Count
    sum: float
    sum_squares: float = Field(ge=0)

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Sums:
        """Sums of one array."""
        return cls(n=len(values), sum=float(values.sum()), sum_squares=float(np.square(values).sum()))

    def __add__(self, other: Sums) -> Sums:
        return Sums(n=self.n + other.n, sum=self.sum + other.sum, sum_squares=self.sum_squares + other.sum_squares)

    @property
    def mean(self) -> float:
        """0 where n is 0."""
        return self.sum / self.n if self.n else 0.0

    @property
    def standard_error(self) -> float:
        """Of the mean; infinite below two rows."""
        if self.n < 2:
            return float("inf")
        variance = max(0.0, (self.sum_squares - self.n * self.mean**2) / (self.n - 1))
        return float(np.sqrt(variance / self.n))


class Figure(Value):
    """A published figure with its 95 % interval; undecided where the data can't say."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: Count
    undecided: bool = False


ModelName = Literal["candidate", "current", "personalised", "local_only", "last_good", "linear", "constant"]
Bin = Annotated[int, Field(ge=1, le=HISTOGRAM_BINS)]
Merged = Annotated[tuple[Bin, Count], Field(description="upper bin (exclusive) of HISTOGRAM_BINS, rows")]


class ModelScores(Value):
    """How one model does on one part."""

    loss: Sums
    metric: Figure
    histograms: dict[Identifier, tuple[Merged, ...]] = Field(default_factory=dict, max_length=16)


class PartScores(Value):
    """All models on the same rows of one part of the split."""

    n: Count
    models: dict[ModelName, ModelScores]
    candidate_minus_current: Sums | None = None
    current_minus_local: Figure | None = Field(default=None, description="paired difference in the contract's metric")
    served_minus_current: Figure | None = Field(
        default=None, description="the same of what runs on the tags, where that isn't the current version itself"
    )


class Evaluation(Value):
    """`up/<participant>/evaluation`, retained. `select` decides, `report` is published and decides nothing."""

    generation: int = Field(ge=1, le=2**31)
    candidate: Version | None
    current: Version | None
    metric: Metric
    final: bool = Field(default=False, description="the figures of the plan's last version")
    serves: Variant | None = Field(default=None, description="what runs on the tags, by the select part's word")
    select: PartScores
    report: PartScores | None = None
    report_capped: PartScores | None = Field(default=None, description="run_to_failure: with labels capped, too")


class FeatureQuality(Value):
    """What was seen of one feature."""

    feature: Identifier
    missing: float = Field(ge=0, le=1, description="share of samples without it")
    out_of_range: float = Field(ge=0, le=1)


class QualityFinding(Value):
    """One thing that the data-quality gate warns of or holds for."""

    check: QualityCheck
    feature: Identifier | None = None
    verdict: Literal["warn", "hold"]
    value: float = Field(
        ge=0,
        le=1e9,
        description="a share; for rate: samples per hour of an instance; for units: their factor",
    )


class DataQuality(Value):
    """`up/<participant>/data-quality`, retained. Shares are of the last samples and messages, not since the start."""

    verdict: Literal["pass", "warn", "hold"]
    samples: Count
    matured: Count
    features: tuple[FeatureQuality, ...] = Field(max_length=1000)
    findings: tuple[QualityFinding, ...] = Field(default=(), max_length=100, description="the worst first")
    problems: dict[DataProblem, Count] = Field(default_factory=dict)


class LastUpdate(Value):
    """`up/<participant>/last-update`, retained, for people: the last update that was answered."""

    id: TransferId
    round_number: int = Field(ge=1, le=2**31)
    base: Sha256
    result: Literal["accepted", "rejected"]
    code: Code | None = None
    num_examples: Count
    num_steps: Count
    payload_bytes: Count
    train_seconds: float = Field(ge=0)
