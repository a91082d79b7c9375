"""What changed between two contracts, in words for people. Pure.

Only what changes a model's meaning is told: these are the parts that `Contract.meaning_sha256` covers, so there is a
sentence exactly where that hash differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from uns_topics.contract import Contract, Feature


def changes(old: Contract, new: Contract) -> tuple[str, ...]:
    """Sentences, one per change: features first, then what samples, labels and figures are. Empty: the same meaning."""
    found = [*_of_features(old, new)]
    if old.federation != new.federation:
        found.append(f"federation: {old.federation} -> {new.federation}")
    found += _of_part("context", _dump(old.context), _dump(new.context))
    found += _of_part("label", _dump(old.label), _dump(new.label))
    found += _of_part("sample", _dump(old.sample), _dump(new.sample))
    if old.metric is not new.metric:
        found.append(f"metric: {old.metric.value} -> {new.metric.value}")
    return tuple(found)


def is_same_input(old: Feature, new: Feature) -> bool:
    """Whether a number of the one says the same as this number of the other: name, unit and range."""
    return (old.name, old.unit, old.minimum, old.maximum) == (new.name, new.unit, new.minimum, new.maximum)


def _of_features(old: Contract, new: Contract) -> Iterator[str]:
    before = {feature.name: feature for feature in old.features}
    after = {feature.name: feature for feature in new.features}
    for name, feature in after.items():
        if name not in before:
            optional = ", optional" if feature.optional else ""
            yield f"feature {name} added ({_unit(feature)}, {_range(feature)}{optional})"
    for name in before:
        if name not in after:
            yield f"feature {name} removed"
    for name, feature in after.items():
        if name in before:
            yield from _of_feature(before[name], feature)
    if [n for n in before if n in after] != [n for n in after if n in before]:
        yield f"features in another order: {', '.join(after)}"


def _of_feature(old: Feature, new: Feature) -> Iterator[str]:
    if old.unit != new.unit:
        yield f"feature {new.name}: unit {_unit(old)} -> {_unit(new)}"
    if _range(old) != _range(new):
        yield f"feature {new.name}: range {_range(old)} -> {_range(new)}"
    if old.optional != new.optional:
        yield f"feature {new.name}: {'optional' if new.optional else 'required'} now"
    if old.fill != new.fill:
        yield f"feature {new.name}: fill {old.fill} -> {new.fill}"


def _unit(feature: Feature) -> str:
    return feature.unit or "a pure number"


def _range(feature: Feature) -> str:
    return f"{feature.minimum!r} to {feature.maximum!r}"


def _dump(part: Any) -> Mapping[str, Any] | None:
    return None if part is None else part.model_dump(mode="json")


def _of_part(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    if old == new:
        return []
    if old is None or new is None or old.get("kind") != new.get("kind"):
        return [f"{name}: {_kind(old)} -> {_kind(new)}"]
    return [f"{name}.{key}: {_said(old[key])} -> {_said(new[key])}" for key in new if old[key] != new[key]]


def _kind(part: Mapping[str, Any] | None) -> str:
    return "none" if part is None else str(part["kind"])


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
