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
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.devices import kernels_are_dear


def staircase(step: int, *, decay_steps: int, factor: float) -> float:
    """Return factor ** floor(step / decay_steps)."""
    return float(factor ** (step // decay_steps))


def linear(step: int, *, steps: int) -> float:
    """Return 1 at step 0, falling in a straight line that reaches 0 at `steps`."""
    return max(0.0, 1 - step / steps)


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
    that parameters learn for, by name, where it is not all of it; their rate is 0 by then.
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
        learning = _learning(self._parameters)
        updates = _gradients([*learning.values()], gate, self._penalty)
        if self._momentum:
            momenta = [self.tensors[name] for name in learning]
            updates = _with_momentum(momenta, updates, self._momentum, gate)
        rates = _rates(factor, gate, self._learning_rate, self._until)
        _add(learning, updates, rates, self._until)


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
        learning = _learning(self._parameters)
        parameters: list[Tensor] = list(learning.values())
        if not parameters:
            return
        momenta = [self.tensors[name] for name in learning]
        updates = _with_momentum(momenta, _gradients(parameters, gate), self._momentum, gate)
        # The order of channels_last memory, so no copy; the columns' order does not matter.
        turned = [update.permute(0, 2, 3, 1) for update in updates]
        orthogonal = orthogonalize([update.reshape(len(update), -1) for update in turned])
        filters = [
            matrix.view(update.shape).permute(0, 3, 1, 2)
            for matrix, update in zip(orthogonal, turned, strict=True)
        ]
        scales = torch._foreach_reciprocal(torch._foreach_norm(parameters))
        torch._foreach_mul_(scales, [len(parameter) ** 0.5 for parameter in parameters])
        torch._foreach_mul_(parameters, [*torch.stack(scales).masked_fill(~gate, 1.0)])
        rates = _rates(factor, gate, self._learning_rate, self._until)
        _add(learning, filters, rates, self._until)


def orthogonalize(matrices: Sequence[Tensor], iterations: int = 3) -> list[Tensor]:
    """Move the singular values of matrices [m, n] towards 1, keeping their singular vectors.

    Each Newton-Schulz iteration X ← P X with P = a·I + b·G + c·G², G = X·Xᵀ, maps a singular value
    s to a·s + b·s³ + c·s⁵, with coefficients that raise small values fast, at the price of ending
    between about 0.7 and 1.2. All of them work on G, which is small, and only their product on X:
    matrices whose shorter sides are equal go through them together. So do smaller ones on a GPU,
    where a product takes its time however small it is: zeros around G stay out of it.
    """
    wide = [x.t() if x.shape[0] > x.shape[1] else x for x in matrices]
    found: list[Tensor] = [*wide]
    sides = [len(x) for x in wide]
    if kernels_are_dear(matrices[0].device):
        sides = [max(sides) if 4 * side >= max(sides) else side for side in sides]
    for side in set(sides):
        equal = [i for i, found_side in enumerate(sides) if found_side == side]
        gram = torch.stack([_enlarged(wide[i] @ wide[i].t(), side) for i in equal])
        norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + 1e-7
        products = _product_of_polynomials(gram / norm.square(), iterations) / norm
        for i, product in zip(equal, products, strict=True):
            found[i] = product[: len(wide[i]), : len(wide[i])] @ wide[i]
    return [y.t() if x.shape[0] > x.shape[1] else y for x, y in zip(matrices, found, strict=True)]


def _enlarged(matrix: Tensor, side: int) -> Tensor:
    """Return a square matrix with zeros appended, if it is smaller than `side`."""
    more = side - len(matrix)
    return F.pad(matrix, (0, more, 0, more)) if more else matrix


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
    """Return the negative rate for each share of the training that a parameter learns for.

    `factor` is that of the whole training. Where it falls in a straight line, and the training
    ended at the share s of its steps, it would be 1 - (1 - factor) / s, down to 0.
    """
    rates = {1.0: factor * gate * -learning_rate}
    for share in {*until.values()} - {1.0}:
        sooner = (1 - (1 - factor) / share).clamp_min(0.0)
        rates[share] = sooner * gate * -learning_rate
    return rates


def _zeros(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}


def _learning(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the parameters that have a gradient."""
    return {name: p for name, p in parameters.items() if p.grad is not None}


def _gradients(parameters: list[Tensor], gate: Tensor, penalty: float = 0.0) -> list[Tensor]:
    """Return the gradients, or zeros where the gate is shut: a NaN times 0 would be a NaN."""
    found = [p.grad for p in parameters if p.grad is not None]
    if penalty and found:
        found = list(torch._foreach_add(found, parameters, alpha=penalty))
    if gate.device.type == "cpu" and gate:  # the host need not wait to see that all is well
        return found
    # As integers their bits times 0 are 0, whatever they are, and all take one kernel on a GPU.
    bits = [gradient.view(torch.int32) for gradient in found]
    kept = torch._foreach_mul(bits, gate.to(torch.int32)) if bits else []
    return [values.view(torch.float32) for values in kept]


def _with_momentum(
    momenta: list[Tensor], gradients: list[Tensor], decay: float, gate: Tensor
) -> list[Tensor]:
    """Update momenta and return Nesterov's steps.

    Where the gate is shut the gradients are 0, and momenta stay what they are.
    """
    if not momenta:
        return []
    kept = torch.full((), decay, device=gate.device).masked_fill_(~gate, 1.0)
    torch._foreach_mul_(momenta, kept)
    torch._foreach_add_(momenta, gradients)
    return list(torch._foreach_add(gradients, momenta, alpha=decay))


def _add(
    learning: Mapping[str, nn.Parameter],
    updates: Sequence[Tensor],
    rates: Mapping[float, Tensor],
    until: Mapping[str, float],
) -> None:
    """Add to each parameter its update times the rate for the share that it learns for."""
    of_share: dict[float, list[tuple[nn.Parameter, Tensor]]] = {}
    for (name, parameter), update in zip(learning.items(), updates, strict=True):
        of_share.setdefault(until.get(name, 1.0), []).append((parameter, update))
    for share, pairs in of_share.items():
        if kernels_are_dear(rates[share].device):
            mine = [update for _, update in pairs]
            torch._foreach_add_([p for p, _ in pairs], torch._foreach_mul(mine, rates[share]))
        else:  # in one pass over memory
            for parameter, update in pairs:
                parameter.addcmul_(update, rates[share])
