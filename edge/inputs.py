"""What a model's inputs alone say against its answer. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from uns_topics.contract import ComputedContext, Contract, DeclaredContext

ROUNDING = 1e-5
"""Of a feature's range: a limit that went through float32 and a change of unit is still a limit."""


class InputCheck:
    """Which samples lie where nobody has trained: out of range, of an unknown context, or empty."""

    def __init__(self, contract: Contract) -> None:
        low = np.array([f.minimum for f in contract.features], np.float64)
        high = np.array([f.maximum for f in contract.features], np.float64)
        slack = ROUNDING * (high - low)
        self._low, self._high = low - slack, high + slack
        context = contract.context
        self._declared = context if isinstance(context, DeclaredContext) else None
        self._centre: list[int] = []
        if isinstance(context, ComputedContext):
            self._centre = [contract.feature_names.index(name) for name in context.features]

    def uncertain(self, features: npt.NDArray[np.float32], contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Args: features: shape (n, F) or (n, L, F), NaN = missing; contexts: shape (n,). Returns: shape (n,)."""
        steps = features[:, None, :] if features.ndim == 2 else features  # (n, L, F)
        last = steps[:, -1]
        found = np.asarray(((steps < self._low) | (steps > self._high)).any(axis=(1, 2)))
        found |= np.isnan(last).all(axis=1)
        if self._declared is not None:
            found |= (contexts <= 0) | (contexts >= self._declared.slots)
        if self._centre:
            found |= np.isnan(last[:, self._centre]).any(axis=1)
        return found

    def name(self, context: int) -> str | None:
        """The declared context's value; None where the contract has none, or it is an unknown one."""
        values = self._declared.values if self._declared is not None else ()
        return values[context - 1] if 1 <= context <= len(values) else None
