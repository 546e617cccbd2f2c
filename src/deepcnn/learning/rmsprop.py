"""RMSProp: gradients divided by the root of the mean of their squares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.learning.optimizers import (
    Optimizer,
    add_products,
    add_quotients,
    gather_squares,
    gradients,
    kept,
    portions,
    rates,
    with_gradient,
    zeros,
)


class RMSProp(Optimizer):
    """Gradients divided by the root of the mean of their squares.

    v ← β₂ v + (1 - β₂) g²; p ← p - rate · g / (√v + ε), or with momentum b ← momentum · b + g / (√v
    + ε) and p ← p - rate · b. v starts at 0 and nothing compensates for this, so the first steps
    are 1 / √(1 - β₂) times as long. (Tieleman, Hinton: "Lecture 6.5: rmsprop", 2012, in the form of
    torch.optim.RMSprop.) `weight_decay` is added to the gradient: g + weight_decay · p. `until`: as
    for SGD.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        beta2: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        until: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._beta2, self._epsilon = beta2, epsilon
        self._momentum = momentum
        self._penalty = weight_decay
        self._until = until or {}
        self.tensors = {"squares": zeros(parameters)}
        if momentum:
            self.tensors["momentum"] = zeros(parameters)
        self.updates = None

    @torch.no_grad()
    @override
    def step(self, factor: Tensor, gate: Tensor) -> None:
        learning = with_gradient(self._parameters)
        by_share = rates(factor, gate, self._learning_rate, self._until)
        keep, keep_momentum = kept(self._beta2, gate), kept(self._momentum, gate)
        for share, names in portions(learning, self._until):
            parameters: list[Tensor] = [learning[name] for name in names]
            squares = [self.tensors["squares"][name] for name in names]
            found = gradients(parameters, gate, self._penalty)
            gather_squares(squares, found, keep, 1 - self._beta2)
            divisors = [*torch._foreach_sqrt(squares)]
            torch._foreach_add_(divisors, self._epsilon)
            if self._momentum:
                momenta = [self.tensors["momentum"][name] for name in names]
                torch._foreach_mul_(momenta, keep_momentum)
                torch._foreach_addcdiv_(momenta, found, divisors)
                add_products(parameters, momenta, by_share[share])
            else:
                add_quotients(parameters, found, divisors, by_share[share])
