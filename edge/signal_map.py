"""The signal map: how one participant's own topics, fields and units feed the contract's features.

`SignalMap` is the schema of the file, checked on its own when it is read; `edge.binding` checks it against a contract.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from edge.clock import Clock
from edge.dialects import VALUE, Form, TimestampFormat, read_text
from uns_topics.filters import TopicPattern
from uns_topics.model import FileValue, Identifier, Slug
from uns_topics.sparkplug import NAMESPACE, MessageType

DEFAULT_MAX_AGE_S = 600.0
FIELD = (
    "JSON key (`a.b` goes into an object) or metric name; needed for `flat` and `sparkplug`, in `umh` for its classic "
    "messages with several keys, else the value itself"
)


def _topic(text: str) -> str:
    TopicPattern(text)
    return text


def _instance(text: str) -> str:
    if "+" in text or "#" in text:
        raise ValueError(f"instance {text!r} has a wildcard; name the segment instead, as in 'site/{{line}}'")
    if text.split("/")[0] == NAMESPACE:
        raise ValueError(f"instance {text!r}: inference is no Sparkplug payload; name a path outside {NAMESPACE}")
    return _topic(text)


def _code(key: object) -> object:
    if isinstance(key, bool):
        raise ValueError("YAML reads an unquoted yes, no, on, off, true or false as a truth value: quote this code")
    return read_text(key) or key


def _not_zero(scale: float) -> float:
    if scale == 0:
        raise ValueError("a scale of 0 makes every value the same")
    return scale


Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Topic = Annotated[str, AfterValidator(_topic)]
InstancePath = Annotated[str, AfterValidator(_instance)]
Code = Annotated[str, BeforeValidator(_code), Field(min_length=1, max_length=256)]
FieldName = Annotated[str, Field(min_length=1, max_length=256)]


class Join(StrEnum):
    """How the readings of an unkeyed tag become one number."""

    LAST = "last"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    COUNT = "count"
    """How many good readings there were, whatever their values; 0 once the tag was heard of."""
    LINEAR = "linear"
    """Between the readings before and after a row's time; windows only."""


class Keys(FileValue):
    """Names of the JSON keys in `vqt` and `flat` messages; a missing quality is good."""

    value: FieldName = VALUE
    quality: FieldName = "quality"
    timestamp: FieldName = "timestamp"


class FeatureField(FileValue):
    """One feature out of one field."""

    feature: Identifier = Field(description="name in the contract")
    field: FieldName | None = Field(default=None, description=FIELD)
    unit: str = Field(max_length=32, description="the plant's unit; converted to the contract's")
    scale: Annotated[Finite, AfterValidator(_not_zero)] = Field(
        default=1.0, description="for raw counts: the value in `unit` is scale * number + offset"
    )
    offset: Finite = 0.0
    join: Join = Field(default=Join.LAST, description="unkeyed sources: how readings become one number")
    max_age_s: float = Field(
        default=DEFAULT_MAX_AGE_S,
        gt=0,
        description="unkeyed sources: the oldest reading that still counts; windows carry a last value this long, "
        "mean, min, max, sum and count there take their own period",
    )
    gap_limit_s: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="join linear: the longest time between two readings that is interpolated; a row waits so long for "
        "the later one",
    )

    @model_validator(mode="after")
    def _fits_join(self) -> Self:
        is_linear = self.join is Join.LINEAR
        if is_linear != (self.gap_limit_s is not None):
            raise ValueError("gap_limit_s and join linear go together: it is the longest gap that is interpolated")
        if is_linear and "max_age_s" in self.model_fields_set:
            raise ValueError("max_age_s: join linear takes no old reading, its limit is gap_limit_s")
        if self.join is Join.COUNT and (self.unit or self.scale != 1 or self.offset):
            raise ValueError("join count: a number of readings has unit '' and no scale or offset")
        return self


class ContextField(FileValue):
    """The product or recipe, as of the event."""

    field: FieldName | None = Field(default=None, description=FIELD)
    codes: dict[Code, str] = Field(
        default_factory=dict, description="plant's text -> contract's value; others are taken as they are"
    )


class LabelField(FileValue):
    """A verdict: keyed, or (window samples) in the same message as its row."""

    field: FieldName | None = Field(default=None, description=FIELD)
    source: Slug = Field(description="who says so: aoi, review, repair")
    codes: dict[Code, Identifier] = Field(min_length=1, description="plant's code -> class of the contract")


class EndOfRun(FileValue):
    """This message ends its group's run (run_to_failure)."""

    remaining: FieldName | None = Field(
        default=None,
        description="JSON key of the steps that were left at the end (a run cut short); without it none were. Where "
        "the source also feeds features, only a message that has this key ends the run",
    )


