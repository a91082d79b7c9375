"""Aggregation strategies by name: one file each, written beside its paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aggregator.strategies.base import Strategy
from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from uns_topics.envelope import describe
from uns_topics.model import FileValue
from uns_topics.plan import Strategy as StrategyChoice


class StrategyError(ValueError):
    """A strategy or an option that doesn't exist; the text lists those that do."""


@dataclass(frozen=True)
class Entry:
    """A strategy and its declared options."""

    make: Callable[[Any], Strategy]
    options: type[FileValue]


STRATEGIES: Mapping[str, Entry] = {"fedavg": Entry(FedAvg, FedAvgOptions)}


def make_strategy(choice: StrategyChoice) -> Strategy:
    """The strategy of a configuration. Raises: StrategyError: unknown name or option, or a value out of range."""
    entry = STRATEGIES.get(choice.name)
    if entry is None:
        raise StrategyError(f"no strategy {choice.name!r}; known: {', '.join(sorted(STRATEGIES))}")
    known = entry.options.model_fields
    if unknown := sorted(set(choice.options) - set(known)):
        raise StrategyError(
            f"strategy {choice.name} has no option {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    try:
        options = entry.options.model_validate(choice.options)
    except ValidationError as error:
        raise StrategyError(f"strategy {choice.name}: {describe(error)}") from None
    return entry.make(options)


__all__ = ["STRATEGIES", "StrategyError", "make_strategy"]
