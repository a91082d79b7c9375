"""A signal map proposed from what a broker says: for a person to read, correct and approve. Pure.

Each guess has its evidence beside it. What can't be guessed (a code that no list knows, a run's end) is a comment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from edge.assess.keys import Keyed, find_key
from edge.assess.labels import LabelGuess, find_context, find_label
from edge.assess.matching import Group, Match, match
from edge.assess.survey import Gaps
from edge.assess.tags import Tags, TagSeen, TopicTags
from edge.assess.topology import Path, generalise, instance_of
from edge.binding import MapError, bind
from edge.dialects import VALUE, Form, TimestampFormat
from edge.signal_map import SignalMap
from uns_topics.contract import Contract, EventSample
from uns_topics.sparkplug import NAMESPACE

MAX_TOLD = 20


@dataclass(frozen=True)
class Suggestion:
    """A proposal.

    Attributes:
        text: YAML with comments; loads as a signal map. None where no tag was recognised.
        matched: features by name. problems: why it doesn't bind yet, as `bind` says; empty where it does.
    """

    text: str | None
    matched: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass
class _Source:
    group: Group
    matches: list[Match]
    keyed: Keyed | None = None
    label: LabelGuess | None = None
    context: str | None = None


def suggest(tags: Tags, contract: Contract) -> Suggestion:
    """Propose a signal map for what was heard."""
    groups = _groups(tags)
    sources = _sources(groups, contract)
    sources, left_out = _of_one_tree(sources)
    if not sources:
        return Suggestion(None, (), ())
    instance = _instance([s.group.pattern for s in sources])
    names = {segment for segment in instance if segment.startswith("{")}
    usable = [s for s in sources if names <= set(s.group.pattern)]
    left_out += [s for s in sources if not names <= set(s.group.pattern)]
    if not usable:
        return Suggestion(None, (), ())
    matched = tuple(m.feature for s in usable for m in s.matches)
    lines = [*_head(instance, usable), "sources:"]
    for source in usable:
        lines += _write(source)
    labels = list(dict.fromkeys(s.label.source for s in usable if s.label is not None))
    if len(labels) > 1:
        lines += ["# who has the last word, strongest first; CHECK THE ORDER", f"label_sources: {_flow(labels)}"]
    lines += _tail(contract, matched, left_out)
    text = "\n".join(lines) + "\n"
    return Suggestion(text, matched, _problems(text, contract))


def _problems(text: str, contract: Contract) -> tuple[str, ...]:
    try:
        bind(SignalMap.model_validate(yaml.safe_load(text)), contract)
    except MapError as error:
        return error.problems
    return ()


# What was heard, pattern by pattern -----------------------------------------------------------------------------------


def _groups(tags: Tags) -> list[Group]:
    kinds = {
        tuple(topic.split("/")): f"{seen.form.value} {' '.join(sorted(seen.fields))}"
        for topic, seen in tags.topics.items()
        if "{" not in topic and "}" not in topic  # a signal map can't write these
    }
    members: dict[tuple[Path, Form], list[TopicTags]] = {}
    for path, pattern in generalise(kinds).items():
        seen = tags.topics["/".join(path)]
        members.setdefault((pattern, seen.form), []).append(seen)
    return [
        Group(pattern, _merged(found), tuple(one.topic for one in found)) for (pattern, _), found in members.items()
    ]


def _merged(topics: Sequence[TopicTags]) -> TopicTags:
    """All topics of a pattern as one."""
    most = max(topics, key=lambda one: one.messages)
    merged = replace(most, messages=sum(one.messages for one in topics), fields={})
    merged.gaps = max((one.gaps for one in topics), key=lambda gaps: gaps.longest_s, default=Gaps())
    for topic in topics:
        for tag in topic.fields.values():
            known = merged.fields.setdefault(tag.field, TagSeen(tag.field, unit=tag.unit))
            known.count += tag.count
            known.texts.update(tag.texts)
            for number in tag.numbers.kept:
                known.numbers.add(number)
    return merged


def _sources(groups: Sequence[Group], contract: Contract) -> list[_Source]:
    found: dict[tuple[Path, Form], _Source] = {}
    for one in match(contract, groups):
        found.setdefault((one.group.pattern, one.group.seen.form), _Source(one.group, [])).matches.append(one)
    by_event = isinstance(contract.sample, EventSample)
    keyed = {id(g): find_key(g, groups, contract) for g in groups} if by_event else {}
    for group in groups:
        source = found.get((group.pattern, group.seen.form)) or _Source(group, [])
        source.keyed = keyed.get(id(group))
        used = {m.field for m in source.matches} | ({source.keyed.field} if source.keyed is not None else set())
        if source.keyed is not None or (not by_event and len(found) == 1 and source.matches):
            source.label = find_label(group, contract, used)
        source.context = find_context(group, contract, used)
        if source.matches or source.label is not None or source.context is not None:
            found[group.pattern, group.seen.form] = source
    if by_event and any(s.keyed is not None and s.matches for s in found.values()):
        return list(found.values())
    return [s for s in found.values() if s.matches or s.label is not None or s.context is not None]


def _of_one_tree(sources: list[_Source]) -> tuple[list[_Source], list[_Source]]:
    """Instances have one path: what begins differently, as Sparkplug's names do, doesn't meet in it."""
    trees: dict[Path, list[_Source]] = {}
    for source in sources:
        pattern = source.group.pattern
        trees.setdefault(pattern[:1] if pattern[0] else pattern[:2], []).append(source)
    largest = max(trees.values(), key=lambda tree: sum(len(s.matches) for s in tree), default=[])
    return largest, [s for s in sources if not any(s is one for one in largest)]


def _instance(patterns: Sequence[Path]) -> Path:
    if patterns[0][0] == NAMESPACE:
        return instance_of([(pattern[1], pattern[3], "") for pattern in patterns])
    captured = [pattern for pattern in patterns if any(segment.startswith("{") for segment in pattern)]
    return instance_of(captured or patterns)


# Writing it down ------------------------------------------------------------------------------------------------------


def _head(instance: Path, sources: Sequence[_Source]) -> Iterator[str]:
    yield "# Proposed by `headgate assess --suggest` from what a broker said. Read it before an edge runs on it:"
    yield "# each guess has its evidence beside it."
    yield "signal_map: 1"
    for place, segment in enumerate(instance):
        if segment.startswith("{"):
            at = place + (0 if sources[0].group.pattern[0] != NAMESPACE else 1 if place == 0 else 2)
            values = sorted({m.split("/")[at] for s in sources for m in s.group.members})
            yield _comment(f"{segment} is {', '.join(values[:MAX_TOLD])}", 0)
    yield f"instance: {_text('/'.join(instance))}"


def _write(source: _Source) -> Iterator[str]:
    seen, group = source.group.seen, source.group
    many = f"{len(group.members)} topics such as " if len(group.members) > 1 else ""
    yield _comment(f"{seen.messages} messages on {many}{group.members[0]}", 2)
    yield f"  - topic: {_text('/'.join(group.pattern))}"
    yield f"    form: {seen.form.value}"
    if seen.form in (Form.VQT, Form.FLAT):
        yield from _keys(seen)
    if source.keyed is not None:
        yield _comment(source.keyed.evidence, 4)
        yield f"    key: {_text(source.keyed.field)}"
    if source.matches:
        yield "    features:"
        for one in source.matches:
            yield _comment(one.evidence, 6)
            yield f"      - {_flow(_feature(one, is_keyed=source.keyed is not None))}"
    if source.context is not None:
        yield _comment("its texts are values of the contract's context", 4)
        yield f"    context: {_flow(_field(seen.form, source.context, seen))}"
    if source.label is not None:
        yield from _label(source.label, seen)


def _keys(seen: TopicTags) -> Iterator[str]:
    defaults = {"value": VALUE, "quality": "quality", "timestamp": "timestamp"}
    keys = {name: key for name, key in seen.keys.items() if key != defaults[name]}
    if keys:
        yield f"    keys: {_flow(keys)}"
    if seen.stamp is None:
        yield _comment("no timestamp was recognised: its arrival counts", 4)
        yield "    clock: arrival"
    elif seen.stamp is not TimestampFormat.MS:
        yield f"    timestamp_format: {seen.stamp.value}"


def _feature(one: Match, *, is_keyed: bool) -> dict[str, Any]:
    field = _field(one.group.seen.form, one.field, one.group.seen)
    content: dict[str, Any] = {"feature": one.feature, **field, "unit": one.unit}
    gaps = one.group.seen.gaps
    if not is_keyed and gaps.longest_s > 0:
        content["max_age_s"] = _round_up(max(10.0, 3 * gaps.longest_s))
    return content


def _field(form: Form, name: str, seen: TopicTags) -> dict[str, str]:
    """The field, where a form's only one doesn't go without saying."""
    only = seen.keys.get("value", VALUE) if form is Form.VQT else VALUE
    return {} if form not in (Form.FLAT, Form.SPARKPLUG) and name == only else {"field": name}


def _label(label: LabelGuess, seen: TopicTags) -> Iterator[str]:
    yield _comment(label.evidence, 4)
    content = {**_field(seen.form, label.field, seen), "source": label.source, "codes": label.codes}
    yield f"    label: {_flow(content)}"
    for code, count in label.unknown[:MAX_TOLD]:
        yield _comment(f"CODE WITHOUT A CLASS: {code!r}, {count} times; add it to the codes", 4)


def _tail(contract: Contract, matched: Sequence[str], left_out: Sequence[_Source]) -> Iterator[str]:
    for feature in contract.features:
        if feature.name not in matched:
            what = "optional, and no tag looks like it" if feature.optional else "NO TAG LOOKS LIKE IT"
            yield _comment(f"{feature.name} ({feature.unit}): {what}", 0)
    if contract.label.kind == "run_to_failure":
        yield _comment("the end of a run can't be guessed: name the group and end_of_run of a source", 0)
    for source in left_out:
        told = ", ".join([m.feature for m in source.matches] or ["a label or context"])
        why = "its topic has not the levels that tell the instances apart"
        yield _comment(f"left out: {source.group.members[0]} ({told}): {why}", 0)


def _comment(text: str, indent: int) -> str:
    flat = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return f"{' ' * indent}# {flat}"


def _text(text: str) -> str:
    """A YAML scalar in double quotes; JSON's are YAML's."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _flow(content: Any) -> str:
    if isinstance(content, dict):
        return (
            "{" + ", ".join(f"{_text(k) if not k.isidentifier() else k}: {_flow(v)}" for k, v in content.items()) + "}"
        )
    if isinstance(content, list):
        return "[" + ", ".join(_flow(one) for one in content) + "]"
    return _text(content) if isinstance(content, str) else f"{content:g}"


def _round_up(seconds: float) -> float:
    """To a number that a person would write."""
    step = 10.0 ** math.floor(math.log10(seconds))
    return float(math.ceil(seconds / step) * step)
