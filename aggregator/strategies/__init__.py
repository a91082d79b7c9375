"""Aggregation strategies by name: one file each, written beside its paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aggregator.buffer import MAX_STALENESS
from aggregator.strategies.base import Strategy
from aggregator.strategies.centered_clipping import CenteredClipping, CenteredClippingOptions
from aggregator.strategies.fedadagrad import FedAdagrad, FedAdagradOptions
from aggregator.strategies.fedadam import FedAdam, FedAdamOptions
from aggregator.strategies.fedavg import FedAvg, FedAvgOptions
from aggregator.strategies.fedavgm import FedAvgM, FedAvgMOptions
from aggregator.strategies.fedbuff import FedBuff, FedBuffOptions
from aggregator.strategies.fednova import FedNova, FedNovaOptions
from aggregator.strategies.fedprox import FedProx, FedProxOptions, proximal_training
from aggregator.strategies.fedyogi import FedYogi, FedYogiOptions
from aggregator.strategies.median import Median, MedianOptions
from aggregator.strategies.multi_krum import MultiKrum, MultiKrumOptions
from aggregator.strategies.norm_clipping import NormClipping, NormClippingOptions
from aggregator.strategies.scaffold import Scaffold, ScaffoldOptions, plain_training
from aggregator.strategies.trimmed_mean import TrimmedMean, TrimmedMeanOptions
from uns_topics.envelope import describe
from uns_topics.model import FileValue
from uns_topics.plan import Strategy as StrategyChoice
from uns_topics.plan import Tolerances, Training


class StrategyError(ValueError):
    """A strategy or an option that doesn't exist, or can't be used; the text says what can."""


def _unchanged(options: Any, training: Training) -> Training:
    del options
    return training


@dataclass(frozen=True)
class Entry:
    """A strategy and its declared options.

    Attributes:
        training: what it makes of the plan's local training. Raises: ValueError.
        buffer: K of its asynchronous rounds; None where rounds have a barrier.
        control: its state `control` goes down with each version, and updates carry group `control`.
    """

    make: Callable[[Any], Strategy]
    options: type[FileValue]
    training: Callable[[Any, Training], Training] = _unchanged
    buffer: Callable[[Any], int] | None = None
    control: bool = False


def _buffer(options: FedBuffOptions) -> int:
    return options.buffer


STRATEGIES: Mapping[str, Entry] = {
    "centered-clipping": Entry(CenteredClipping, CenteredClippingOptions),
    "fedadagrad": Entry(FedAdagrad, FedAdagradOptions),
    "fedadam": Entry(FedAdam, FedAdamOptions),
    "fedavg": Entry(FedAvg, FedAvgOptions),
    "fedavgm": Entry(FedAvgM, FedAvgMOptions),
    "fedbuff": Entry(FedBuff, FedBuffOptions, buffer=_buffer),
    "fednova": Entry(FedNova, FedNovaOptions),
    "fedprox": Entry(FedProx, FedProxOptions, proximal_training),
    "fedyogi": Entry(FedYogi, FedYogiOptions),
    "median": Entry(Median, MedianOptions),
    "multi-krum": Entry(MultiKrum, MultiKrumOptions),
    "norm-clipping": Entry(NormClipping, NormClippingOptions),
    "scaffold": Entry(Scaffold, ScaffoldOptions, plain_training, control=True),
    "trimmed-mean": Entry(TrimmedMean, TrimmedMeanOptions),
}


def make_strategy(choice: StrategyChoice) -> Strategy:
    """The strategy of a configuration. Raises: StrategyError: unknown name or option, or a value out of range."""
    entry, options = _checked(choice)
    return entry.make(options)


def buffer_of(choice: StrategyChoice) -> int | None:
    """K of a strategy with asynchronous rounds; None where rounds have a barrier. Raises: StrategyError."""
    entry, options = _checked(choice)
    return None if entry.buffer is None else entry.buffer(options)


def strategy_problems(choice: StrategyChoice, training: Training, tolerances: Tolerances) -> list[str]:
    """What speaks against a plan with this strategy, one sentence each; empty where nothing does."""
    try:
        entry, options = _checked(choice)
        local_training(choice, training)
    except StrategyError as error:
        return [str(error)]
    quorum, least = tolerances.quorum, entry.make(options).least
    if quorum < least:
        return [f"{choice.name} needs at least {least} updates a round: raise tolerances.quorum, which is {quorum}"]
    return [] if entry.buffer is None else _asynchronous_problems(choice.name, entry.buffer(options), tolerances)


def _asynchronous_problems(name: str, buffer: int, tolerances: Tolerances) -> list[str]:
    found = []
    if not 1 <= tolerances.max_staleness <= MAX_STALENESS:
        found.append(
            f"{name} takes updates of earlier versions: set tolerances.max_staleness, which is "
            f"{tolerances.max_staleness}, to how many versions an update may lag behind, 1 to {MAX_STALENESS}"
        )
    if buffer < tolerances.quorum:
        found.append(
            f"{name} ends a round at strategy.options.buffer updates, {buffer}, which is below "
            f"tolerances.quorum {tolerances.quorum}: raise the former or lower the latter"
        )
    return found


def carries_control(choice: StrategyChoice) -> bool:
    """Whether versions and updates carry control variates. Raises: StrategyError."""
    return _checked(choice)[0].control


def local_training(choice: StrategyChoice, training: Training) -> Training:
    """The plan's local training with what the strategy asks of it. Raises: StrategyError."""
    entry, options = _checked(choice)
    try:
        return entry.training(options, training)
    except ValueError as error:
        raise StrategyError(f"strategy {choice.name}: {error}") from None


def _checked(choice: StrategyChoice) -> tuple[Entry, FileValue]:
    entry = STRATEGIES.get(choice.name)
    if entry is None:
        raise StrategyError(f"no strategy {choice.name!r}; known: {', '.join(sorted(STRATEGIES))}")
    known = entry.options.model_fields
    if unknown := sorted(set(choice.options) - set(known)):
        raise StrategyError(
            f"strategy {choice.name} has no option {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    try:
        return entry, entry.options.model_validate(choice.options)
    except ValidationError as error:
        raise StrategyError(f"strategy {choice.name}: {describe(error)}") from None


__all__ = [
    "STRATEGIES",
    "StrategyError",
    "buffer_of",
    "carries_control",
    "local_training",
    "make_strategy",
    "strategy_problems",
]
