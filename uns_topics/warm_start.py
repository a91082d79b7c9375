"""The first version of a generation from the last version of the one before: what still means the same is taken over.

Pure. A tensor is taken over whole where name and shape are the same and nothing speaks against it. Where a layer reads
features, its columns belong to named features: those of a feature that kept its unit and range move to where it stands
now. A feature that is new, or has another unit or range, begins with columns of zero, so that the model starts as what
it was and learns the new input from there (Chen, Goodfellow and Shlens 2016, arXiv:1511.05641, grow a network without
changing its function in this way). What a feature that is gone gave on average, its value at the mean and its mask at
1, goes into the layer's bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uns_topics.contract import ClassLabel, Contract, RunToFailureLabel, WindowSample
from uns_topics.meaning import is_same_input
from uns_topics.standardisation import DEVIATION_TENSOR, MEAN_TENSOR
from uns_topics.template import Network, TemplateInfo
from uns_topics.tensors import Role, Tensor, TensorTable, Vector

_BLOCK = 4
"""Modules of a hidden layer in our own networks: linear, norm, activation, dropout; before the first one `Flatten`."""
_Key = tuple[int, float, str, str, str]
"""What a column is: steps before the window's end, the period of a step, the feature, what it means, value or mask."""


@dataclass(frozen=True)
class WarmStart:
    """A first vector, and where it comes from.

    Attributes:
        vector: shape (the new table's size,).
        whole: tensors that were taken over as they are. part: those of which some columns or rows were.
        fresh: those that begin as in the new model file. What the contract itself freezes stands in none of the three.
        standardised: features whose standardisation was taken over.
    """

    vector: Vector
    whole: tuple[str, ...]
    part: tuple[str, ...]
    fresh: tuple[str, ...]
    standardised: tuple[str, ...]


@dataclass(frozen=True)
class _Layers:
    """Where a network of ours meets features and the output. Attributes: flat: windows are one long row of columns."""

    enters: str
    leaves: str
    flat: bool
    rebuilds: bool = False


def take_over(old: TemplateInfo, old_vector: Vector, new: TemplateInfo, new_vector: Vector) -> WarmStart:
    """Start a new generation's model from the old one's version.

    Args: old_vector: shape (old.table.size,); new_vector: as the new model file has it, shape (new.table.size,).
    """
    vector = new_vector.copy()
    standardised = _take_standardisation(old, old_vector, new, vector)
    mover = _Mover(old, old_vector, new, vector)
    taken: dict[str, str] = {t.name: mover.take(t) for t in new.table.tensors if t.role is not Role.FROZEN}
    mover.balance(taken)
    whole, part, fresh = (tuple(n for n, how in taken.items() if how == which) for which in ("whole", "part", "fresh"))
    return WarmStart(vector, whole, part, fresh, standardised)


def kept_features(old: Contract, new: Contract) -> tuple[str, ...]:
    """Features of the new contract that stayed with the same unit and range, in its order."""
    before = {feature.name: feature for feature in old.features}
    return tuple(f.name for f in new.features if f.name in before and is_same_input(before[f.name], f))


def _take_standardisation(old: TemplateInfo, old_vector: Vector, new: TemplateInfo, vector: Vector) -> tuple[str, ...]:
    """Mean and deviation of the features that stayed, unless operating points are told apart in another way."""
    if old.contract.context != new.contract.context:
        return ()
    kept = kept_features(old.contract, new.contract)
    here = [new.contract.feature_names.index(name) for name in kept]
    there = [old.contract.feature_names.index(name) for name in kept]
    for name in (MEAN_TENSOR, DEVIATION_TENSOR):
        new.table.view(vector, name)[:, here] = old.table.view(old_vector, name)[:, there]  # (slots, F)
    return kept


