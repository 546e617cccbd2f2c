"""Convolutions with fewer multiplications, for float32 on a processor.

A convolution along one axis with a kernel of k taps needs k multiplications for each output. After
Winograd's transformation m outputs need m + k - 1 together, and along two axes a tile of m × m
outputs needs (m + k - 1)² instead of m² k² ("Arithmetic Complexity of Computations", 1980; Lavin
and Gray: "Fast Algorithms for Convolutional Neural Networks", 2016): 81 instead of 441 for the
largest tile of a 3 × 3 kernel. What is left is one product of matrices for each of these points.

Transformations move memory, and all is lost if it is moved once more than needed. With the images
in the third dimension, [H, W, N, C], each of them is a product of a small matrix with a long one,
without any copy: rows of the image are rows of the long matrix.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Where the polynomials are evaluated, beside infinity: of what was tried these round least.
_PLACES = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)
_EIGHT_PLACES = (0.0, 1.0, -1.0, 0.5, -1.5, -0.5, 1.5, 3.0)
_MOST = 9  # points along an axis; with more of them rounding grows beyond use
# Measured on two cores with AVX-512, for the convolutions of speednet and the tutorial's network:
_WORTH = 120  # how much must be saved, times channels
_FEWEST = 32  # images; with fewer the matrices are too small to be multiplied fast


@functools.lru_cache
def tile_that_pays(image: torch.Size, weight: torch.Size, *, even: bool = False) -> int | None:
    """Return the side of the tiles with which `winograd_conv2d` is faster than the direct sum.

    `image`: the shape [N, in, H, W]; `weight`: [out, in, k, k]. None where no tile is. What is
    saved grows with the product of the channels, what the transformations cost with their sum.
    """
    count, _, height, width = image
    outputs, inputs, taps, _ = weight
    rows, columns = _size(image, even=even)

    def points(tile: int) -> int:
        return -(-rows // tile) * -(-columns // tile) * (tile + taps - 1) ** 2

    tile = min(range(1, _MOST - taps + 2), key=points)
    saved = taps * taps * height * width / points(tile) - 1
    pays = saved * inputs * outputs / (inputs + outputs) >= _WORTH
    return tile if pays and count >= _FEWEST else None


def winograd_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: int, *, even: bool = False
) -> Tensor:
    """Convolve with a square kernel of odd size k, keeping the size (SAME).

    `x`: float32 [N, in, H, W]; `weight`: float32 [out, in, k, k]; `bias`: float32 [out] or None;
    `tile`: how many rows and columns of the output are made together, with tile + k - 1 at most 9;
    `even`: leave out a last odd row and column, which pooling by 2 does not look at.
    Returns float32 [N, out, H, W] in channels_last memory. Against the result's size the error is
    about 1e-6 for 6 points along an axis (tile + k - 1), 4e-6 for 8 and 2e-5 for 9; that of the
    direct sum is 3e-7.
    """
    size = _size(x.shape, even=even)
    result: Tensor = _Winograd.apply(x, weight, bias, tile, size)  # type: ignore[no-untyped-call]
    return result


def transform_kernel(weight: Tensor, tile: int) -> Tensor:
    """Return G w Gᵀ of a kernel [out, in, k, k]: a matrix [in, out] for each of n² points."""
    _, g, _ = matrices(tile, weight.shape[2])
    outputs, inputs, taps, _ = weight.shape
    values = weight.permute(2, 3, 1, 0).reshape(taps, taps, -1)
    return _rows(g, _columns(g, values)).view(-1, inputs, outputs)


def convolve_tiles(
    x: Tensor, kernels: Tensor, bias: Tensor | None, tile: int, *, even: bool = False
) -> Tensor:
    """Do what `winograd_conv2d` does, with `kernels` of `transform_kernel`, for no gradient."""
    pixels = x.permute(2, 3, 0, 1)
    height, width = _size(x.shape, even=even)
    padded, inside = make_room(pixels, (height, width), tile, math.isqrt(len(kernels)) - tile + 1)
    inside.copy_(pixels)
    y = convolve_padded(padded, kernels, bias, tile)
    return _as_images(y[:height, :width])


def make_room(pixels: Tensor, size: tuple[int, int], tile: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return memory for [H, W, N, C] and the zeros around it, and where in it `pixels` belong.

    The zeros are such that a convolution makes whole tiles of it, for `size` rows and columns of
    the output, of which there may be one less than of the input.
    """
    height, width = (-(-length // tile) * tile + taps - 1 for length in size)
    return _room(pixels, taps // 2, height, width)


def convolve_padded(
    padded: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    tile: int,
    data: Tensor | None = None,
    least: float = -math.inf,
) -> Tensor:
    """Convolve what `make_room` made room for: [H, W, N, out], H and W rounded up to tiles.

    What the kernels are multiplied with is left in `data` [down, across, n, n, N·in], if given.
    What is below `least` becomes that: 0 is ReLU.
    """
    side = math.isqrt(len(kernels))
    taps = side - tile + 1
    a, _, b = matrices(tile, taps)
    height, width, count, _ = padded.shape
    y = padded.new_empty(height - taps + 1, width - taps + 1, count, kernels.shape[2])
    values = padded.flatten(2)
    for top in range(0, len(y), tile):
        rows = _rows(b, values[top : top + side])
        for left in range(0, y.shape[1], tile):
            out = None if data is None else data[top // tile, left // tile]
            points = _columns(b, rows[:, left : left + side], out)
            products = torch.bmm(points.view(side * side, count, -1), kernels)
            if bias is not None:
                products[side + 1] += bias  # the point (1, 1) reaches each output once
            place = y[top : top + tile, left : left + tile].flatten(2)
            _columns(a, _rows(a, products.view(side, side, -1)), place)
            if least > -math.inf:
                place.clamp_min_(least)
    return y


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
        tile: int,
        size: tuple[int, int],
    ) -> Tensor:
        taps = weight.shape[2]
        kernels = transform_kernel(weight, tile)
        pixels = x.permute(2, 3, 0, 1)
        padded, inside = make_room(pixels, size, tile, taps)
        inside.copy_(pixels)
        side = tile + taps - 1
        down, across = (-(-length // tile) for length in size)
        data = x.new_empty(down, across, side, side, len(x) * x.shape[1])
        y = convolve_padded(padded, kernels, bias, tile, data)
        ctx.save_for_backward(data, kernels)
        ctx.sizes = x.shape, tile, taps
        return _as_images(y[: size[0], : size[1]])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        data, kernels = ctx.saved_tensors
        (count, inputs, height, width), tile, taps = ctx.sizes
        a, g, b = (matrix.t().contiguous() for matrix in matrices(tile, taps))
        down, across, side = data.shape[:3]
        pixels = gradient.permute(2, 3, 0, 1)
        whole, inside = _room(pixels, 0, down * tile, across * tile)
        inside.copy_(pixels)
        values = whole.flatten(2)
        of_kernels = torch.zeros_like(kernels)
        high, wide = down * tile + taps - 1, across * tile + taps - 1
        # Tiles of the input overlap, so what reaches it is added up; one alone is not.
        add_down, add_across = min(down - 1, 1), min(across - 1, 1)
        wanted = ctx.needs_input_grad[0]
        of_padded = gradient.new_zeros(high, wide, count * inputs) if wanted else None
        of_rows = gradient.new_empty(side, wide, count * inputs)
        for i in range(down):
            rows = _rows(a, values[i * tile : (i + 1) * tile])
            if wanted and add_across:
                of_rows.zero_()
            for j in range(across):
                of_products = _columns(a, rows[:, j * tile : (j + 1) * tile])
                of_products = of_products.view(side * side, count, -1)
                points = data[i, j].view(side * side, count, -1)
                of_kernels.baddbmm_(points.transpose(1, 2), of_products)
                if wanted:
                    of_points = torch.bmm(of_products, kernels.transpose(1, 2))
                    some = of_rows[:, j * tile : j * tile + side]
                    of_points = of_points.view(side, side, -1)
                    some.baddbmm_(b.expand(side, -1, -1), of_points, beta=add_across)
            if of_padded is not None:
                some = of_padded[i * tile : i * tile + side].flatten(1)
                some.addmm_(b, of_rows.flatten(1), beta=add_down)
        of_x = None
        if of_padded is not None:
            half = taps // 2
            found = of_padded[half : half + height, half : half + width]
            of_x = _as_images(found.unflatten(2, (count, inputs)))  # type: ignore[no-untyped-call]
        of_weight = _rows(g, _columns(g, of_kernels.view(side, side, -1)))
        of_weight = of_weight.view(taps, taps, inputs, -1).permute(3, 2, 0, 1)
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None


def _size(image: torch.Size, *, even: bool) -> tuple[int, int]:
    """Return how many rows and columns the result for an image [N, C, H, W] has."""
    height, width = image[2:]
    return (height // 2 * 2, width // 2 * 2) if even else (height, width)


def _rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix [m, n] with the first dimension of x [n, k, v]: [m, k, v]."""
    return (matrix @ x.view(len(x), -1)).view(len(matrix), *x.shape[1:])


def _columns(matrix: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply a matrix [m, n] with the second dimension of x [k, n, v]: [k, m, v]."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x, out=out)


def _room(pixels: Tensor, before: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return memory [height, width, N, C], and where in it [h, w, N, C] belong; zeros elsewhere."""
    below, right = before + pixels.shape[0], before + pixels.shape[1]
    whole = pixels.new_empty(height, width, *pixels.shape[2:])
    for edge in (whole[:before], whole[below:], whole[:, :before], whole[:, right:]):
        edge.zero_()
    return whole, whole[before:below, before:right]


def _as_images(pixels: Tensor) -> Tensor:
    """Turn [H, W, N, C] into [N, C, H, W] in channels_last memory."""
    return pixels.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


@functools.lru_cache
def matrices(tile: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A [tile, n], G [n, taps] and B [n, n], n = tile + taps - 1, float32.

    For n inputs d and a kernel g, A ((G g) · (B d)) holds the sums of products of g with each of
    the `tile` windows of d. (The transpose of Toom and Cook's multiplication of
    polynomials; B's rows are scaled to 1, and G's by the inverse.)
    """
    n = tile + taps - 1
    places = _EIGHT_PLACES if n == 9 else _PLACES[: n - 1]

    def powers(count: int) -> Any:
        matrix = np.zeros((n, count))
        matrix[:-1] = np.array(places)[:, None] ** np.arange(count)
        matrix[-1, -1] = 1.0  # infinity
        return matrix

    of_input = np.linalg.inv(powers(n)).T
    scale = np.abs(of_input).max(1, keepdims=True)
    found = powers(tile).T, powers(taps) * scale, of_input / scale
    a, g, b = (torch.from_numpy(matrix).to(torch.float32) for matrix in found)
    return a, g, b
