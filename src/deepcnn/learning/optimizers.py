"""Optimizers: what they share, and stochastic gradient descent.

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
from typing_extensions import override

from deepcnn.hardware import kernels_are_dear


class Optimizer(Protocol):
    """Updates some of the parameters of a model; `tensors` is all that it remembers."""

    tensors: dict[str, Tensor]

    def step(self, factor: Tensor, gate: Tensor) -> None:
        """Update from the gradients, at `factor` (float32 []) times the learning rate.

        Nothing changes where `gate` (bool []) is False, nor do parameters without a gradient.
        """


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum where `momentum` is not 0.

    m ← momentum · m + g; p ← p - rate · m with plain momentum, and with Nesterov's p ← p - rate ·
    (g + momentum · m). (Sutskever, Martens, Dahl, Hinton: "On the importance of initialization and
    momentum in deep learning", 2013, in the form of torch.optim.SGD.)

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
        nesterov: bool = True,
        weight_decay: float = 0.0,
        until: Mapping[str, float] | None = None,
    ) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._momentum, self._nesterov = momentum, nesterov
        self._penalty = weight_decay / learning_rate if weight_decay else 0.0
        self._until = until or {}
        self.tensors = zeros(parameters) if momentum else {}

    @torch.no_grad()
    @override
    def step(self, factor: Tensor, gate: Tensor) -> None:
        learning = with_gradient(self._parameters)
        updates = gradients([*learning.values()], gate, self._penalty)
        if self._momentum:
            momenta = [self.tensors[name] for name in learning]
            ahead = with_momentum(momenta, updates, self._momentum, gate)
            updates = ahead if self._nesterov else momenta
        by_share = rates(factor, gate, self._learning_rate, self._until)
        add(learning, updates, by_share, self._until)


def rates(
    factor: Tensor, gate: Tensor, learning_rate: float, until: Mapping[str, float]
) -> dict[float, Tensor]:
    """Return the negative rate for each share of the training that a parameter learns for.

    `factor` is that of the whole training. Where it falls in a straight line, and the training
    ended at the share s of its steps, it would be 1 - (1 - factor) / s, down to 0.
    """
    found = {1.0: factor * gate * -learning_rate}
    for share in {*until.values()} - {1.0}:
        sooner = (1 - (1 - factor) / share).clamp_min(0.0)
        found[share] = sooner * gate * -learning_rate
    return found


def zeros(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return a zero tensor like each parameter."""
    return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}


def with_gradient(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the parameters that have a gradient."""
    return {name: p for name, p in parameters.items() if p.grad is not None}


def gradients(parameters: list[Tensor], gate: Tensor, penalty: float = 0.0) -> list[Tensor]:
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


def with_momentum(
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


def add(
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
