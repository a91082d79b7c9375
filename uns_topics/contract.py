"""The contract: what all participants agreed on before they train one model.

Features with units and ranges, the label, how a sample is made, how data is split, which figure is published. Its hash
covers meaning only: a new title or a new quality threshold changes no model, another unit or feature does.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from uns_topics.model import FileValue, Identifier, Slug


class Metric(StrEnum):
    """The figure that is published per participant; the first two rise with quality, the last falls."""

    AVERAGE_PRECISION = "average_precision"
    ROC_AUC = "roc_auc"
    RMSE = "rmse"

    @property
    def higher_is_better(self) -> bool:
        return self is not Metric.RMSE


class Feature(FileValue):
    """One model input, in the contract's unit. Values outside the range are clipped inside the graph."""

    name: Identifier
    unit: str = Field(max_length=32, description="a unit that pint knows, '' for a pure number")
    minimum: float
    maximum: float
    optional: bool = Field(
        default=False, description="a participant without it takes part; the graph fills and masks it"
    )
    fill: Literal["mean", "middle"] | float = Field(
        default="mean",
        description="stands in for a missing value, beside its mask: the mean of all plants (standardised 0), the "
        "middle of the range, or this number within it",
    )
    description: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not self.minimum < self.maximum:
            raise ValueError(f"feature {self.name}: minimum {self.minimum} is not below maximum {self.maximum}")
        if isinstance(self.fill, float) and not self.minimum <= self.fill <= self.maximum:
            raise ValueError(f"feature {self.name}: fill {self.fill} is not within {self.minimum} to {self.maximum}")
        return self

    @property
    def filled(self) -> float | None:
        """The number in the contract's unit that stands in for a missing value; None: the mean, once it is known."""
        if self.fill == "middle":
            return (self.minimum + self.maximum) / 2
        return None if isinstance(self.fill, str) else self.fill


class DeclaredContext(FileValue):
    """Standardisation per product or recipe: each value has a slot, spare ones are for values still to come."""

    kind: Literal["declared"] = "declared"
    name: Identifier
    values: tuple[str, ...] = Field(max_length=256)
    spare: int = Field(default=8, ge=0, le=256)

    @property
    def slots(self) -> int:
        """Rows of the standardisation table; row 0 is the unknown context."""
        return 1 + len(self.values) + self.spare


class ComputedContext(FileValue):
    """Standardisation per operating point: the nearest of the listed centres over some features, found in the graph."""

    kind: Literal["computed"] = "computed"
    features: tuple[Identifier, ...] = Field(min_length=1)
    centres: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=256)

    @property
    def slots(self) -> int:
        """Rows of the standardisation table; row 0 is the unknown context (a centre feature is missing)."""
        return 1 + len(self.centres)

    @model_validator(mode="after")
    def _widths(self) -> Self:
        for centre in self.centres:
            if len(centre) != len(self.features):
                raise ValueError(f"a centre has {len(centre)} numbers for {len(self.features)} features")
        return self


Context = Annotated[DeclaredContext | ComputedContext, Field(discriminator="kind")]


class ClassLabel(FileValue):
    """A label from a dictionary of classes; two classes today: the positive one is what the score speaks of."""

    kind: Literal["classes"] = "classes"
    name: Identifier
    classes: tuple[Identifier, Identifier]
    positive: Identifier
    matures_after_s: float = Field(default=3600.0, gt=0, description="no label by then: the sample is never trained on")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.positive not in self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"label {self.name}: positive {self.positive!r} must be one of two different classes")
        return self


class RunToFailureLabel(FileValue):
    """Remaining steps until the run ends, computed once it has ended; capped, because a healthy asset tells no more."""

    kind: Literal["run_to_failure"] = "run_to_failure"
    name: Identifier
    unit: str = Field(default="", max_length=32)
    cap: float = Field(gt=0)


class NoLabel(FileValue):
    """No label: the score is how badly the model reconstructs its input (autoencoder)."""

    kind: Literal["none"] = "none"


Label = Annotated[ClassLabel | RunToFailureLabel | NoLabel, Field(discriminator="kind")]


class EventSample(FileValue):
    """One sample per event, such as a board: keyed messages share its key, unkeyed tags join as of its time."""

    kind: Literal["event"] = "event"
    key: Identifier = Field(description="what the key is, for people: 'board'")
    patience_s: float = Field(
        default=600.0, gt=0, description="event time after which a keyed part is no longer waited for"
    )


class WindowSample(FileValue):
    """One sample per stride: `length` steps of `period_s`, never through the end of a run."""

    kind: Literal["window"] = "window"
    period_s: float = Field(gt=0)
    length: int = Field(ge=1, le=10_000)
    stride: int = Field(default=1, ge=1, le=2**31)
    pad: bool = Field(default=True, description="windows at the start of a run are filled up with missing values")


