"""What a configuration says for the tree: the broker, and the units of a signal map."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker_bridge.config import BrokerConfig
from broker_bridge.settings import ConfigError, override, read_yaml, validate
from edge.signal_map import FeatureField, SignalMap
from uns_topics.filters import TopicPattern

_GROUPS = ("plant_broker", "broker")
"""The tags are on the plant's broker, where a file names one."""


def read_config(path: Path | None, given: dict[str, Any]) -> tuple[BrokerConfig, SignalMap | None]:
    """The broker and the signal map of an edge's, an aggregator's or a signal map's file.

    Args: given: what the command line says of the broker; it counts more than environment and file.
    Raises: ConfigError.
    """
    content = read_yaml(path) if path is not None else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys was expected, not {type(content).__name__}")
    folder = path.resolve().parent if path is not None else None
    is_map = "sources" in content
    groups: dict[str, Any] = {name: content[name] for name in _GROUPS if content.get(name) is not None and not is_map}
    override(groups, os.environ, frozenset(_GROUPS))
    group: Any = next((groups[name] for name in _GROUPS if name in groups), {})
    source = f"{path}: broker" if path is not None else "environment"
    broker = validate(BrokerConfig, group, source, folder)
    if given:
        broker = validate(BrokerConfig, {**broker.model_dump(exclude_unset=True), **given}, "command line")
    named = content.get("signal_map")
    if is_map:
        return broker, validate(SignalMap, content, str(path))
    if isinstance(named, str) and folder is not None:
        return broker, validate(SignalMap, read_yaml(folder / named), str(folder / named))
    return broker, None


def _is_plain(feature: FeatureField) -> bool:
    """Raw counts are in no unit before they are scaled."""
    return feature.scale == 1 and feature.offset == 0


def units_of(signals: SignalMap | None) -> Callable[[str, str | None], str | None] | None:
    """The unit that a signal map states for a topic, or for a metric of it; None without a map."""
    if signals is None:
        return None
    known = [
        (
            TopicPattern(source.topic),
            {source.field_of(one): one.unit for one in source.features if one.unit and _is_plain(one)},
        )
        for source in signals.sources
        if source.features
    ]

    def unit_of(topic: str, metric: str | None) -> str | None:
        for pattern, units in known:
            if pattern.match(topic) is None:
                continue
            if metric is not None:
                return units.get(metric)
            if len(units) == 1:
                return next(iter(units.values()))
        return None

    return unit_of
