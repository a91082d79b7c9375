"""A signal map bound to a contract: checked against it, and all resolved that a message would otherwise look up.

Unit conversions, feature positions, class codes and context slots are worked out once, when the file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.clock import Clock
from edge.dialects import Form
from edge.signal_map import Join, SignalMap, Source
from edge.units import UnitError, linear_conversion
from uns_topics.codes import Reason
from uns_topics.contract import ClassLabel, Contract, DeclaredContext, EventSample
from uns_topics.filters import TopicPattern


class MapError(ValueError):
    """A signal map that can't feed a contract. The text has one line `place: problem` for each problem."""

    reason = Reason.CONTRACT_NOT_COVERED

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class BoundFeature:
    """A field with everything resolved: contract value = scale * number + offset.

    Attributes:
        index: position in the contract's features.
        max_age_s: the oldest reading that counts; for `linear` the longest gap between two.
        allow_bool: a pure number in the plant, truth values count.
        unit: the unit that its numbers have in the plant; None for raw counts, which have one only once scaled.
    """

    index: int
    name: str
    field: str
    scale: float
    offset: float
    join: Join
    max_age_s: float
    allow_bool: bool
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class BoundLabel:
    """Codes resolved to class indices. `precedence`: 0 is the strongest source."""

    field: str
    source: str
    precedence: int
    codes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BoundContext:
    """Texts resolved to slots of the standardisation table; whatever is not in it is slot 0, unknown."""

    field: str
    slots: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BoundSource:
    """One source as the message path uses it."""

    place: str
    pattern: TopicPattern
    declared: Source
    clock: Clock
    features: tuple[BoundFeature, ...]
    context: BoundContext | None
    label: BoundLabel | None

    @property
    def fields(self) -> frozenset[str]:
        """All fields that it reads."""
        declared = self.declared
        own = (declared.key, declared.group, declared.split, declared.end_of_run and declared.end_of_run.remaining)
        parts = (*self.features, self.context, self.label)
        return frozenset(name for name in (*own, *(part.field for part in parts if part is not None)) if name)


@dataclass(frozen=True)
class BoundMap:
    """A signal map that feeds a contract.

    Attributes:
        tags: per feature that unkeyed sources feed, how it joins.
        keyed: features that come with a key; a sample is complete once all are there.
        by_row: window samples whose features all come in one message of one source: each message is a row.
    """

    instance: TopicPattern
    sources: tuple[BoundSource, ...]
    tags: Mapping[int, BoundFeature]
    keyed: frozenset[int]
    by_row: bool
    lateness_s: float

    @property
    def is_labelled(self) -> bool:
        """Whether any label can ever come from this map."""
        return any(s.label is not None or s.declared.end_of_run is not None for s in self.sources)

    def instance_path(self, captures: Mapping[str, str]) -> str:
        """The instance of captured segments, echoed byte for byte."""
        return self.instance.fill(captures)


def bind(signal_map: SignalMap, contract: Contract) -> BoundMap:
    """Check a signal map against a contract and resolve it.

    Raises:
        MapError: every problem with its place in the file: a feature or class that the contract doesn't have, a
            required feature that nothing feeds, a unit, a capture, a kind of source that the sample rule can't use.
    """
    return _Binder(signal_map, contract).bind()