SampleRule = Annotated[EventSample | WindowSample, Field(discriminator="kind")]


class Split(FileValue):
    """train | select | report, by event time and never through a group; or as the data itself says."""

    by: Literal["time", "source"] = "time"
    train: float = Field(default=0.6, gt=0, lt=1)
    select: float = Field(default=0.2, gt=0, lt=1)
    gap_s: float = Field(default=0.0, ge=0, description="between parts; add one window and the allowed lateness")
    report: Literal["each-version", "final"] = Field(
        default="each-version", description="'final': the report part is scored once, for the last version"
    )
    report_rows: Literal["all", "last-of-group"] = "all"

    @model_validator(mode="after")
    def _sum(self) -> Self:
        if self.by == "time" and self.train + self.select >= 1:
            raise ValueError("split: train + select leave nothing for report")
        return self


Share = Annotated[float, Field(gt=0, le=1)]


class Quality(FileValue):
    """Thresholds of the data-quality gate. They change nothing that a model means.

    A share above its limit holds the participant back, one above half of it warns. What has no limit only warns.
    """

    min_samples: int = Field(
        default=50, ge=1, le=2**31, description="matured training samples before a participant takes part"
    )
    max_missing: Share = Field(default=0.5, description="share of missing values in required features")
    max_out_of_range: Share = 0.2
    max_unmapped: Share = Field(default=0.5, description="share of labels whose code the signal map doesn't know")
    max_flat: Share | None = Field(default=None, description="share of instances where a feature never changes")
    max_stale: Share | None = Field(default=None, description="share of instances whose inputs have stopped")
    max_duplicates: Share | None = Field(default=None, description="share of messages that came before")
    max_unlabelled: Share | None = Field(
        default=None, description="share of samples whose label's window closed without one"
    )
    min_per_hour: float | None = Field(default=None, gt=0, description="samples of an instance, by event time")
    max_per_hour: float | None = Field(default=None, gt=0)
    flat_rows: int = Field(default=500, ge=2, le=2**31, description="samples with the same number: it never changes")
    min_dwell_s: float = Field(
        default=600.0, ge=0, le=1e9, description="event time that data must be good again before a verdict softens"
    )

    @model_validator(mode="after")
    def _rates(self) -> Self:
        low, high = self.min_per_hour, self.max_per_hour
        if low is not None and high is not None and not low < high:
            raise ValueError(f"quality: min_per_hour {low} is not below max_per_hour {high}")
        return self


class Contract(FileValue):
    """What all agreed on. `meaning_sha256` is what an edge's site approves."""

    contract: Literal[1] = 1
    federation: Slug
    title: str = Field(default="", max_length=200)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    context: Context | None = None
    label: Label
    sample: SampleRule
    split: Split = Split()
    metric: Metric
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [f.name for f in self.features]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"features named twice: {', '.join(twice)}")
        if isinstance(self.context, ComputedContext) and (unknown := set(self.context.features) - set(names)):
            raise ValueError(f"context.features: no such feature: {', '.join(sorted(unknown))}")
        if (self.metric is Metric.RMSE) != (not isinstance(self.label, ClassLabel)):
            raise ValueError(f"metric {self.metric.value} doesn't fit label kind {self.label.kind}")
        if isinstance(self.label, RunToFailureLabel) and not isinstance(self.sample, WindowSample):
            raise ValueError("label run_to_failure needs sample kind window")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    @property
    def slots(self) -> int:
        """Rows of the standardisation table; 1 where the contract has no context."""
        return self.context.slots if self.context is not None else 1

    @property
    def window_length(self) -> int | None:
        """Steps of a window sample; None for event samples."""
        return self.sample.length if isinstance(self.sample, WindowSample) else None

    @property
    def output_name(self) -> str:
        """The model's output and the inference leaf: `score`, or the regression's own name."""
        return self.label.name if isinstance(self.label, RunToFailureLabel) else "score"

    @property
    def output_unit(self) -> str:
        """What the model's output is in; '' for a pure number."""
        return self.label.unit if isinstance(self.label, RunToFailureLabel) else ""

    @property
    def meaning_sha256(self) -> str:
        """SHA-256 of what changes a model's meaning, in a fixed order."""
        meaning = {
            "federation": self.federation,
            "features": [
                [f.name, f.unit, f.minimum, f.maximum, f.optional, *([f.fill] if f.fill != "mean" else [])]
                for f in self.features
            ],
            "context": self.context.model_dump(mode="json") if self.context is not None else None,
            "label": self.label.model_dump(mode="json"),
            "sample": self.sample.model_dump(mode="json"),
            "metric": self.metric.value,
        }
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
