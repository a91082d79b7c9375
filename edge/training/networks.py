"""The networks that a contract can choose from; all use LayerNorm, whose statistics never have to be shared.

Inputs are standardised values and mask side by side: (N, 2F) or (N, L, 2F).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import cast

import torch
from torch import Tensor, nn

from edge.training.modules import PlantModel
from uns_topics.contract import Contract, NoLabel
from uns_topics.template import Network


class NetworkError(ValueError):
    """No such network, or one that doesn't fit the contract."""


class Mlp(nn.Module):
    """Linear, LayerNorm, ReLU per width; windows are flattened."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], dropout: float, outputs: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) to (N, outputs)."""
        return self.layers(x)  # type: ignore[no-any-return]


class Cnn1d(nn.Module):
    """Convolutions over time, then the mean and the last step."""

    def __init__(self, features: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for width in hidden:
            self.convolutions.append(nn.Conv1d(features, width, kernel_size=5, padding=2))
            self.norms.append(nn.LayerNorm(width))
            features = width
        self.dropout = nn.Dropout(dropout)
        self.head = Mlp(2 * features, (features,), dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, 1)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.functional.relu(norm(convolution(x.transpose(1, 2)).transpose(1, 2)))  # (N, L, width)
        summary = torch.cat([x.mean(dim=1), x[:, -1]], dim=-1)  # (N, 2 * width)
        return self.head(self.dropout(summary))  # type: ignore[no-any-return]


class Gru(nn.Module):
    """A recurrent network; the last step's state is read out."""

    def __init__(self, features: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(features, hidden[0])
        self.norm = nn.LayerNorm(hidden[0])
        self.recurrent = nn.GRU(hidden[0], hidden[-1], batch_first=True)
        self.head = Mlp(hidden[-1], (hidden[-1],), dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, 1)."""
        states, _ = self.recurrent(self.norm(self.enter(x)))  # (N, L, H)
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """Narrows to the last width and back; what it can't rebuild is unusual."""

    def __init__(self, features: int, steps: int | None, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self._steps = steps
        total = features * (steps or 1)
        self.encoder = Mlp(2 * total, hidden[:-1], dropout, hidden[-1])
        self.decoder = Mlp(hidden[-1], tuple(reversed(hidden[:-1])), dropout, total)

    def forward(self, x: Tensor) -> Tensor:
        """Values and mask (N, [L,] 2F) to rebuilt values (N, [L,] F)."""
        rebuilt: Tensor = self.decoder(self.encoder(x))
        return rebuilt if self._steps is None else rebuilt.reshape(x.shape[0], self._steps, -1)


def build_model(contract: Contract, network: Network, factories: Collection[str] = ()) -> PlantModel:
    """The whole module for a contract.

    Args: factories: own modules `package.module:callable` that may be imported here; each is called with the contract.
    Raises: NetworkError: unknown kind, a factory that is not allowed here, or a kind that doesn't fit the contract.
    """
    width, steps = 2 * len(contract.features), contract.window_length
    reconstructs = network.kind == "autoencoder"
    if reconstructs != isinstance(contract.label, NoLabel):
        raise NetworkError("kind autoencoder goes with label kind none, and only with it")
    if network.kind in ("cnn1d", "gru") and steps is None:
        raise NetworkError(f"kind {network.kind} needs window samples; the contract has events")
    if not network.hidden and network.kind in ("cnn1d", "gru", "autoencoder"):
        raise NetworkError(f"kind {network.kind} needs at least one hidden width")
    module: nn.Module
    if network.kind == "mlp":
        module = Mlp(width * (steps or 1), network.hidden, network.dropout)
    elif network.kind == "cnn1d":
        module = Cnn1d(width, network.hidden, network.dropout)
    elif network.kind == "gru":
        module = Gru(width, network.hidden, network.dropout)
    elif reconstructs:
        module = Autoencoder(width // 2, steps, network.hidden, network.dropout)
    else:
        module = _from_factory(network.kind, contract, factories)
    return PlantModel(contract, module, reconstructs=reconstructs)


def _from_factory(kind: str, contract: Contract, factories: Collection[str]) -> nn.Module:
    if ":" not in kind:
        raise NetworkError(f"no network kind {kind!r}; known: mlp, cnn1d, gru, autoencoder, or package.module:callable")
    if kind not in factories:
        raise NetworkError(f"{kind} is not among the modules that this configuration allows (trainer.factories)")
    package, _, name = kind.partition(":")
    factory = cast("Callable[[Contract], nn.Module]", getattr(importlib.import_module(package), name))
    return factory(contract)
