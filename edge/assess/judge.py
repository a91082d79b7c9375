"""From what was heard to findings. Pure.

Each limit is set so that an ordinary plant passes: tags that are sent on change have long silences, brokers repeat
messages, clocks differ a little. A finding is something that a person should look at before the first training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge.assess.report import Assessment, Check, FeatureLine, Finding, RoundTrip, Step, TopicLine
from edge.assess.survey import Survey, TopicSeen
from edge.assess.units import suspect_unit
from edge.binding import BoundFeature
from edge.clock import FUTURE_TOLERANCE_S, Clock
from edge.dialects import Form
from uns_topics.contract import ClassLabel, Feature, WindowSample
from uns_topics.reference import LEVELS

GAP_INTERVALS = 10.0
"""A silence this many median intervals long is looked at."""
GAP_USUAL = 4.0
"""... if it is also this many times the usual longest one (95 %): tags sent on change come in bursts."""
MIN_INTERVALS = 8
MIN_GAP_S = 1.0
DUPLICATE_SHARE = 0.01
MIN_DUPLICATES = 3
"""QoS 1 may repeat a message at a reconnect; a few say nothing."""
CLOCK_S = 5.0
"""A clock this far from the plant's others."""
LAG_QUANTILE = 0.1
"""Of arrival minus timestamp: below it lie the messages that waited for nothing on their way."""
REPLAY_SPEED = 3.0
"""Event time that runs this many times faster than messages arrive is history being played back."""
MIN_REPLAY_S = 60.0
NOT_GOOD_SHARE = 0.2
UNREADABLE_SHARE = 0.01
MIN_UNMATCHED = 50
STRIP_SLICES = 48
DAY_S = 86_400.0
_TOLD_ELSEWHERE = frozenset({"duplicate", "retained", "future", "unmapped-code", "no-birth"})


def assess(
    survey: Survey,
    *,
    participant: str,
    ended_s: float,
    started_s: float,
    why_ended: str = "",
    trains: bool = True,
    references: Mapping[str, Sequence[float]] | None = None,
    step: Step | None = None,
    round_trip: RoundTrip | None = None,
) -> Assessment:
    """What a survey comes to.

    Args:
        started_s, ended_s: of the listening, as arrivals are told. why_ended: before its time.
        trains: the plant wants to train, so labels matter.
        references: other plants' quantiles at `LEVELS` by feature, in the contract's unit; without one the contract's
            range is what values are held against.
    """
    return _Judge(survey, started_s, ended_s, references or {}).assess(
        participant, why_ended, trains, step or Step(), round_trip or RoundTrip()
    )


