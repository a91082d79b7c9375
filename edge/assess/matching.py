"""Which tag is which feature of the contract: by the words of its name, its unit, and whether its values fit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.assess.tags import TagSeen, TopicTags
from edge.assess.units import suspect_unit
from edge.assess.words import same_word, unit_in, unit_written, words_of
from edge.dialects import VALUE, Form
from edge.unit_check import PURE
from edge.units import UnitError, linear_conversion
from uns_topics.contract import Contract, Feature
from uns_topics.reference import LEVELS
from uns_topics.sparkplug import NAMESPACE

LEAST = 0.45
"""Of a score between 0 and about 1.2; below it a guess would be a coin's."""
STILL = 0.01
"""Values within this part of the range hardly move."""
NAMING_SEGMENTS = 2
"""Last segments of a topic that name a tag."""


@dataclass(frozen=True)
class Group:
    """Topics of one pattern. `seen`: all of them as one; `members`: their topics."""

    pattern: tuple[str, ...]
    seen: TopicTags
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A tag that is taken for a feature. `evidence`: why, for the person who checks it."""

    feature: str
    group: Group
    field: str
    unit: str
    score: float
    evidence: str


def match(contract: Contract, groups: Sequence[Group]) -> list[Match]:
    """The best tag of each feature, each tag once; features that nothing fits are left out."""
    words = {feature.name: words_of(feature.name) for feature in contract.features}
    common = Counter(word for of in words.values() for word in set(of))
    found = []
    for group in groups:
        for tag in group.seen.fields.values():
            if tag.is_numeric:
                for feature in contract.features:
                    one = _match(feature, words[feature.name], common, group, tag)
                    if one is not None:
                        found.append(one)
    found.sort(key=lambda one: (-one.score, one.group.pattern, one.field))
    chosen: dict[str, Match] = {}
    taken: set[tuple[tuple[str, ...], str]] = set()
    for one in found:
        if one.feature not in chosen and (one.group.pattern, one.field) not in taken:
            chosen[one.feature] = one
            taken.add((one.group.pattern, one.field))
    return [_as_siblings(chosen[f.name], f, contract, chosen) for f in contract.features if f.name in chosen]


def _as_siblings(one: Match, feature: Feature, contract: Contract, chosen: Mapping[str, Match]) -> Match:
    """Values that hardly move in the contract's unit come in that of their neighbours, where they move more in it."""
    if one.unit != feature.unit:
        return one
    numbers = np.array(one.group.seen.fields[one.field].numbers.kept)
    low, high = np.quantile(numbers, (LEVELS[0], LEVELS[-1])).tolist()
    extent = feature.maximum - feature.minimum
    if high - low > STILL * extent:
        return one
    for other in contract.features:
        sibling = chosen.get(other.name)
        if sibling is None or sibling.group is not one.group or other.unit != feature.unit:
            continue
        scale, offset = linear_conversion(sibling.unit, feature.unit)
        ends = (scale * low + offset, scale * high + offset)
        if scale > 1 and feature.minimum <= ends[0] and ends[1] <= feature.maximum:
            evidence = f"{one.evidence}; in {feature.unit} it would hardly move, so in {sibling.unit} as others"
            return replace(one, unit=sibling.unit, evidence=evidence)
    return one


def _match(feature: Feature, wanted: Sequence[str], common: Counter[str], group: Group, tag: TagSeen) -> Match | None:
    own, around = _names(group, tag)
    hits = [word for word in wanted if any(same_word(word, other) for other in (*own, *around))]
    if not any(same_word(word, other) for word in hits for other in own):
        return None
    weight = {word: 1 / common[word] for word in wanted}
    score = sum(weight[word] for word in hits) / sum(weight.values())
    strangers = sum(not any(same_word(word, other) for word in wanted) for other in own if len(other) > 2)
    score -= min(0.2, 0.05 * strangers)
    unit, says = _unit(feature, tag)
    if unit is None:
        return None
    quantiles = np.quantile(np.array(tag.numbers.kept), LEVELS)
    fits, unit, values = _values(feature, unit, quantiles.tolist(), is_said=bool(says))
    score += (0.1 if says else 0.0) + (0.1 if fits else -0.3)
    if score < LEAST:
        return None
    evidence = f"named {', '.join(hits)}; {says or values}; median {quantiles[2]:.4g}"
    if says and not fits:
        evidence += f"; {values}"
    return Match(feature.name, group, tag.field, unit, round(score, 3), evidence)


def _names(group: Group, tag: TagSeen) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of the tag's own name, and of what stands above it."""
    segments = [s for s in group.pattern if not s.startswith("{") and s not in ("+", NAMESPACE)]
    has_name = group.seen.form in (Form.FLAT, Form.SPARKPLUG)
    if has_name:
        return words_of(tag.field), tuple(word for s in segments[-NAMING_SEGMENTS:] for word in words_of(s))
    above = segments[-NAMING_SEGMENTS:-1]
    return words_of(segments[-1]) if segments else (), tuple(word for s in above for word in words_of(s))


def _unit(feature: Feature, tag: TagSeen) -> tuple[str | None, str]:
    """The unit that something says, and what; the contract's where nothing does. None: it says another quantity."""
    if tag.unit is not None:
        unit = unit_written(tag.unit)
        return (unit, f"it says {tag.unit!r} itself") if _converts(unit, feature) else (None, "")
    named = unit_in(tag.field) if tag.field != VALUE else None
    if named is not None and _converts(named, feature):
        return named, f"its name ends with {named}"
    return feature.unit, ""


def _converts(unit: str, feature: Feature) -> bool:
    try:
        linear_conversion(unit, feature.unit)
    except UnitError:
        return False
    return True


def _values(feature: Feature, unit: str, quantiles: Sequence[float], *, is_said: bool) -> tuple[bool, str, str]:
    """Whether the values fit, in which unit, and a sentence on that."""
    scale, offset = linear_conversion(unit, feature.unit)
    converted = sorted(scale * q + offset for q in quantiles)
    suspicion = suspect_unit(converted, feature, unit)
    if suspicion is None:
        return True, unit, f"its values fit the contract's range in {unit or PURE}"
    if suspicion.unit is not None and not is_said:
        return True, suspicion.unit, f"its values fit the contract's range in {suspicion.unit or PURE} only"
    return False, unit, f"CHECK THE UNIT: {suspicion.text}"