class Source(FileValue):
    """Messages of one form under one topic pattern."""

    topic: Topic = Field(
        description="captures `{name}` include those of `instance`; `+` and a last `#` are allowed; `{name...}` takes "
        "one to six segments, by one subscription per depth"
    )
    form: Form
    keys: Keys = Keys()
    timestamp_format: TimestampFormat = Field(default=TimestampFormat.MS, description="umh is always ms")
    clock: Clock | None = Field(
        default=None, description="default: payload, for `scalar` (which carries no time) arrival"
    )
    features: tuple[FeatureField, ...] = Field(default=(), max_length=1000)
    key: FieldName | None = Field(
        default=None, description="JSON key that holds the sample's key (a board's serial): the source is keyed"
    )
    group: FieldName | None = Field(default=None, description="JSON key that names the batch, panel or engine")
    split: FieldName | None = Field(default=None, description="JSON key that says train, select, report or test")
    context: ContextField | None = None
    label: LabelField | None = None
    end_of_run: EndOfRun | None = None

    @model_validator(mode="after")
    def _fits_form(self) -> Self:
        if self.form is Form.SCALAR and self.clock not in (None, Clock.ARRIVAL):
            raise ValueError("a scalar message carries no time: its clock can only be arrival")
        if self.form is Form.SPARKPLUG:
            self._fits_sparkplug()
        if self.form is Form.SCALAR:
            for name in ("key", "group", "split", "end_of_run"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: a {self.form.value} message has one value; use form vqt or flat")
        is_fixed = self.form in (Form.UMH, Form.SCALAR, Form.SPARKPLUG)
        if is_fixed and {"keys", "timestamp_format"} & self.model_fields_set:
            raise ValueError(f"keys and timestamp_format are fixed for form {self.form.value}")
        for place, part in self.parts():
            if self.form in (Form.FLAT, Form.SPARKPLUG) and part.field is None:
                raise ValueError(f"{place}.field: a {self.form.value} message has many fields, name one")
            if self.form is Form.SCALAR and part.field not in (None, VALUE):
                raise ValueError(f"{place}.field: a {self.form.value} message only has {VALUE!r}")
        if not (self.features or self.key or self.group or self.context or self.label or self.end_of_run):
            raise ValueError("this source feeds nothing: name features, a key, a context, a label or an end of run")
        return self

    def _fits_sparkplug(self) -> None:
        segments = self.topic.split("/")
        is_deep = TopicPattern(self.topic).deep is not None or "#" in segments
        if len(segments) not in (4, 5) or segments[0] != NAMESPACE or segments[2] != "+" or is_deep:
            raise ValueError(
                f"topic {self.topic!r}: Sparkplug metrics are of a node, '{NAMESPACE}/group/+/node', or of a device, "
                f"'{NAMESPACE}/group/+/node/device'; '+' stands for the message type"
            )
        end = self.end_of_run
        if end is not None and (end.remaining is None or not self.features):
            raise ValueError("end_of_run: a device says what has changed: name features, and the metric that remains")

    def parts(self) -> list[tuple[str, FeatureField | ContextField | LabelField]]:
        """All that takes one field, with its place in the file."""
        found: list[tuple[str, FeatureField | ContextField | LabelField]] = [
            (f"features[{i}]", feature) for i, feature in enumerate(self.features)
        ]
        if self.context is not None:
            found.append(("context", self.context))
        if self.label is not None:
            found.append(("label", self.label))
        return found

    def field_of(self, part: FeatureField | ContextField | LabelField) -> str:
        """The JSON key that a part reads."""
        if part.field is not None:
            return part.field
        return self.keys.value if self.form is Form.VQT else VALUE

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to. Of a Sparkplug node all is heard: its sequence numbers count over all messages."""
        filters = TopicPattern(self.topic).filters
        if self.form is not Form.SPARKPLUG:
            return filters
        _, group, _, node, *_ = filters[0].split("/")
        return (f"{NAMESPACE}/{group}/+/{node}/#",)

    @property
    def command_filter(self) -> str | None:
        """Where its nodes are asked for their births; None of other forms."""
        if self.form is not Form.SPARKPLUG:
            return None
        _, group, _, node, *_ = self.filters[0].split("/")
        return f"{NAMESPACE}/{group}/{MessageType.NCMD.value}/{node}"

    @property
    def feeds_samples(self) -> bool:
        """A keyed source that only labels never makes a sample; any other keyed source does."""
        return bool(self.features) or self.label is None


def _host(text: str) -> str:
    if not text or "/" in text or "+" in text or "#" in text or "\0" in text:
        raise ValueError(f"host {text!r}: a Sparkplug host id is one topic segment without '/', '+' and '#'")
    return text


class SparkplugHost(FileValue):
    """This edge is a Sparkplug host application, which nodes may have as their primary host."""

    host: Annotated[str, AfterValidator(_host)] = Field(
        max_length=256, description=f"id of the host: its state is said on `{NAMESPACE}/STATE/<host>`"
    )


class SignalMap(FileValue):
    """One participant's file."""

    signal_map: Literal[1] = 1
    instance: InstancePath = Field(
        description="path of an instance: captured segments by name; inference is published beneath it"
    )
    sources: tuple[Source, ...] = Field(min_length=1, max_length=1000)
    label_sources: tuple[Slug, ...] = Field(
        default=(), description="who has the last word, strongest first (repair, review, aoi); needed for several"
    )
    lateness_s: float = Field(
        default=0.0, ge=0, description="windows out of several tags: event time that late readings are waited for"
    )
    sparkplug: SparkplugHost | None = Field(
        default=None, description="only where nodes wait for this edge before they send; reading them needs nothing"
    )

    def instance_prefixes(self) -> tuple[str, ...]:
        """What is known of the instances' paths before any message: the segments before the first capture."""
        segments: list[str] = []
        for segment in self.instance.split("/"):
            if segment.startswith("{"):
                break
            segments.append(segment)
        return ("/".join(segments),)
