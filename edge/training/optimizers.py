"""SGD and Adam in a few lines. torch's own import torch's compiler: 1.5 s and 50 MB per trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """One step from the gradients that lie at the parameters; state stays with it from call to call."""

    def step(self) -> None:
        """Change the parameters in place."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


class Sgd:
    """Heavy-ball momentum (Polyak 1964): v = m * v + g; w = w - lr * v."""

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, momentum: float = 0.9) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._momentum = learning_rate, momentum
        self._velocity = [torch.zeros_like(p) for p in self._parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters in place."""
        for parameter, velocity in zip(self._parameters, self._velocity, strict=True):
            if parameter.grad is not None:
                velocity.mul_(self._momentum).add_(parameter.grad)
                parameter.sub_(velocity, alpha=self._learning_rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None


class Adam:
    """Algorithm 1 of Kingma and Ba 2015 (arXiv:1412.6980)."""

    def __init__(
        self, parameters: Iterable[Tensor], learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._betas = learning_rate, betas
        self._mean = [torch.zeros_like(p) for p in self._parameters]
        self._square = [torch.zeros_like(p) for p in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters in place."""
        self._steps += 1
        first, second = self._betas
        rate = self._learning_rate / (1 - first**self._steps)
        scale = 1 / math.sqrt(1 - second**self._steps)
        for parameter, mean, square in zip(self._parameters, self._mean, self._square, strict=True):
            if parameter.grad is not None:
                mean.lerp_(parameter.grad, 1 - first)
                square.mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
                parameter.addcdiv_(mean, square.sqrt().mul_(scale).add_(1e-8), value=-rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None
