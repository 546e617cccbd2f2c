"""Convolutions with fewer multiplications, in float32 on a processor.

A convolution along one axis with a kernel of k taps needs k multiplications for each output. After
Winograd's transformation, m outputs together need m + k - 1. Along two axes, a tile of m × m
outputs needs (m + k - 1)² instead of m² k² ("Arithmetic Complexity of Computations", 1980; Lavin
and Gray: "Fast Algorithms for Convolutional Neural Networks", 2016). For a tile of 7 × 8 and a 3 ×
3 kernel these are 90 instead of 504. One product of matrices is left for each of these points.

Transformations move memory. If memory is moved once more than needed, all the gain is lost. With
the images in the third dimension, [H, W, N, C], each transformation is a product of a small matrix
with a long one, without any copy. The rows of the long matrix are first the columns within each row
of pixels, then the rows of pixels. If one tile covers an image, the image is treated as a single
row of H · W pixels, and one matrix does both. Pixels beyond the image are zeros, so they and their
factors are left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepcnn.kernels.pixels import in_rows, result_size, room

# Where the polynomials are evaluated, beside infinity: of what was tried these round least.
_PLACES = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)
_MORE_PLACES = {
    9: (0.0, 0.4375, -0.4375, 0.875, -0.875, 1.375, -1.375, 3.5),
    10: (0.0, 0.4375, -0.4375, 0.8125, -0.8125, 1.25, -1.25, 2.5, -2.5),
}
_MOST = 9, 10  # points that the axes may have, down and across: with more of them rounding grows
_BLOCK = 128  # images at a time where tiles overlap, so that what they share stays in the cache
# Measured on two cores with AVX-512, for the convolutions of speednet: how much must be saved,
# times channels, by several tiles and by one alone.
_WORTH = {"with derivatives": (90.0, 71.5), "forward": (120.0, 71.5)}
# The same where the direct sum is in bf16, on two cores that multiply it (AVX512-BF16).
_WORTH_BF16 = {"with derivatives": (math.inf, 105.0), "forward": (math.inf, math.inf)}
_FEWEST = 32  # images; with fewer the matrices are too small to be multiplied fast

Tile = tuple[int, int]  # rows and columns of a result that are made together


@functools.lru_cache
def tile_that_pays(
    image: torch.Size,
    weight: torch.Size,
    *,
    even: bool = False,
    backward: bool = True,
    bf16: bool = False,
) -> Tile | None:
    """Return the tiles with which `winograd_conv2d` is faster than the direct sum.

    `image`: the shape [N, in, H, W]. `weight`: [out, in, k, k]. `backward`: whether there will be
    derivatives; they make tiles save more. `bf16`: whether the direct sum is in bf16, on hardware
    for it, while tiles are in float32. Returns None if no tile is faster. The saving grows with the
    product of the numbers of channels, the cost of the transformations with their sum.
    """
    count, _, height, width = image
    outputs, inputs, taps, _ = weight
    rows, columns = result_size(image, even=even)

    def points(length: int, side: int) -> int:
        return -(-length // side) * (side + taps - 1)

    def best(length: int, sides: range) -> int:
        most = 1.05 * min(points(length, side) for side in sides)
        return next(side for side in sides if points(length, side) <= most)  # rounds the least

    most_down, most_across = _MOST
    down = best(rows, range(1, most_down - taps + 2))
    across = best(columns, range(1, most_across - taps + 2))
    saved = taps * taps * height * width / (points(rows, down) * points(columns, across)) - 1
    worths = _WORTH_BF16 if bf16 else _WORTH
    several, alone = worths["with derivatives" if backward else "forward"]
    worth = alone if rows <= down and columns <= across else several
    pays = saved * inputs * outputs / (inputs + outputs) >= worth
    return (down, across) if pays and count >= _FEWEST else None


def winograd_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile, *, even: bool = False
) -> Tensor:
    """Convolve with a square kernel of odd size k > 1, keeping the size (SAME).

    `x`: float32 or bf16 [N, in, H, W]. `weight`: float32 [out, in, k, k]. `bias`: float32 [out] or
    None. `tile`: how many rows and columns of the output are computed together; each plus k - 1 is
    at most 10. `even`: leave out an odd last row and column, which pooling by 2 does not use.
    Returns [N, out, H, W] of the type of `x`, in channels_last memory; everything in between is
    float32. The error (root mean square, in units of the result) depends on the points along each
    axis (a side plus k - 1): about 1e-6 for 6, 3e-6 for 8, 9e-6 for 9 and 2e-5 for 10. The direct
    sum has 2e-7, and in bf16 2e-3.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, tile, even)  # type: ignore[no-untyped-call]
    return result


