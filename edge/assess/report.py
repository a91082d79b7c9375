"""What an assessment says: figures per feature and topic, findings, and whether the plant is ready. Values only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Check(StrEnum):
    """What a finding is about."""

    COVERAGE = "coverage"
    """A feature that the map feeds, of which nothing usable came."""
    GAP = "gap"
    UNIT = "unit"
    RANGE = "range"
    DUPLICATES = "duplicates"
    CLOCK = "clock"
    LABEL_CODE = "label-code"
    CONTEXT = "context"
    QUALITY = "quality"
    """Values that are not good, or null."""
    MESSAGES = "messages"
    """Messages that can't be read."""
    SAMPLES = "samples"
    """Nothing became a sample, or no label met one."""
    ENTERPRISE = "enterprise"
    """The federation's broker can't be reached."""
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. `where`: a topic or a feature. `text`: a sentence that says what to do where it can."""

    check: Check
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class FeatureLine:
    """What is known of one feature at one topic.

    Attributes:
        unit: the contract's; map_unit: the signal map's.
        quantiles: at `uns_topics.reference.LEVELS`, in the contract's unit; None before any value.
        reference: the other plants', where they are known.
    """

    feature: str
    unit: str
    minimum: float
    maximum: float
    optional: bool
    topic: str | None = None
    map_unit: str | None = None
    values: int = 0
    missing: int = 0
    out_of_range: float = 0.0
    quantiles: tuple[float, ...] | None = None
    reference: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class TopicLine:
    """What is known of one topic.

    Attributes:
        interval_s: median between messages. longest_gap_s: between two, or until the listening ended.
        lag_s: of its clock: arrival minus its own timestamp, at the 10 % quantile; None without timestamps.
        strip: messages per equal slice of the listening time.
    """

    topic: str
    instance: str
    form: str
    messages: int
    retained: int
    per_minute: float
    interval_s: float | None
    longest_gap_s: float | None
    lag_s: float | None
    repeated: int
    strip: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Time of one training step here. `skipped`: why it wasn't measured; `failed`: why it can't be done."""

    milliseconds: float | None = None
    batch_size: int | None = None
    network: str | None = None
    skipped: str | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """To the federation's broker and back, in milliseconds. `skipped` and `failed` as above."""

    connect_ms: float | None = None
    median_ms: float | None = None
    worst_ms: float | None = None
    skipped: str | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Assessment:
    """All of it.

    Attributes:
        seconds: of listening; replayed: history was played back, so rates are by event time and clocks say nothing.
        ended: why the listening ended early, "" where it didn't.
        samples: that the messages would have become; matched: of these with a label. per_day: samples to expect in a
            day; in_theory: by the contract's sample rule alone.
        days_to_first_training: None where the contract's rule or missing samples don't tell.
    """

    federation: str
    participant: str
    seconds: float
    messages: int
    payload_bytes: int
    replayed: bool
    ended: str
    instances: tuple[str, ...]
    samples: int
    labels: int
    matched: int
    per_day: float | None
    in_theory: bool
    days_to_first_training: float | None
    features: tuple[FeatureLine, ...]
    topics: tuple[TopicLine, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    step: Step = field(default_factory=Step)
    round_trip: RoundTrip = field(default_factory=RoundTrip)

    @property
    def is_ready(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {"ready": self.is_ready, **asdict(self)}
