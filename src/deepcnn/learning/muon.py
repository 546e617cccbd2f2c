"""Muon: momentum, orthogonalized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.hardware import kernels_are_dear
from deepcnn.learning.optimizers import (
    Optimizer,
    add,
    ahead,
    gather,
    gradients,
    kept,
    rates,
    with_gradient,
    zeros,
)


class Muon(Optimizer):
    """Orthogonalized momentum, for the filters of convolutions, [out, in, height, width].

    The Nesterov momentum of each filter bank is a matrix [out, in · height · width]. It is replaced
    by the nearest matrix with orthonormal rows or columns; a few Newton-Schulz iterations
    approximate this matrix. (Jordan et al.: "Muon: an optimizer for hidden layers in neural
    networks", 2024.) Before an update, a filter bank is scaled to the norm √out, so that only the
    rate decides how far it turns. With batch normalization, this scale does not change what the
    network computes. `until`: as for SGD.
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
        self.tensors = {"momentum": zeros(parameters)}
        self.updates = None

    @torch.no_grad()
    @override
    def step(self, factor: Tensor, gate: Tensor) -> None:
        learning = with_gradient(self._parameters)
        parameters: list[Tensor] = list(learning.values())
        if not parameters:
            return
        momenta = [self.tensors["momentum"][name] for name in learning]
        found = gradients(parameters, gate)
        gather(momenta, found, kept(self._momentum, gate))
        updates = ahead(momenta, found, self._momentum)
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
        by_share = rates(factor, gate, self._learning_rate, self._until)
        add(learning, filters, by_share, self._until)


def orthogonalize(matrices: Sequence[Tensor], iterations: int = 3) -> list[Tensor]:
    """Move the singular values of matrices [m, n] towards 1, keeping their singular vectors.

    Each Newton-Schulz iteration X ← P X with P = a·I + b·G + c·G², G = X·Xᵀ, maps a singular value
    s to a·s + b·s³ + c·s⁵. The coefficients raise small values fast; in exchange, values end
    between about 0.7 and 1.2. All iterations work on G, which is small; only their product is
    applied to X. Matrices whose shorter sides are equal go through them together. On a GPU smaller
    matrices join them, since there even a small product takes its time; the zeros around their G do
    not change the result.
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
    """Return a square matrix, with zeros appended if it is smaller than `side`."""
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