class _Binder:
    def __init__(self, signal_map: SignalMap, contract: Contract) -> None:
        self._map = signal_map
        self._contract = contract
        self._is_event = isinstance(contract.sample, EventSample)
        self._problems: list[str] = []
        self._keyed_at: dict[int, str] = {}
        self._tag_at: dict[int, str] = {}
        self._tags: dict[int, BoundFeature] = {}
        self._precedence = signal_map.label_sources or tuple(
            dict.fromkeys(s.label.source for s in signal_map.sources if s.label is not None)
        )

    def bind(self) -> BoundMap:
        signal_map = self._map
        instance = TopicPattern(signal_map.instance)
        sources = []
        for number, source in enumerate(signal_map.sources):
            place = f"sources[{number}]"
            pattern = TopicPattern(source.topic)
            if missing := [name for name in instance.names if name not in pattern.names]:
                listed = ", ".join(f"{{{name}}}" for name in missing)
                self._problem(f"{place}.topic", f"{source.topic!r} does not capture {listed}, which `instance` needs")
            elif pattern.deep in instance.names and pattern.deep != instance.deep:
                deep = f"{{{pattern.deep}...}}"
                self._problem(f"{place}.topic", f"{deep} takes several segments: write it so in `instance`, too")
            self._check_rule(place, source)
            sources.append(
                BoundSource(
                    place,
                    pattern,
                    source,
                    source.clock or (Clock.ARRIVAL if source.form is Form.SCALAR else Clock.PAYLOAD),
                    self._features(place, source),
                    self._context(place, source),
                    self._label(place, source),
                )
            )
        self._check_whole()
        by_row = _is_by_row(sources)
        for bound in sources:
            labels_rows = not self._is_event and bound.label is not None
            if labels_rows and not (by_row and bound.features):
                self._problem(f"{bound.place}.label", "a window's label comes in one message with all of its last row")
        if self._problems:
            raise MapError(self._problems)
        return BoundMap(
            instance=instance,
            sources=tuple(sources),
            tags=self._tags,
            keyed=frozenset(self._keyed_at),
            by_row=by_row,
            lateness_s=signal_map.lateness_s,
        )

    def _problem(self, place: str, text: str) -> None:
        self._problems.append(f"{place}: {text}")

    def _features(self, place: str, source: Source) -> tuple[BoundFeature, ...]:
        bound = []
        positions = {feature.name: i for i, feature in enumerate(self._contract.features)}
        taken: set[int] = set()
        for number, feature in enumerate(source.features):
            where = f"{place}.features[{number}]"
            index = positions.get(feature.feature)
            if index is None:
                self._problem(f"{where}.feature", f"the contract has no feature {feature.feature!r}")
                continue
            if index in taken:
                self._problem(f"{where}.feature", f"{feature.feature!r} stands in this source twice")
            taken.add(index)
            try:
                scale, offset = linear_conversion(feature.unit, self._contract.features[index].unit)
            except UnitError as error:
                self._problem(f"{where}.unit", f"{error} (feature {feature.feature!r})")
                continue
            if source.key is not None and {"join", "max_age_s"} & feature.model_fields_set:
                self._problem(where, "join and max_age_s are for unkeyed sources: a keyed value needs no joining")
            elif feature.join is Join.LINEAR and self._is_event:
                self._problem(
                    f"{where}.join",
                    "an event is answered when it happens, and linear needs the reading after it: use last or mean",
                )
            one = BoundFeature(
                index,
                feature.feature,
                source.field_of(feature),
                scale * feature.scale,
                scale * feature.offset + offset,
                feature.join,
                feature.gap_limit_s if feature.gap_limit_s is not None else feature.max_age_s,
                feature.unit == "",
                feature.unit if (feature.scale, feature.offset) == (1, 0) and feature.join is not Join.COUNT else None,
            )
            bound.append(one)
            self._remember(where, source, one)
        return tuple(bound)

    def _remember(self, where: str, source: Source, feature: BoundFeature) -> None:
        mine, other = (self._keyed_at, self._tag_at) if source.key is not None else (self._tag_at, self._keyed_at)
        if feature.index in other:
            self._problem(
                where, f"{feature.name!r} comes with a key in one source and without in {other[feature.index]}"
            )
        mine.setdefault(feature.index, where)
        if source.key is None:
            known = self._tags.setdefault(feature.index, feature)
            if (known.join, known.max_age_s) != (feature.join, feature.max_age_s):
                self._problem(where, f"{feature.name!r} joins in another way in {self._tag_at[feature.index]}")

    def _context(self, place: str, source: Source) -> BoundContext | None:
        if source.context is None:
            return None
        context = self._contract.context
        if not isinstance(context, DeclaredContext):
            self._problem(f"{place}.context", "the contract declares no context")
            return None
        slots = {value: slot for slot, value in enumerate(context.values, start=1)}
        for code, value in source.context.codes.items():
            if value not in context.values:
                self._problem(f"{place}.context.codes[{code}]", f"the contract's context has no value {value!r}")
            else:
                slots[code] = context.values.index(value) + 1
        return BoundContext(source.field_of(source.context), slots)

    def _label(self, place: str, source: Source) -> BoundLabel | None:
        if source.label is None:
            return None
        label = self._contract.label
        if not isinstance(label, ClassLabel):
            self._problem(f"{place}.label", f"the contract's label kind is {label.kind}: no plant says it")
            return None
        for code, name in source.label.codes.items():
            if name not in label.classes:
                listed = ", ".join(label.classes)
                self._problem(f"{place}.label.codes[{code}]", f"the contract has no class {name!r}; it has {listed}")
        if source.label.source not in self._precedence:
            self._problem(f"{place}.label.source", f"{source.label.source!r} is not in label_sources")
            return None
        return BoundLabel(
            source.field_of(source.label),
            source.label.source,
            self._precedence.index(source.label.source),
            {code: label.classes.index(name) for code, name in source.label.codes.items() if name in label.classes},
        )

    def _check_rule(self, place: str, source: Source) -> None:
        """What a source may hold under the contract's sample rule."""
        if self._is_event:
            if source.key is None and source.label is not None:
                self._problem(f"{place}.label", "name the `key` that tells which sample the label is for")
            if source.key is None and (source.group or source.split):
                self._problem(place, "group and split go with a `key`: they belong to one sample")
            if source.end_of_run is not None:
                self._problem(f"{place}.end_of_run", "the contract's samples are events, which have no runs")
            return
        if source.key is not None:
            self._problem(f"{place}.key", "the contract's samples are windows, which have no keys")
        if source.end_of_run is not None and source.features and source.end_of_run.remaining is None:
            self._problem(
                f"{place}.end_of_run.remaining", "every message would end the run: name the key that only the last has"
            )

    def _check_whole(self) -> None:
        """What the sources have to give together."""
        contract, sources = self._contract, self._map.sources
        fed = self._keyed_at.keys() | self._tag_at.keys()
        for index, feature in enumerate(contract.features):
            if index not in fed and not feature.optional and not self._is_named(feature.name):
                self._problem("sources", f"nothing feeds the required feature {feature.name!r} ({feature.unit})")
        if len(self._precedence) > 1 and not self._map.label_sources:
            self._problem(
                "label_sources", f"list who has the last word, strongest first: {', '.join(self._precedence)}"
            )
        if len(set(self._precedence)) != len(self._precedence):
            self._problem("label_sources", "a source stands in it twice")
        is_keyed = any(s.key is not None and s.feeds_samples for s in sources)
        if isinstance(contract.sample, EventSample) and not is_keyed:
            self._problem("sources", f"no source has a `key`: nothing says when a {contract.sample.key} happens")

    def _is_named(self, feature: str) -> bool:
        """Named but not usable: that problem was said already."""
        return any(f.feature == feature for s in self._map.sources for f in s.features)


def _is_by_row(sources: list[BoundSource]) -> bool:
    """One source feeds all features, each with its latest value: its messages are the rows."""
    feeding = [s for s in sources if s.features]
    if any(s.declared.form is Form.SPARKPLUG for s in feeding):
        return False  # a device says what has changed, not all of a row
    return len(feeding) == 1 and all(f.join is Join.LAST for f in feeding[0].features) and len(feeding[0].features) > 0


def required_features(contract: Contract) -> frozenset[int]:
    """Positions of the features that a participant must have."""
    return frozenset(i for i, feature in enumerate(contract.features) if not feature.optional)
