"""Images in oneDNN's own layout, which torch calls opaque, for the largest images of a network.

torch's max pooling writes an index of 64 bits for each maximum, and reads it in the backward pass.
This is four times the bytes of the maxima in bf16. oneDNN's pooling keeps one byte, and its
convolution is a little faster in its own layout. Bringing images into this layout and back costs a
part of what is saved. So it pays only if the input of the convolution has three channels, and its
output is large.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepcnn.hardware import onednn_computes

# Measured on two cores with AVX-512: with fewer results, or other channels, it took longer.
_FEWEST_RESULTS = 4_000_000
_CHANNELS_TOGETHER = 16  # of the results, in the layout


def onednn_pays(images: torch.Size, weight: torch.Size, dtype: torch.dtype) -> bool:
    """Tell whether `onednn_conv2d` and pooling of its result are faster than torch's own.

    `images`: the shape [N, in, H, W]. `weight`: [out, in, k, k]. `dtype`: the type to compute in.
    """
    count, inputs, height, width = images
    outputs = weight[0]
    return (
        inputs == 3
        and outputs % _CHANNELS_TOGETHER == 0
        and count * outputs * height * width >= _FEWEST_RESULTS
        and is_suitable(dtype)
    )


def onednn_conv2d(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with a square kernel of odd size, keeping the size (SAME).

    `images`: [N, in, H, W], not opaque. `weight`: [out, in, k, k]. `bias`: [out]. All are of one
    type, float32 or bf16. Returns [N, out, H, W] of this type, opaque.
    """
    y: Tensor = _Convolve.apply(images.to_mkldnn(), weight, bias)  # type: ignore[no-untyped-call]
    return y


def to_dense(x: Tensor) -> Tensor:
    """Return [N, C, H, W] as an ordinary tensor, in memory [N, W, H, C].

    oneDNN's layouts become torch's by exchanging two axes. One exchange puts the channels last. A
    second exchange would put the rows before the columns, and take as long again.
    """
    y: Tensor = _ToDense.apply(x)  # type: ignore[no-untyped-call]
    return y


def all_finite(*tensors: Tensor) -> bool:
    """Tell whether there is no NaN, no infinity, and no sum that is infinite.

    Of a NaN and numbers, oneDNN takes the largest number as the maximum. This would hide that a
    training failed.
    """
    return math.isfinite(sum(tensor.detach().sum().item() for tensor in tensors))


@functools.cache
def is_suitable(dtype: torch.dtype) -> bool:
    """Tell whether this kind of processor was measured, and whether oneDNN computes the type."""
    return bool(torch.cpu.get_capabilities().get("avx512_f")) and onednn_computes(dtype)


class _Convolve(torch.autograd.Function):
    """The convolution of opaque images; torch has its derivative only for float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        padding = [weight.shape[2] // 2] * 2
        y: Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, [1, 1], [1, 1], 1)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        padding = [weight.shape[2] // 2] * 2
        gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            *(gradient, x, weight, [len(weight)], [1, 1], padding, [1, 1], False, [0, 0], 1),
            ctx.needs_input_grad,
        )
        return gradients


class _ToDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        turned: Tensor = torch._mkldnn_transpose(x, 1, 3)  # [N, W, H, C]
        return turned.to_dense().permute(0, 3, 2, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        turned = gradient.permute(0, 3, 2, 1).to_mkldnn()
        of_x: Tensor = torch._mkldnn_transpose(turned, 1, 3)
        return of_x