def transform_kernel(weight: Tensor, tile: Tile) -> Tensor:
    """Return G w Gᵀ of a kernel [out, in, k, k], a matrix for each point: [n, m, in, out]."""
    outputs, inputs, taps, _ = weight.shape
    by_tap = weight.permute(2, 3, 1, 0).reshape(taps * taps, -1)
    return (_of_kernel(tile, taps) @ by_tap).view(tile[0] + taps - 1, -1, inputs, outputs)


def convolve_tiles(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    tile: Tile,
    *,
    even: bool = False,
    points: list[Tensor] | None = None,
) -> Tensor:
    """Do the same as `winograd_conv2d`, with `kernels` of `transform_kernel`, without gradients.

    `points` is extended by the matrices that the kernels are multiplied with: float32 [n · m,
    images, in] for each tile of each block of images. An image of zeros may follow the others (see
    `room`).
    """
    y = x.new_empty(len(x), *result_size(x.shape, even=even), kernels.shape[3])
    pixels, out = x.permute(2, 3, 0, 1), y.permute(1, 2, 0, 3)
    down, across = _axes(pixels.shape[:2], out.shape[:2], tile, len(kernels) - tile[0] + 1)
    matrices = kernels.flatten(0, 1)
    block = _block(len(x), down, across)
    for part, result in zip(torch.split(pixels, block, 2), torch.split(out, block, 2), strict=True):
        count = part.shape[2]
        images = room(part, kernels.shape[2:], torch.float32)
        values = in_rows(part, images, torch.float32)
        values = values.view(down[-1].inputs.stop, across[-1].inputs.stop, -1)
        result = result.view(down[-1].outputs.stop, -1, count, out.shape[3])
        for columns in across:
            of_columns = _columns(columns.to_points, values[:, columns.inputs])
            for rows in down:
                data = _rows(rows.to_points, of_columns[rows.inputs])
                data = data.view(len(matrices), images, -1)
                if points is not None:
                    points.append(data)
                products = torch.bmm(data, matrices)
                products = products.view(-1, of_columns.shape[1], images * out.shape[3])
                place = result[rows.outputs, columns.outputs]
                of_place = _columns(columns.from_points, _rows(rows.from_points, products))
                of_place = of_place.view(*place.shape[:2], images, -1)[:, :, :count]
                if bias is not None:
                    of_place += bias
                place.copy_(of_place)
    return y.permute(0, 3, 1, 2)


