"""Convolutions with fewer multiplications, for float32 on a processor.

A convolution along one axis with a kernel of k taps needs k multiplications for each output. After
Winograd's transformation m outputs need m + k - 1 together ("Arithmetic Complexity of
Computations", 1980; Lavin and Gray: "Fast Algorithms for Convolutional Neural Networks", 2016). It
is used for the rows of the image only: k × k convolutions become m + k - 1 convolutions of 1 × k
for every m rows. Both axes would save more operations still, but move more memory than that is
worth, and round more coarsely.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Where the polynomials are evaluated, beside infinity: small numbers of both signs round least.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_ONES = 1  # the point 1, whose powers are all 1


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Tensor:
    """Convolve with a square kernel of odd size k, keeping the size (SAME).

    `x`: float32 [N, in, H, W]; `weight`: float32 [out, in, k, k]; `bias`: float32 [out]; `rows`:
    how many rows of the output are made together, with rows + k - 1 at most 8. Returns float32
    [N, out, H, W] in channels_last memory. The error is two to three times that of the direct
    sum, about 1e-6 of the result's size.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, rows)  # type: ignore[no-untyped-call]
    return result


class _Winograd(torch.autograd.Function):
    """y = A ((G w) * (B x)), where * is a convolution of 1 × k, and its derivatives.

    Rows are gathered with their index in the tile first, so that each transformation is a single
    product of a small matrix with a long one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Tensor:
        outputs, inputs, taps, _ = weight.shape
        to_output, of_kernel, of_input = matrices(rows, taps)
        taps_first = weight.permute(2, 0, 3, 1).reshape(taps, -1)
        kernels = (of_kernel @ taps_first).view(-1, outputs, 1, taps, inputs).permute(0, 1, 4, 2, 3)
        count, _, height, width = x.shape
        tiles, points, half = -(-height // rows), len(kernels), taps // 2
        below = half + tiles * rows - height
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, half, below))
        image, row = padded.stride()[:2]
        overlapping = padded.as_strided((points, count, tiles, row), (row, image, rows * row, 1))
        data = (of_input @ overlapping.reshape(points, -1)).view(points, count, tiles, width, -1)
        products = data.new_empty(points, count, tiles, width, outputs)
        for p in range(points):
            products[p] = F.conv2d(
                data[p].permute(0, 3, 1, 2),
                kernels[p],
                bias if p == _ONES else None,  # reaches each of the rows once
                padding=(0, half),
            ).permute(0, 2, 3, 1)
        tilewise = (to_output @ products.view(points, -1)).view(rows, count, tiles, -1)
        y = tilewise.permute(1, 2, 0, 3).reshape(count, tiles * rows, width, outputs)
        ctx.save_for_backward(data, kernels)
        ctx.rows, ctx.height = rows, height
        return y[:, :height].permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        data, kernels = ctx.saved_tensors
        points, outputs, inputs, _, taps = kernels.shape
        _, count, tiles, width, _ = data.shape
        rows, height, half = ctx.rows, ctx.height, taps // 2
        to_output, of_kernel, of_input = matrices(rows, taps)
        gradient = gradient.permute(0, 2, 3, 1)
        of_bias = gradient.sum((0, 1, 2))
        if tiles * rows > height:
            gradient = F.pad(gradient, (0, 0, 0, 0, 0, tiles * rows - height))
        tilewise = gradient.reshape(count, tiles, rows, -1).permute(2, 0, 1, 3).reshape(rows, -1)
        of_products = (to_output.t() @ tilewise).view(points, count, tiles, width, outputs)
        of_data, of_kernels = torch.empty_like(data), torch.empty_like(kernels)
        for p in range(points):
            of_datum, of_kernels[p], _ = torch.ops.aten.convolution_backward(
                *(of_products[p].permute(0, 3, 1, 2), data[p].permute(0, 3, 1, 2), kernels[p]),
                *(None, [1, 1], [0, half], [1, 1], False, [0, 0], 1, [True, True, False]),
            )
            of_data[p] = of_datum.permute(0, 2, 3, 1)
        by_point = of_kernels.permute(0, 1, 3, 4, 2).reshape(points, -1)
        of_weight = (of_kernel.t() @ by_point).view(taps, outputs, taps, inputs)
        of_overlapping = (of_input.t() @ of_data.view(points, -1)).view(points, count, tiles, -1)
        of_padded = gradient.new_zeros(count, tiles * rows + points - rows, width * inputs)
        for t in range(tiles):
            of_padded[:, t * rows : t * rows + points] += of_overlapping[:, :, t].transpose(0, 1)
        of_x = of_padded[:, half : half + height].reshape(count, height, width, inputs)
        return of_x.permute(0, 3, 1, 2), of_weight.permute(1, 3, 0, 2), of_bias, None


@functools.lru_cache
def matrices(rows: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A [rows, n], G [n, taps] and B [n, n], n = rows + taps - 1, float32.

    For a tile d of n inputs and a kernel g, A ((G g) · (B d)) holds the sums of products of g with
    each of the `rows` windows of d. (The transpose of Toom and Cook's multiplication of
    polynomials; B's rows are scaled to 1, and G's by the inverse.)
    """
    points = rows + taps - 1

    def powers(count: int) -> Any:
        matrix = np.zeros((points, count))
        matrix[:-1] = np.array(_POINTS[: points - 1])[:, None] ** np.arange(count)
        matrix[-1, -1] = 1.0  # infinity
        return matrix

    of_input = np.linalg.inv(powers(points)).T
    scale = np.abs(of_input).max(1, keepdims=True)
    found = powers(rows).T, powers(taps) * scale, of_input / scale
    a, g, b = (torch.from_numpy(matrix).to(torch.float32) for matrix in found)
    return a, g, b
