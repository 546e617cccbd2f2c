"""Adam, and AdamW."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.learning.optimizers import (
    Optimizer,
    add_quotients,
    gather,
    gather_squares,
    gradients,
    kept,
    portions,
    rates,
    with_gradient,
    zeros,
)


class Adam(Optimizer):
    """Steps of about the learning rate, whatever the size of the gradients.

    m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - rate · m̂ / (√v̂ + ε), where m̂ = m / (1
    - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) compensate for the start at 0. t counts the updates of this
    optimizer, without those that a closed gate prevented. (Kingma, Ba: "Adam: a method for
    stochastic optimization", 2015, in the form of torch.optim.Adam.)

    `weight_decay` is added to the gradient, g + weight_decay · p, so it is divided by √v̂, too.
    `decoupled`: instead, a step takes away this share of each parameter at the initial rate, as
    with SGD. (Loshchilov, Hutter: "Decoupled weight decay regularization", 2019, which is
    torch.optim.AdamW with weight_decay / learning_rate.) `until`: as for SGD.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        until: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._betas, self._epsilon = (beta1, beta2), epsilon
        self._penalty = 0.0 if decoupled else weight_decay
        self._decay = weight_decay / learning_rate if decoupled else 0.0
        self._until = until or {}
        self.tensors = {"momentum": zeros(parameters), "squares": zeros(parameters)}
        self.updates: Tensor = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    @override
    def step(self, factor: Tensor, gate: Tensor) -> None:
        learning = with_gradient(self._parameters)
        by_share = rates(factor, gate, self._learning_rate, self._until)
        self.updates.add_(gate)
        beta1, beta2 = self._betas
        keep1, keep2 = kept(beta1, gate), kept(beta2, gate)
        root = _gathered(self.updates, beta2).sqrt()  # √(1 - β₂ᵗ)
        epsilon, longer = self._epsilon * root, root / _gathered(self.updates, beta1)
        for share, names in portions(learning, self._until):
            parameters: list[Tensor] = [learning[name] for name in names]
            momenta, squares = ([kind[name] for name in names] for kind in self.tensors.values())
            found = gradients(parameters, gate, self._penalty)
            gather(momenta, found, keep1, 1 - beta1)
            gather_squares(squares, found, keep2, 1 - beta2)
            if self._decay:
                torch._foreach_mul_(parameters, 1 + by_share[share] * self._decay)
            divisors = [*torch._foreach_sqrt(squares)]
            torch.ops.aten._foreach_add_.Tensor(divisors, epsilon)  # else its value is asked for
            add_quotients(parameters, momenta, divisors, by_share[share] * longer)


def _gathered(updates: Tensor, beta: float) -> Tensor:
    """Return 1 - βᵗ, float32 [], without cancellation; that of the first update before it."""
    if beta == 0:
        return torch.ones((), device=updates.device)
    return -torch.expm1(updates.clamp_min(1) * math.log(beta))