class _Winograd(torch.autograd.Function):
    """y = A ((G w Gᵀ) · (B x Bᵀ)) Aᵀ for each tile, and its derivatives.

    The dot multiplies matrices [N, in] and [in, out], one for each of the points.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tile: Tile,
        even: bool,
    ) -> Tensor:
        kernels = transform_kernel(weight, tile)
        points: list[Tensor] = []
        y = convolve_tiles(x, kernels, bias, tile, even=even, points=points)
        ctx.save_for_backward(weight, *points)
        # What comes back lies in memory as x does, so that nobody need reorder it.
        strides = torch.empty_like(x, device="meta").stride()
        ctx.sizes = x.shape, strides, tile, weight.shape[2]
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        weight, *points = ctx.saved_tensors
        (count, inputs, height, width), strides, tile, taps = ctx.sizes
        axes = _axes((height, width), gradient.shape[2:], tile, taps)
        block = _block(count, *axes)
        gradients = torch.split(gradient.permute(2, 3, 0, 1), block, 2)
        of_x: Tensor | None = None
        of_parts: list[Tensor | None] = [None] * len(gradients)
        if ctx.needs_input_grad[0]:
            of_x = gradient.new_empty_strided((count, inputs, height, width), strides)
            of_parts = [*torch.split(of_x.permute(2, 3, 0, 1), block, 2)]
        tiles = len(points) // len(gradients)
        with torch.autocast("cpu", enabled=False):
            kernels = transform_kernel(weight.transpose(0, 1), tile).flatten(0, 1)  # [·, out, in]
            of_bias = kernels.new_zeros(kernels.shape[1]) if ctx.needs_input_grad[2] else None
            sums = _Sums(None, of_bias)
            for i, (part, of_part) in enumerate(zip(gradients, of_parts, strict=True)):
                mine = points[i * tiles : (i + 1) * tiles]
                _go_back(part, kernels, mine, axes, sums, of_part)
            assert sums.of_kernels is not None
            of_weight = _of_kernel(tile, taps).t() @ sums.of_kernels.flatten(1)
        of_weight = of_weight.view(taps, taps, -1, inputs).permute(2, 3, 0, 1)
        return of_x, of_weight, of_bias, None, None


@dataclass
class _Sums:
    """Gradients to which all blocks of images add; the first block begins those of the kernels."""

    of_kernels: Tensor | None
    of_bias: Tensor | None


def _go_back(
    gradient: Tensor,
    kernels: Tensor,
    points: Sequence[Tensor],
    axes: tuple[_Axis, _Axis],
    sums: _Sums,
    out: Tensor | None,
) -> None:
    """Go backward through `convolve_tiles`, for one block of images [H, W, N, out].

    Adds to `sums`, and writes the gradient of the pixels to `out` if it is wanted.
    """
    down, across = axes
    count = gradient.shape[2]
    images = points[0].shape[1]
    values = in_rows(gradient, images, torch.float32)
    values = values.view(down[-1].outputs.stop, across[-1].outputs.stop, -1)
    if sums.of_bias is not None:
        sums.of_bias += values.view(-1, len(sums.of_bias)).sum(0)
    # Tiles of the input overlap, so what reaches it is added up; that of a single one is not.
    height, width = (axis[-1].inputs.stop for axis in axes)
    new, beta = (values.new_empty, 0) if len(across) == 1 else (values.new_zeros, 1)
    of_pixels = None if out is None else new(height, width, images * out.shape[3])
    saved = iter(points)
    for columns in across:
        of_y = _columns(columns.of_outputs, values[:, columns.outputs])
        of_columns: Tensor | None = None
        if of_pixels is not None and not _is_one(down[0].of_points):
            of_columns = values.new_zeros(height, of_y.shape[1], of_pixels.shape[2])
        for rows in down:
            of_products = _rows(rows.of_outputs, of_y[rows.outputs])
            of_products = of_products.view(len(kernels), images, -1)
            factors = of_products.transpose(1, 2), next(saved)
            known = sums.of_kernels
            sums.of_kernels = torch.bmm(*factors) if known is None else known.baddbmm_(*factors)
            if of_pixels is None:
                continue
            of_points = torch.bmm(of_products, kernels).view(-1, of_y.shape[1], of_pixels.shape[2])
            if of_columns is None:
                of_columns = of_points
            else:
                place = of_columns[rows.inputs].flatten(1)
                place.addmm_(rows.of_points, of_points.flatten(1))
        if of_pixels is not None and of_columns is not None:
            matrix = columns.of_points.expand(height, -1, -1)
            of_pixels[:, columns.inputs].baddbmm_(matrix, of_columns, beta=beta)
    if out is not None and of_pixels is not None:
        out.copy_(of_pixels.view(*out.shape[:2], images, -1)[:, :, :count])


class _Span(NamedTuple):
    """The outputs and inputs of a tile along an axis, without those beyond the image."""

    outputs: slice
    inputs: slice
    to_points: Tensor  # [points, inputs]
    from_points: Tensor  # [outputs, points]
    of_points: Tensor  # [inputs, points], the transpose of the first, for the way back
    of_outputs: Tensor  # [points, outputs], that of the second


_Axis = tuple[_Span, ...]


@functools.lru_cache
def _axes(
    image: tuple[int, int], size: tuple[int, int], tile: Tile, taps: int
) -> tuple[_Axis, _Axis]:
    """Return the tiles down and across, for an image whose result has `size`.

    If there is only one tile, these are the tiles of the image as a single row.
    """
    down, across = (_axis(*sizes, taps) for sizes in zip(image, size, tile, strict=True))
    if _alone(down, across):
        to_points = torch.kron(down[0].to_points, across[0].to_points)
        from_points = torch.kron(down[0].from_points, across[0].from_points)
        row = _span(slice(1), slice(1), torch.ones(1, 1), torch.ones(1, 1))
        pixels = slice(len(from_points)), slice(to_points.shape[1])
        return (row,), (_span(*pixels, to_points, from_points),)
    return down, across


def _axis(length: int, size: int, side: int, taps: int) -> _Axis:
    """Return the tiles of `side` outputs of an axis of `length` inputs and `size` outputs."""
    a, _, b = _matrices(side, taps)
    reach = taps // 2
    found = []
    for start in range(0, size, side):
        end = min(start + side, size)
        first, last = max(start - reach, 0), min(end + reach, length)
        seen = b[:, first - (start - reach) : last - (start - reach)]
        found.append(_span(slice(start, end), slice(first, last), seen, a[: end - start]))
    return tuple(found)


def _span(outputs: slice, inputs: slice, to_points: Tensor, from_points: Tensor) -> _Span:
    matrices = to_points, from_points, to_points.t(), from_points.t()
    return _Span(outputs, inputs, *(matrix.contiguous() for matrix in matrices))


def _alone(down: _Axis, across: _Axis) -> bool:
    """Tell whether there is only one tile."""
    return len(down) == len(across) == 1


@functools.lru_cache
def _of_kernel(tile: Tile, taps: int) -> Tensor:
    """Return the matrix from a kernel's k² taps to its points, [n · m, k²]."""
    (_, down, _), (_, across, _) = (_matrices(side, taps) for side in tile)
    return torch.kron(down, across)