class _Judge:
    def __init__(
        self, survey: Survey, started_s: float, ended_s: float, references: Mapping[str, Sequence[float]]
    ) -> None:
        self._survey = survey
        self._contract = survey.contract
        self._started_s = started_s
        self._ended_s = max(ended_s, started_s)
        self._references = references
        self._seen = list(survey.topics.values())
        self._replayed = _is_replayed(self._seen)
        self._seconds = survey.events.seconds if self._replayed else self._ended_s - started_s

    def assess(self, participant: str, why_ended: str, trains: bool, step: Step, round_trip: RoundTrip) -> Assessment:
        survey = self._survey
        features = tuple(self._feature_lines())
        samples, matched = sum(survey.samples.values()), survey.matched
        per_day, in_theory = self._per_day(samples)
        findings = [
            *self._coverage(features),
            *(finding for seen in self._seen for finding in self._of_topic(seen)),
            *self._messages(),
            *self._sampling(samples, matched, features, trains),
        ]
        if round_trip.failed is not None:
            findings.append(Finding(Check.ENTERPRISE, "federation", round_trip.failed))
        if step.failed is not None:
            findings.append(Finding(Check.TRAINING, "trainer", step.failed))
        return Assessment(
            federation=self._contract.federation,
            participant=participant,
            seconds=round(self._ended_s - self._started_s, 3),
            messages=survey.messages,
            payload_bytes=survey.bytes,
            replayed=self._replayed,
            ended=why_ended,
            instances=survey.instances,
            samples=samples,
            labels=survey.labels,
            matched=matched,
            per_day=per_day,
            in_theory=in_theory,
            days_to_first_training=self._days(per_day),
            features=features,
            topics=tuple(self._topic_line(seen) for seen in self._seen),
            findings=tuple(findings),
            notes=tuple(self._notes(samples, trains)),
            step=step,
            round_trip=round_trip,
        )

    # Features --------------------------------------------------------------------------------------------------------

    def _feature_lines(self) -> Iterator[FeatureLine]:
        for index, feature in enumerate(self._contract.features):
            found = [
                (seen, bound) for seen in self._seen for bound in seen.source.features if bound.index == index
            ]  # fmt: skip
            head = (feature.name, feature.unit, feature.minimum, feature.maximum, feature.optional)
            if not found:
                yield FeatureLine(*head, map_unit=self._mapped_unit(feature.name))
            for seen, bound in found:
                kept = seen.values.get(index)
                values = np.array(kept.kept if kept is not None else [])
                reference = self._references.get(feature.name)
                yield FeatureLine(
                    *head,
                    topic=seen.topic,
                    map_unit=_unit(seen, bound),
                    values=len(kept) if kept is not None else 0,
                    missing=seen.missing[index],
                    out_of_range=round(_outside(values, feature), 4) if len(values) else 0.0,
                    quantiles=tuple(np.quantile(values, LEVELS).tolist()) if len(values) else None,
                    reference=tuple(reference) if reference is not None else None,
                )

    def _mapped_unit(self, name: str) -> str | None:
        declared = (f for s in self._survey.map.sources for f in s.declared.features)
        return next((feature.unit for feature in declared if feature.feature == name), None)

    def _coverage(self, lines: Sequence[FeatureLine]) -> Iterator[Finding]:
        for name in dict.fromkeys(line.feature for line in lines):
            of = [line for line in lines if line.feature == name]
            if any(line.values for line in of) or of[0].map_unit is None:
                continue
            heard = sum(line.missing for line in of)
            if heard:
                text = f"{heard} messages came, and none had a usable value"
            elif self._survey.counters["no-birth"] and self._is_sparkplug(name):
                text = "its Sparkplug node said data and no birth while this listened: let it say its births again"
            else:
                text = "no message came; is the topic right, and was the line running?"
            yield Finding(Check.COVERAGE, name, text)

    def _is_sparkplug(self, name: str) -> bool:
        sources = (s.declared for s in self._survey.map.sources)
        return any(s.form is Form.SPARKPLUG for s in sources for feature in s.features if feature.feature == name)

    # Topics ----------------------------------------------------------------------------------------------------------

    def _of_topic(self, seen: TopicSeen) -> Iterator[Finding]:
        for bound in seen.source.features:
            yield from self._unit(seen, bound)
        yield from self._gap(seen)
        yield from self._clock(seen)
        yield from _duplicates(seen)
        yield from _quality(seen)
        if seen.codes:
            listed = ", ".join(f"{code!r} ({count})" for code, count in seen.codes.most_common(5))
            text = f"{sum(seen.codes.values())} of {seen.labels} labels have a code that the map doesn't know: {listed}"
            yield Finding(Check.LABEL_CODE, seen.topic, text)
        if seen.contexts:
            listed = ", ".join(repr(value) for value, _ in seen.contexts.most_common(5))
            text = f"neither the contract nor the map's codes know {listed}; these count as unknown"
            yield Finding(Check.CONTEXT, seen.topic, text)

    def _unit(self, seen: TopicSeen, bound: BoundFeature) -> Iterator[Finding]:
        kept = seen.values.get(bound.index)
        if kept is None:
            return
        feature = self._contract.features[bound.index]
        values = np.array(kept.kept)
        quantiles = np.quantile(values, LEVELS).tolist()
        found = suspect_unit(quantiles, feature, _unit(seen, bound), self._references.get(feature.name))
        if found is not None:
            check = Check.UNIT if found.factor != 1.0 or found.unit is not None else Check.RANGE
            yield Finding(check, seen.topic, f"{feature.name} {found.text}")
            return
        outside = _outside(values, feature)
        limit = self._contract.quality.max_out_of_range
        if outside > limit:
            text = f"{feature.name}: {outside:.0%} of the values are out of range (the gate's limit is {limit:.0%})"
            yield Finding(Check.RANGE, seen.topic, text)

    def _gap(self, seen: TopicSeen) -> Iterator[Finding]:
        """Silences of tags; events pause with the line."""
        if seen.source.declared.key is not None or not seen.source.features:
            return
        distances = sorted(seen.gaps.distances.kept)
        if len(distances) < MIN_INTERVALS:
            return
        longest, at_s = self._longest(seen)
        median, usual = distances[len(distances) // 2], distances[:-1][int(0.95 * (len(distances) - 1))]
        if longest > max(GAP_INTERVALS * median, GAP_USUAL * usual, MIN_GAP_S):
            after = max(0.0, at_s - self._survey.events.first_s)
            text = f"silent for {longest:.3g} s, {after:.3g} s after the start, where {median:.3g} s are usual"
            yield Finding(Check.GAP, seen.topic, text)

    def _longest(self, seen: TopicSeen) -> tuple[float, float]:
        """The longest silence and its start, that until the end of the listening included."""
        longest, at_s, last_s = seen.gaps.longest_s, seen.gaps.longest_at_s, seen.gaps.last_s
        if last_s is not None and not self._replayed and seen.arrivals.kept:
            open_s = self._ended_s - max(seen.arrivals.kept[-1], last_s)
            if open_s > longest and len(seen.arrivals) == len(seen.arrivals.kept):
                return open_s, last_s
        return longest, at_s

    def _clock(self, seen: TopicSeen) -> Iterator[Finding]:
        if self._replayed or seen.source.clock is not Clock.PAYLOAD:
            return
        lag = _lag(seen)
        if lag is None:
            return
        others = [one for one in (_lag(other) for other in self._seen if other is not seen) if one is not None]
        usual = float(np.median(others)) if len(others) >= 2 else 0.0
        says_labels_only = not seen.source.features  # a verdict may come long after what its timestamp tells
        if lag < -FUTURE_TOLERANCE_S or abs(lag - usual) > CLOCK_S:
            if says_labels_only and lag > usual:
                return
            direction = "ahead" if lag < usual else "behind"
            text = f"its clock is {abs(lag - usual):.3g} s {direction}; set it, or say `clock: offset` for this source"
            yield Finding(Check.CLOCK, seen.topic, text)

    def _messages(self) -> Iterator[Finding]:
        for topic, counts in self._survey.problems.items():
            understood = sum(seen.messages + seen.retained for seen in self._seen if seen.topic == topic)
            for code, count in counts.items():
                if code not in _TOLD_ELSEWHERE and count > UNREADABLE_SHARE * (understood + count):
                    detail = self._survey.details.get((topic, code), "")
                    yield Finding(Check.MESSAGES, topic, f"{code}: {count} messages ({detail})")

    # Samples ---------------------------------------------------------------------------------------------------------

    def _sampling(self, samples: int, matched: int, features: Sequence[FeatureLine], trains: bool) -> Iterator[Finding]:
        rule, label = self._contract.sample, self._contract.label
        with_values = {line.feature for line in features if line.values}
        heard_all = all(line.feature in with_values for line in features if not line.optional)
        waits_s = rule.period_s * rule.length if isinstance(rule, WindowSample) else 0.0
        if samples == 0 and heard_all and self._survey.messages and self._seconds > 3 * waits_s:
            yield Finding(Check.SAMPLES, "samples", self._why_no_samples())
        if trains and label.kind != "none" and not self._survey.map.is_labelled:
            yield Finding(Check.SAMPLES, "labels", "the map has no source of labels: this plant can't train")
        labels = self._survey.labels
        if isinstance(label, ClassLabel) and min(samples, labels) >= MIN_UNMATCHED and matched == 0:
            text = f"none of {labels} labels is for one of {samples} samples: are their keys written alike?"
            yield Finding(Check.SAMPLES, "labels", text)

    def _why_no_samples(self) -> str:
        if not isinstance(self._contract.sample, WindowSample):
            fed = {seen.source.place for seen in self._seen}
            keyed = [s for s in self._survey.map.sources if s.declared.key is not None and s.declared.feeds_samples]
            if silent := [source.declared.topic for source in keyed if source.place not in fed]:
                return f"no sample came of it: nothing was heard on {', '.join(silent)}"
            return "no sample came of it: do all keyed parts of one event have the same key?"
        return "no window came of it: are rows further apart than the contract's period?"

    def _per_day(self, samples: int) -> tuple[float | None, bool]:
        rule = self._contract.sample
        if samples and self._seconds > 0:
            return round(samples / self._seconds * DAY_S, 1), False
        if isinstance(rule, WindowSample) and self._survey.instances:
            return round(len(self._survey.instances) * DAY_S / (rule.period_s * rule.stride), 1), True
        return None, False

    def _days(self, per_day: float | None) -> float | None:
        if not per_day or not isinstance(self._contract.label, ClassLabel):
            return None
        needed = self._contract.quality.min_samples / self._contract.split.train
        return round(needed / per_day + self._contract.label.matures_after_s / DAY_S, 2)

    def _notes(self, samples: int, trains: bool) -> Iterator[str]:
        if self._replayed:
            yield "history was played back: rates are by event time, and nothing is said of clocks"
        for index, feature in enumerate(self._contract.features):
            if all(bound.index != index for source in self._survey.map.sources for bound in source.features):
                yield f"{feature.name} is optional and not mapped: the model fills it"
        if self._survey.counters["no-birth"]:
            yield "Sparkplug data came before a birth; an edge asks for births, an assessment publishes nothing"
        is_labelled = trains and self._survey.map.is_labelled and isinstance(self._contract.label, ClassLabel)
        if is_labelled and samples and not self._survey.labels:
            yield "no label came while this listened; labels may be late, but look whether they come at all"

    def _topic_line(self, seen: TopicSeen) -> TopicLine:
        distances = seen.gaps.distances.kept
        longest, _ = self._longest(seen)
        lag = _lag(seen)
        minutes = self._seconds / 60
        return TopicLine(
            topic=seen.topic,
            instance=seen.instance,
            form=seen.source.declared.form.value,
            messages=seen.messages,
            retained=seen.retained,
            per_minute=round(seen.messages / minutes, 2) if minutes > 0 else 0.0,
            interval_s=round(float(np.median(distances)), 3) if distances else None,
            longest_gap_s=round(longest, 3) if seen.messages else None,
            lag_s=round(lag, 3) if lag is not None and not self._replayed else None,
            repeated=seen.repeated,
            strip=self._strip(seen),
        )

    def _strip(self, seen: TopicSeen) -> tuple[int, ...]:
        span = max(self._ended_s - self._started_s, 1e-9)
        places = (np.array(seen.arrivals.kept) - self._started_s) / span * STRIP_SLICES
        counts = np.bincount(np.clip(places, 0, STRIP_SLICES - 1).astype(np.int64), minlength=STRIP_SLICES)
        return tuple(counts.tolist())


def _is_replayed(topics: Sequence[TopicSeen]) -> bool:
    """Each topic by itself: one whose clock is wrong makes no history of the others."""
    speeds = [seen.said.seconds / max(seen.came.seconds, 1e-3) for seen in topics if seen.said.seconds > MIN_REPLAY_S]
    timed = sum(len(seen.lags) > 1 for seen in topics)
    return 2 * sum(speed > REPLAY_SPEED for speed in speeds) > timed


def _unit(seen: TopicSeen, bound: BoundFeature) -> str:
    return next(f.unit for f in seen.source.declared.features if f.feature == bound.name)


def _outside(values: npt.NDArray[np.float64], feature: Feature) -> float:
    return float(((values < feature.minimum) | (values > feature.maximum)).mean())


def _lag(seen: TopicSeen) -> float | None:
    return float(np.quantile(np.array(seen.lags.kept), LAG_QUANTILE)) if seen.lags.kept else None


def _duplicates(seen: TopicSeen) -> Iterator[Finding]:
    if seen.repeated >= MIN_DUPLICATES and seen.repeated > DUPLICATE_SHARE * seen.messages:
        text = f"{seen.repeated} of {seen.messages} messages came before, to the byte; do two gateways send them?"
        yield Finding(Check.DUPLICATES, seen.topic, text)


def _quality(seen: TopicSeen) -> Iterator[Finding]:
    """Values that are missing though their message came; which features, and how often."""
    total = seen.messages + seen.retained
    if seen.source.declared.form is Form.SPARKPLUG and not seen.messages:
        return
    for bound in seen.source.features:
        kept, missing = seen.values.get(bound.index), seen.missing[bound.index]
        if kept is not None and missing > NOT_GOOD_SHARE * (len(kept) + missing):
            text = f"{bound.name} is null, unusable or not good in {missing} of {total} messages"
            yield Finding(Check.QUALITY, seen.topic, text)
