"""Optimizers, and schedules as functions of the step.

An update takes the schedule's factor as a tensor, and a gate: where the gate is False, neither
parameters nor momenta change. So a step whose loss is not finite leaves no trace, without the
host having to look at it. (`masked_fill` takes its number along; `torch.where` would copy it to a
GPU first, and wait for that.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


def staircase(step: int, *, decay_steps: int, factor: float) -> float:
    """Return factor ** floor(step / decay_steps)."""
    return float(factor ** (step // decay_steps))


def linear(step: int, *, steps: int) -> float:
    """Return 1 at step 0, falling in a straight line that reaches 0 at `steps`."""
    return max(0.0, 1 - step / steps)


def sooner(factor: Tensor, until: float) -> Tensor:
    """Return the factor `linear` has where the training ends at the share `until` of its steps.

    `factor`: float32 [], that of the whole training.
    """
    return factor if until == 1.0 else (1 - (1 - factor) / until).clamp_min(0.0)


class Optimizer(Protocol):
    """Updates some of the parameters of a model; `tensors` is all that it remembers."""

    tensors: dict[str, Tensor]

    def step(self, factor: Tensor, gate: Tensor) -> None:
        """Update from the gradients, at `factor` (float32 []) times the learning rate.

        Nothing changes where `gate` (bool []) is False, nor do parameters without a gradient.
        """


class SGD:
    """Stochastic gradient descent, with Nesterov's momentum where `momentum` is not 0.

    m ← momentum · m + g; p ← p - rate · (g + momentum · m). (Sutskever, Martens, Dahl, Hinton: "On
    the importance of initialization and momentum in deep learning", 2013, in the form of
    torch.optim.SGD.)

    `weight_decay` is the share of each parameter that a step takes away at the initial rate,
    through the gradient: g + weight_decay / learning_rate · p. `until`: the share of the training
    that parameters learn for, by name, where it is not all of it; see `sooner`.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        until: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._penalty = weight_decay / learning_rate if weight_decay else 0.0
        self._until = until or {}
        self.tensors = _zeros(parameters) if momentum else {}

    @torch.no_grad()
    def step(self, factor: Tensor, gate: Tensor) -> None:
        """See `Optimizer.step`."""
        rates = _rates(factor, gate, self._learning_rate, self._until)
        kept = _kept(self._momentum, gate)
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            rate = rates[self._until.get(name, 1.0)]
            update = _gradient(parameter, gate, self._penalty)
            if self._momentum:
                update = _with_momentum(self.tensors[name], update, self._momentum, kept)
            parameter.addcmul_(update, rate)


class Muon:
    """Momentum, orthogonalized: for the filters of convolutions, [out, in, height, width].

    The Nesterov momentum of each filter bank, as a matrix [out, in · height · width], is replaced
    by the nearest matrix with orthonormal rows or columns, which a few Newton-Schulz iterations
    approximate. (Jordan et al.: "Muon: an optimizer for hidden layers in neural networks", 2024.)
    Before an update a filter bank is scaled to the norm √out, so that the rate alone says how
    far it turns; batch normalization makes the network blind to this scale. `until`: as for SGD.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        momentum: float,
        until: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._until = until or {}
        self.tensors = _zeros(parameters)

    @torch.no_grad()
    def step(self, factor: Tensor, gate: Tensor) -> None:
        """See `Optimizer.step`."""
        rates = _rates(factor, gate, self._learning_rate, self._until)
        kept = _kept(self._momentum, gate)
        learning = {n: p for n, p in self._parameters.items() if p.grad is not None}
        updates = []
        for name, parameter in learning.items():
            gradient = _gradient(parameter, gate)
            update = _with_momentum(self.tensors[name], gradient, self._momentum, kept)
            # The order of channels_last memory, so no copy; the columns' order does not matter.
            updates.append(update.permute(0, 2, 3, 1))
        orthogonal = orthogonalize([update.reshape(len(update), -1) for update in updates])
        for (name, parameter), update, matrix in zip(
            learning.items(), updates, orthogonal, strict=True
        ):
            rate = rates[self._until.get(name, 1.0)]
            scale = (len(parameter) ** 0.5 / parameter.norm()).masked_fill(~gate, 1.0)
            filters = matrix.view(update.shape).permute(0, 3, 1, 2)
            parameter.mul_(scale).addcmul_(filters, rate)


def orthogonalize(matrices: Sequence[Tensor], iterations: int = 3) -> list[Tensor]:
    """Move the singular values of matrices [m, n] towards 1, keeping their singular vectors.

    Each Newton-Schulz iteration X ← P X with P = a·I + b·G + c·G², G = X·Xᵀ, maps a singular value
    s to a·s + b·s³ + c·s⁵, with coefficients that raise small values fast, at the price of ending
    between about 0.7 and 1.2. All of them work on G, which is small, and only their product on X:
    matrices whose shorter sides are equal go through them together.
    """
    wide = [x.t() if x.shape[0] > x.shape[1] else x for x in matrices]
    found: list[Tensor] = [*wide]
    for side in {len(x) for x in wide}:
        equal = [i for i, x in enumerate(wide) if len(x) == side]
        gram = torch.stack([wide[i] @ wide[i].t() for i in equal])
        norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-7
        products = _product_of_polynomials(gram / norm.square(), iterations) / norm
        for i, product in zip(equal, products, strict=True):
            found[i] = product @ wide[i]
    return [y.t() if x.shape[0] > x.shape[1] else y for x, y in zip(matrices, found, strict=True)]


def _product_of_polynomials(gram: Tensor, iterations: int) -> Tensor:
    """Return the product of all P of `orthogonalize` for G [k, m, m], of the first iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    product: Tensor | None = None
    for left in reversed(range(iterations)):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial if product is None else polynomial @ product
        if left:
            gram = polynomial @ gram @ polynomial
    assert product is not None
    return product


def _rates(
    factor: Tensor, gate: Tensor, learning_rate: float, until: Mapping[str, float]
) -> dict[float, Tensor]:
    """Return the negative rate for each share of the training that a parameter learns for."""
    shares = {1.0, *until.values()}
    return {share: sooner(factor, share) * gate * -learning_rate for share in shares}


def _zeros(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}


def _gradient(parameter: nn.Parameter, gate: Tensor, penalty: float = 0.0) -> Tensor:
    """Return the gradient, or zeros where the gate is shut: a NaN times 0 would be a NaN."""
    gradient = parameter.grad
    assert gradient is not None
    if penalty:
        gradient = torch.add(gradient, parameter, alpha=penalty)
    if gate.device.type == "cpu" and gate:  # the host need not wait to see that all is well
        return gradient
    return gradient.masked_fill(~gate, 0.0)


def _kept(decay: float, gate: Tensor) -> Tensor:
    """Return the share of a momentum that an update keeps, float32 []; a shut gate keeps all."""
    return torch.full((), decay, device=gate.device).masked_fill_(~gate, 1.0)


def _with_momentum(momentum: Tensor, gradient: Tensor, decay: float, kept: Tensor) -> Tensor:
    """Update a momentum and return Nesterov's step; `gradient` is 0 where the gate is shut."""
    momentum.mul_(kept).add_(gradient)
    return torch.add(gradient, momentum, alpha=decay)
