"""What a scenario has to say: the contract, the network, the plan's settings, and each plant's map and messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edge.outputs import common_home
from edge.signal_map import SignalMap
from headgate.plants.emission import Emission


@dataclass(frozen=True)
class PlantScript:
    """One simulated or recorded plant.

    Attributes:
        participant: id of its edge.
        instances: paths of its instances, for the display and for what has to carry values in the end.
        signal_map: content of its signal map file.
        history: yields what was published until the demo starts.
        live: yields what goes on afterwards, without end; None where a recording simply ends.
        remark: what to know about it when reading its figures.
    """

    participant: str
    instances: tuple[str, ...]
    signal_map: dict[str, Any]
    history: Callable[[], Iterator[Emission]] = field(repr=False)
    live: Callable[[], Iterator[Emission]] | None = field(default=None, repr=False)
    remark: str = ""

    @property
    def home(self) -> str:
        """Where the edge's `alive` leaf stands."""
        return common_home(SignalMap.model_validate(self.signal_map).instance_prefixes())


@dataclass(frozen=True)
class Scenario:
    """One use case with its plants.

    Attributes:
        contract: content of the contract file.
        network: `--kind` and `--hidden` of the model.
        training, tolerances: what the plan says beside its defaults.
        rounds: how many rounds unless asked otherwise.
    """

    name: str
    title: str
    contract: dict[str, Any]
    network: tuple[str, str]
    training: dict[str, Any]
    tolerances: dict[str, Any]
    rounds: int
    plants: tuple[PlantScript, ...]
    live_speed: float = 10.0
    """Event seconds per wall-clock second once the history has been played."""