class _Mover:
    def __init__(self, old: TemplateInfo, old_vector: Vector, new: TemplateInfo, vector: Vector) -> None:
        self._old, self._new = old, new
        self._old_vector, self._vector = old_vector, vector
        self._known = {tensor.name: tensor for tensor in old.table.tensors}
        self._layers = _layers_of(new.network, new.table) if old.network.kind == new.network.kind else None
        self._kept = frozenset(kept_features(old.contract, new.contract))
        is_same_list = old.contract.feature_names == kept_features(old.contract, new.contract)
        is_same_list = is_same_list and len(self._kept) == len(new.contract.features)
        self._is_same_input = is_same_list and _steps(old.contract) == _steps(new.contract)
        self._is_same_output = _output_of(old.contract) == _output_of(new.contract)
        self._gone: Vector | None = None

    def take(self, tensor: Tensor) -> str:
        """Take over what can be. Returns: whole, part or fresh."""
        known, layers = self._known.get(tensor.name), self._layers
        if known is None or known.role is Role.FROZEN or self._old.network.kind != self._new.network.kind:
            return "fresh"
        layer = tensor.name.rpartition(".")[0]
        if layers is None:  # a site's own module: nobody knows which axis is what
            is_safe = self._is_same_input and self._is_same_output
            return self._copy(known, tensor) if is_safe or not _may_be_features(tensor, self._new) else "fresh"
        if layer == layers.leaves and not (self._is_same_output or layers.rebuilds):
            return "fresh"
        if self._is_same_input:
            return self._copy(known, tensor)
        if tensor.name == f"{layers.enters}.weight":
            return self._columns(known, tensor, layers.flat)
        if layers.rebuilds and layer == layers.leaves:
            return self._rows(known, tensor)
        return self._copy(known, tensor)

    def balance(self, taken: dict[str, str]) -> None:
        """Into the bias goes what the masks of features that are gone gave: they were 1 wherever there was a value."""
        if self._gone is not None and self._layers is not None:
            bias = f"{self._layers.enters}.bias"
            if taken.get(bias) == "whole":
                self._new.table.view(self._vector, bias)[...] += self._gone
                taken[bias] = "part"

    def _copy(self, known: Tensor, tensor: Tensor) -> str:
        if known.shape != tensor.shape:
            return "fresh"
        self._target(tensor)[...] = self._source(known)
        return "whole"

    def _columns(self, known: Tensor, tensor: Tensor, flat: bool) -> str:
        """Of the first layer's weight: (H, columns), or (H, columns, kernel) of a convolution."""
        before, now = (self._keys(contract, flat) for contract in (self._old.contract, self._new.contract))
        source, target = self._source(known), self._target(tensor)
        if source.shape[0] != target.shape[0] or source.shape[2:] != target.shape[2:]:
            return "fresh"
        here, there = _matches(before, now)
        if not here or (source.shape[1], target.shape[1]) != (len(before), len(now)):
            return "fresh"
        target[...] = 0.0
        target[:, here] = source[:, there]
        gone = [column for column, key in enumerate(before) if key[-1] == "mask" and column not in set(there)]
        if gone:
            self._gone = source[:, gone].reshape(len(source), -1).sum(axis=1, dtype=np.float32)
        return "part"

    def _rows(self, known: Tensor, tensor: Tensor) -> str:
        """Of what an autoencoder rebuilds, weight (rows, H) and bias (rows,): those of new features stay as drawn."""
        before, now = (
            [key for key in self._keys(contract, True) if key[-1] == "value"]
            for contract in (self._old.contract, self._new.contract)
        )
        source, target = self._source(known), self._target(tensor)
        here, there = _matches(before, now)
        if not here or source.shape[1:] != target.shape[1:] or (len(source), len(target)) != (len(before), len(now)):
            return "fresh"
        target[here] = source[there]
        return "part"

    def _keys(self, contract: Contract, flat: bool) -> list[_Key]:
        """One per column, in the order of the network's input: values and masks side by side, step by step."""
        length, period_s = _steps(contract) if flat else (1, 0.0)
        steps = range(length - 1, -1, -1)
        own = contract.meaning_sha256
        names = [(name, "" if name in self._kept else own) for name in contract.feature_names]
        return [(step, period_s, *name, part) for step in steps for part in ("value", "mask") for name in names]

    def _source(self, tensor: Tensor) -> Vector:
        return self._old.table.view(self._old_vector, tensor.name)

    def _target(self, tensor: Tensor) -> Vector:
        return self._new.table.view(self._vector, tensor.name)


def _matches(before: Sequence[_Key], now: Sequence[_Key]) -> tuple[list[int], list[int]]:
    """Places of what stayed: here, and where it was."""
    places = {key: place for place, key in enumerate(before)}
    pairs = [(place, places[key]) for place, key in enumerate(now) if key in places]
    return [here for here, _ in pairs], [there for _, there in pairs]


def _steps(contract: Contract) -> tuple[int, float]:
    """Steps of a sample and their period."""
    sample = contract.sample
    return (sample.length, sample.period_s) if isinstance(sample, WindowSample) else (1, 0.0)


def _output_of(contract: Contract) -> tuple[object, ...]:
    """What the output says; when a label matures changes nothing of it."""
    match contract.label:
        case ClassLabel(classes=classes, positive=positive):
            return ("classes", positive, *(name for name in classes if name != positive))
        case RunToFailureLabel(name=name, unit=unit, cap=cap):
            return ("run_to_failure", name, unit, cap)
    return ("none",)


def _layers_of(network: Network, table: TensorTable) -> _Layers | None:
    """Of the networks in `edge.training.networks`; None for another one, or where the tensors have other names."""
    widths = len(network.hidden)
    found = {
        "mlp": _Layers("network.layers.1", f"network.layers.{1 + _BLOCK * widths}", flat=True),
        "cnn1d": _Layers("network.convolutions.0", f"network.head.layers.{1 + _BLOCK}", flat=False),
        "gru": _Layers("network.enter", f"network.head.layers.{1 + _BLOCK}", flat=False),
        "autoencoder": _Layers(
            "network.encoder.layers.1",
            f"network.decoder.layers.{1 + _BLOCK * (widths - 1)}",
            flat=True,
            rebuilds=True,
        ),
    }.get(network.kind)
    names = {tensor.name for tensor in table.tensors}
    return found if found is not None and {f"{found.enters}.weight", f"{found.leaves}.weight"} <= names else None


def _may_be_features(tensor: Tensor, info: TemplateInfo) -> bool:
    """Whether an axis is as long as what a layer that reads features (or gives the output) could have."""
    width, (length, _) = len(info.contract.features), _steps(info.contract)
    return bool({1, width, 2 * width, width * length, 2 * width * length} & set(tensor.shape))
