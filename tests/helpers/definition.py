"""How functions with derivatives of their own are compared with the definition in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def values_and_gradients(
    function: Callable[..., Tensor], arguments: list[Tensor], weights: Tensor
) -> list[Tensor]:
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, weights.to(y.dtype))]


def check(
    function: Callable[..., Tensor],
    definition: Callable[..., Tensor],
    arguments: list[Tensor],
    weights: Tensor,
    tolerance: float,
) -> None:
    """Compare in units of the largest value of each result."""
    found = values_and_gradients(function, arguments, weights)
    doubles = [argument.double() for argument in arguments]
    expected = values_and_gradients(definition, doubles, weights)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.shape == exact.shape
        assert (ours - exact).abs().max() < tolerance * exact.abs().max()