def _block(count: int, down: _Axis, across: _Axis) -> int:
    """Return how many of `count` images are computed at a time."""
    return count if _alone(down, across) else _BLOCK


def _rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix [m, k] with the first dimension of x [k, c, v]: [m, c, v]."""
    return x if _is_one(matrix) else (matrix @ x.flatten(1)).view(-1, *x.shape[1:])


def _columns(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix [m, k] with the second dimension of x [r, k, v]: [r, m, v]."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


def _is_one(matrix: Tensor) -> bool:
    """Tell whether a matrix is a single 1; an image in one row has such a matrix for its rows."""
    return matrix.numel() == 1


@functools.lru_cache
def _matrices(side: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A [side, n], G [n, taps] and B [n, n], n = side + taps - 1, float32.

    For n inputs d and a kernel g, A ((G g) · (B d)) holds the sums of products of g with each of
    the `side` windows of d. This is the transpose of Toom and Cook's multiplication of polynomials.
    Row i of B holds the coefficients of the polynomial that is 0 at all points except the i-th.
    They are multiplied by a power of 2 that brings the largest one close to 1; G undoes this. So if
    there are few points, A and B and products of their values are exact in float32.
    """
    n = side + taps - 1
    places = np.array(_MORE_PLACES.get(n, _PLACES[: n - 1]))

    def powers(count: int) -> NDArray[np.float64]:
        matrix = np.zeros((n, count))
        matrix[:-1] = places[:, None] ** np.arange(count)
        matrix[-1, -1] = 1.0  # infinity
        return matrix

    b, scale = np.zeros((n, n)), np.ones((n, 1))
    for i in range(n):
        others = np.delete(places, i) if i < n - 1 else places
        polynomial = np.poly(others)[::-1]
        power = 2.0 ** np.round(np.log2(np.abs(polynomial).max()))
        b[i, : len(polynomial)] = polynomial / power
        scale[i] = power / np.prod(places[i] - others) if i < n - 1 else power
    found = powers(side).T, powers(taps) * scale, b
    of_products, of_kernel, of_input = (torch.from_numpy(matrix).float() for matrix in found)
    return of_products, of_kernel, of_input
