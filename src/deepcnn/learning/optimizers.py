"""Optimizers: what they share, and stochastic gradient descent.

An update takes the schedule's factor as a tensor, and a gate. If the gate is False, neither
parameters nor momenta change. So a step whose loss is not finite leaves no trace, and the host need
not look at it. (`masked_fill` passes its number directly; `torch.where` would first copy it to a
GPU, and wait for the copy.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.hardware import kernels_are_dear


class Optimizer(Protocol):
    """Updates some of the parameters of a model.

    `tensors` and `updates` are all that it remembers. `tensors` has, for each kind such as
    momentum, a tensor like each parameter, by name. `updates` is how many updates it made, int64
    [], or None if they are not counted.
    """

    tensors: dict[str, dict[str, Tensor]]
    updates: Tensor | None

    def step(self, factor: Tensor, gate: Tensor) -> None:
        """Update from the gradients, at `factor` (float32 []) times the learning rate.

        Nothing changes if `gate` (bool []) is False. Parameters without a gradient never change.
        """


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if `momentum` is not 0.

    m ← momentum · m + g. With plain momentum p ← p - rate · m; with Nesterov's p ← p - rate · (g +
    momentum · m). (Sutskever, Martens, Dahl, Hinton: "On the importance of initialization and
    momentum in deep learning", 2013, in the form of torch.optim.SGD.)

    `weight_decay` is the share of each parameter that a step takes away at the initial rate. It is
    added to the gradient: g + weight_decay / learning_rate · p. `until`: by name, the share of the
    training for which parameters learn, if it is not the whole training; their rate is 0 at its
    end.
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
        self.tensors = {"momentum": zeros(parameters)} if momentum else {}
        self.updates = None

    @torch.no_grad()
    @override
    def step(self, factor: Tensor, gate: Tensor) -> None:
        learning = with_gradient(self._parameters)
        updates = gradients([*learning.values()], gate, self._penalty)
        if self._momentum:
            momenta = [self.tensors["momentum"][name] for name in learning]
            gather(momenta, updates, kept(self._momentum, gate))
            updates = ahead(momenta, updates, self._momentum) if self._nesterov else momenta
        by_share = rates(factor, gate, self._learning_rate, self._until)
        add(learning, updates, by_share, self._until)


def rates(
    factor: Tensor, gate: Tensor, learning_rate: float, until: Mapping[str, float]
) -> dict[float, Tensor]:
    """Return the negative rate for each share of the training for which parameters learn.

    `factor` is that of the whole training. If it falls in a straight line, the factor of a training
    that ends at the share s of its steps is 1 - (1 - factor) / s, and at least 0.
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
    """Return the gradients, or zeros if the gate is closed: a NaN times 0 would be a NaN."""
    found = [p.grad for p in parameters if p.grad is not None]
    if penalty and found:
        found = list(torch._foreach_add(found, parameters, alpha=penalty))
    if gate.device.type == "cpu" and gate:  # the host need not wait to see that all is well
        return found
    # As integers their bits times 0 are 0, whatever they are, and all take one kernel on a GPU.
    bits = [gradient.view(torch.int32) for gradient in found]
    masked = torch._foreach_mul(bits, gate.to(torch.int32)) if bits else []
    return [values.view(torch.float32) for values in masked]


def kept(decay: float, gate: Tensor) -> Tensor:
    """Return the share of its memory that a step keeps, float32 []: all if the gate is closed."""
    return torch.full((), decay, device=gate.device).masked_fill_(~gate, 1.0)


def gather(
    momenta: list[Tensor], gradients: list[Tensor], keep: Tensor, share: float = 1.0
) -> None:
    """Multiply momenta by `keep` (float32 []), and add a share of the gradients."""
    if momenta:
        torch._foreach_mul_(momenta, keep)
        torch._foreach_add_(momenta, gradients, alpha=share)


def gather_squares(
    squares: list[Tensor], gradients: list[Tensor], keep: Tensor, share: float
) -> None:
    """Multiply means by `keep` (float32 []), and add a share of the new squares."""
    torch._foreach_mul_(squares, keep)
    torch._foreach_addcmul_(squares, gradients, gradients, value=share)


def ahead(momenta: list[Tensor], gradients: list[Tensor], decay: float) -> list[Tensor]:
    """Return Nesterov's steps: the gradients plus the momenta as they count in the next step."""
    return list(torch._foreach_add(gradients, momenta, alpha=decay)) if momenta else []


def portions(
    learning: Mapping[str, nn.Parameter], until: Mapping[str, float]
) -> Iterator[tuple[float, list[str]]]:
    """Yield the names of parameters that are treated together, and the share they learn for.

    On a GPU these are all parameters that learn for the same share. On a processor they come one by
    one, since the values for one parameter then stay in the cache.
    """
    of_share: dict[float, list[str]] = {}
    for name, parameter in learning.items():
        share = until.get(name, 1.0)
        if kernels_are_dear(parameter.device):
            of_share.setdefault(share, []).append(name)
        else:
            yield share, [name]
    yield from of_share.items()


def add(
    learning: Mapping[str, nn.Parameter],
    updates: Sequence[Tensor],
    rates: Mapping[float, Tensor],
    until: Mapping[str, float],
) -> None:
    """Add to each parameter its update times the rate for the share that it learns for."""
    of_name = dict(zip(learning, updates, strict=True))
    for share, names in portions(learning, until):
        mine = [of_name[name] for name in names]
        add_products([learning[name] for name in names], mine, rates[share])


def add_products(parameters: list[Tensor], updates: list[Tensor], rate: Tensor) -> None:
    """Add to each parameter its update times the rate."""
    if kernels_are_dear(rate.device):
        torch._foreach_add_(parameters, torch._foreach_mul(updates, rate))
    else:  # in one pass over memory
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.addcmul_(update, rate)


def add_quotients(
    parameters: list[Tensor], numerators: list[Tensor], divisors: list[Tensor], rate: Tensor
) -> None:
    """Add to each parameter its numerator over its divisor times the rate; overwrite divisors."""
    if kernels_are_dear(rate.device):
        # The rate goes into the divisors, which become infinite where it is 0.
        torch._foreach_mul_(divisors, 1 / rate)
        torch._foreach_addcdiv_(parameters, numerators, divisors)
    else:  # the host need not wait to know it
        torch._foreach_addcdiv_(parameters, numerators, divisors, value=float(rate))
