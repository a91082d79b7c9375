"""What stands around every network: standardisation before it, calibration behind it, all inside the graph.

Raw engineering units go in, so that any ONNX runtime gives the same answer without code of ours beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uns_topics.contract import ComputedContext, Contract, RunToFailureLabel


class Standardise(nn.Module):
    """Clip to the contract's range, scale to [0, 1], standardise by context; missing values are filled and masked.

    Filled with 0, which is the mean, or with the contract's own number; that one is part of the graph, no parameter.
    """

    minimum: Tensor
    maximum: Tensor
    mean: Tensor
    deviation: Tensor
    fill: Tensor
    is_filled: Tensor

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        width, slots = len(contract.features), contract.slots
        self.register_buffer("minimum", torch.tensor([f.minimum for f in contract.features]))
        self.register_buffer("maximum", torch.tensor([f.maximum for f in contract.features]))
        filled = [f.filled for f in contract.features]
        self._has_fills = any(value is not None for value in filled)
        if self._has_fills:
            fill = [f.minimum if value is None else value for f, value in zip(contract.features, filled, strict=True)]
            self.register_buffer("fill", torch.tensor(fill), persistent=False)
            self.register_buffer("is_filled", torch.tensor([value is not None for value in filled]), persistent=False)
        self.register_buffer("mean", torch.full((slots, width), 0.5))
        self.register_buffer("deviation", torch.full((slots, width), 0.25))

    def forward(self, features: Tensor, slots: Tensor | None) -> tuple[Tensor, Tensor]:
        """Args: features: (..., F) raw; slots: (...) int64 or None. Returns: values and mask, (..., F) each."""
        present = torch.logical_not(torch.isnan(features))
        filled = torch.where(present, features, self.fill if self._has_fills else self.minimum)
        clipped = torch.minimum(torch.maximum(filled, self.minimum), self.maximum)
        scaled = (clipped - self.minimum) / (self.maximum - self.minimum)
        mean, deviation = self.mean[0], self.deviation[0]  # (F,)
        if slots is not None:  # one Gather each
            mean, deviation = nn.functional.embedding(slots, self.mean), nn.functional.embedding(slots, self.deviation)
        counts = torch.logical_or(present, self.is_filled) if self._has_fills else present
        values = torch.where(counts, (scaled - mean) / deviation, torch.zeros_like(scaled))
        return values, present.to(scaled.dtype)


class NearestCentre(nn.Module):
    """The operating point of each row: the nearest of the contract's centres, 0 where a centre feature is missing."""

    centres: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, contract: Contract, context: ComputedContext) -> None:
        super().__init__()
        names = contract.feature_names
        self._columns = [names.index(name) for name in context.features]
        chosen = [contract.features[column] for column in self._columns]
        low = torch.tensor([f.minimum for f in chosen])
        span = torch.tensor([f.maximum - f.minimum for f in chosen])
        self.register_buffer("low", low)
        self.register_buffer("span", span)
        self.register_buffer("centres", (torch.tensor(context.centres) - low) / span)

    def forward(self, features: Tensor) -> Tensor:
        """Args: features: (..., F) raw. Returns: slots, (...) int64."""
        raw = torch.stack([features[..., column] for column in self._columns], dim=-1)  # (..., k)
        point = (torch.minimum(torch.maximum(raw, self.low), self.low + self.span) - self.low) / self.span
        distance = torch.square(point.unsqueeze(-2) - self.centres).sum(dim=-1)  # (..., C)
        missing = torch.isnan(distance).any(dim=-1)
        nearest = torch.argmin(torch.where(torch.isnan(distance), torch.full_like(distance, 1e30), distance), dim=-1)
        return torch.where(missing, torch.zeros_like(nearest), nearest + 1)


class Calibration(nn.Module):
    """Scale and bias of the raw output, fitted at each plant; 1 and 0 until then. Never leaves the plant."""

    scale: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("bias", torch.zeros(1))

    def forward(self, raw: Tensor) -> Tensor:
        """Args, returns: (N,)."""
        return raw * self.scale + self.bias


class PlantModel(nn.Module):
    """Standardisation -> network -> calibration: one module, exported whole.

    `raw` gives what the loss is computed on, `forward` what the plant gets.
    """

    def __init__(self, contract: Contract, network: nn.Module, *, reconstructs: bool) -> None:
        super().__init__()
        self._kind = contract.label.kind
        self._reconstructs = reconstructs
        self._cap = contract.label.cap if isinstance(contract.label, RunToFailureLabel) else 1.0
        self._declared = contract.context is not None and contract.context.kind == "declared"
        self._slots = contract.slots
        self._windows = contract.window_length is not None
        self.standardise = Standardise(contract)
        self.context = (
            NearestCentre(contract, contract.context) if isinstance(contract.context, ComputedContext) else None
        )
        self.network = network
        self.calibration = Calibration()

    @property
    def takes_context(self) -> bool:
        """Whether the graph has the input `context`."""
        return self._declared

    def raw(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        """Logit; prediction in units of the cap; or mean squared reconstruction error. Returns: (N,)."""
        values, mask = self.standardise(features, self._slots_of(features, context))  # (N, F) or (N, L, F)
        if self._reconstructs:
            rebuilt = self.network(torch.cat([values, mask], dim=-1))  # as values
            error: Tensor = (torch.square(rebuilt - values) * mask).flatten(1).sum(dim=1)
            return error / torch.clamp(mask.flatten(1).sum(dim=1), min=1.0)
        return self.network(torch.cat([values, mask], dim=-1)).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        """What the plant gets: a score in [0, 1], or the regression in its own unit. Returns: (N,)."""
        calibrated = self.calibration(self.raw(features, context))
        if self._kind == "classes":
            return torch.sigmoid(calibrated)
        scaled: Tensor = calibrated * self._cap
        return scaled

    def _slots_of(self, features: Tensor, context: Tensor | None) -> Tensor | None:
        if self.context is not None:
            return self.context(features)  # type: ignore[no-any-return]
        if not self._declared or context is None:
            return None
        known = torch.logical_and(context >= 0, context < self._slots)
        slots = torch.where(known, context, torch.zeros_like(context))  # (N,)
        return slots.unsqueeze(-1).expand(-1, features.shape[1]) if self._windows else slots
