"""The layers of prepared networks, in oneDNN, with nothing kept for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deepcnn.hardware import float32_products
from deepcnn.kernels.response_norm import STEEP, near_one, times_power
from deepcnn.models.response_norm import LocalResponseNorm

BLOCK = 64  # images at a time
LARGE_BLOCK = 16  # images at a time where activations are largest
ENOUGH = 16  # images; for fewer what a call costs counts more than what it computes


class Convolution:
    """A convolution of stride 1 in oneDNN, with its weights in oneDNN's order, then a function.

    `padding`: on each side. `then`: "none", "relu" or "swish", which is SiLU. The fastest order of
    the weights depends on the size of the images.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, padding: int, then: str) -> None:
        self._convolve = torch.ops.mkldnn._convolution_pointwise.default
        self._padding, self._then = [padding, padding], then
        self._weight, self._bias = weight.detach().clone(), bias.clone()
        self._ordered: dict[tuple[int, ...], Tensor] = {}  # by how many images, and their size

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W'], in channels_last memory."""
        size = (1 if len(x) < ENOUGH else BLOCK, *x.shape[1:])
        if size not in self._ordered:
            self._ordered[size] = self._order(size)
        y: Tensor = self._convolve(
            x.contiguous(memory_format=torch.channels_last),
            *(self._ordered[size], self._bias, self._padding, [1, 1], [1, 1], 1),
            *(self._then, [], ""),
        )
        return y

    def _order(self, size: tuple[int, ...]) -> Tensor:
        nn_functions: Any = torch._C._nn
        ordered: Tensor = nn_functions.mkldnn_reorder_conv2d_weight(
            self._weight.to_mkldnn(), self._padding, [1, 1], [1, 1], 1, list(size)
        )
        return ordered


def by_blocks(features: Callable[[Tensor], Tensor], images: Tensor, block: int = BLOCK) -> Tensor:
    """Return `features` of images [N, C, H, W], computed block by block."""
    if len(images) < ENOUGH:
        return features(images)
    with float32_products(images.device):
        return torch.cat([features(some) for some in torch.split(images, block)])


class PreparedLinearReLU:
    """A fully connected layer in oneDNN, with its weights in oneDNN's order, then ReLU."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        weight = layer.weight.detach().to(dtype, copy=True)
        self._multiply = torch.ops.mkldnn._linear_pointwise.default
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, BLOCK)
        self._bias = bias_of(layer).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs], of the layer's type."""
        y: Tensor = self._multiply(x, self._weight, self._bias, "relu", [], "")
        return y


class PreparedResponseNorm:
    """Local response normalization of values that are not negative, in few passes over memory."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        self._start = norm.start.clone()
        self._scale = {torch.float32: 1.0, torch.bfloat16: STEEP if norm.bias == 1 else 1.0}
        self._band = {
            dtype: (norm.band.flatten(1) * scale).to(dtype) for dtype, scale in self._scale.items()
        }

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize `x` [..., C], contiguous; the result may share its memory."""
        rows = x.view(-1, x.shape[-1])
        band = self._band[x.dtype]
        if x.dtype == torch.float32:
            s = torch.addmm(self._start, rows * rows, band)
        else:
            scale = self._scale[x.dtype]
            sums = torch.mm(rows * rows, band)
            q = near_one(sums) if scale != 1 else None
            if q is not None:
                return times_power(rows, q).view(x.shape)
            s = torch.add(self._start, sums, alpha=1 / scale)
        s.rsqrt_()
        s.div_(s.rsqrt())  # s ** -0.75; roots and quotients take less time than a power
        return rows.mul_(s.to(x.dtype)).view(x.shape)


def pool(x: Tensor, dim: int, *, same: bool = True) -> Tensor:
    """Take maxima along `dim` of values that are not negative, 3 wide, stride 2.

    `same`: padded like `SameMaxPool`. Otherwise the first window begins at the edge, for any size,
    and the last one may reach over the other edge. The indices of the maxima, which max_pool2d
    stores for a backward pass, are not stored. The bits of numbers that are not negative have the
    same order as the numbers, and in bf16 are compared faster.
    """
    if x.dtype == torch.bfloat16:
        return pool(x.view(torch.int16), dim, same=same).view(torch.bfloat16)
    size = x.shape[dim]
    each = [slice(None)] * dim
    even, odd = x[(*each, slice(0, None, 2))], x[(*each, slice(1, None, 2))]
    inner = (size - 1) // 2  # windows that have three values
    if size % 2 == 0 or not same:
        y = torch.maximum(even.narrow(dim, 0, size // 2), odd)
        torch.maximum(
            y.narrow(dim, 0, inner), even.narrow(dim, 1, inner), out=y.narrow(dim, 0, inner)
        )
    else:
        y = even.clone(memory_format=torch.contiguous_format)
        for start in (0, 1):
            some = y.narrow(dim, start, inner)
            torch.maximum(some, odd, out=some)
    return y


def bias_of(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Return a copy of a layer's bias."""
    assert layer.bias is not None
    return layer.bias.detach().clone()
