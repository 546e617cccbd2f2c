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
def tile_that_pays(image: torch.Size, weight: torch.Size) -> int | None:
    """Return the side of the tiles with which `winograd_conv2d` is faster than the direct sum.

    `image`: the shape [N, in, H, W]; `weight`: [out, in, k, k]. None where no tile is. What is
    saved grows with the product of the channels, what the transformations cost with their sum.
    """
    count, _, height, width = image
    outputs, inputs, taps, _ = weight

    def points(tile: int) -> int:
        return math.prod(tiles(height, width, tile)) * (tile + taps - 1) ** 2

    tile = min(range(1, _MOST - taps + 2), key=points)
    saved = taps * taps * height * width / points(tile) - 1
    pays = saved * inputs * outputs / (inputs + outputs) >= _WORTH
    return tile if pays and count >= _FEWEST else None


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, tile: int) -> Tensor:
    """Convolve with a square kernel of odd size k, keeping the size (SAME).

    `x`: float32 [N, in, H, W]; `weight`: float32 [out, in, k, k]; `bias`: float32 [out] or None;
    `tile`: how many rows and columns of the output are made together, with tile + k - 1 at most 9.
    Returns float32 [N, out, H, W] in channels_last memory. Against the result's size the error is
    about 1e-6 for 6 points along an axis (tile + k - 1), 4e-6 for 8 and 2e-5 for 9; that of the
    direct sum is 3e-7.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, tile)  # type: ignore[no-untyped-call]
    return result


def transform_kernel(weight: Tensor, tile: int) -> Tensor:
    """Return G w Gᵀ of a kernel [out, in, k, k]: a matrix [in, out] for each of n² points."""
    _, g, _ = matrices(tile, weight.shape[2])
    return _rows(g, _columns(g, weight.permute(2, 3, 1, 0).contiguous())).flatten(0, 1)


def convolve_tiles(
    x: Tensor, kernels: Tensor, bias: Tensor | None, tile: int, data: Tensor | None = None
) -> Tensor:
    """Do what `winograd_conv2d` does, with `kernels` of `transform_kernel`, for no gradient.

    What the kernels are multiplied with is left in `data` [down, across, n, n, N, in], if given.
    """
    height, width = x.shape[2:]
    side = math.isqrt(len(kernels))
    taps = side - tile + 1
    a, _, b = matrices(tile, taps)
    down, across = tiles(height, width, tile)
    padded = _surround(x, taps // 2, down * tile + taps - 1, across * tile + taps - 1)
    y = x.new_empty(down * tile, across * tile, len(x), kernels.shape[2])
    for i in range(down):
        rows = _rows(b, padded[i * tile : i * tile + side])
        for j in range(across):
            seen = rows[:, j * tile : j * tile + side]
            points = _columns(b, seen, out=None if data is None else data[i, j])
            products = torch.bmm(points.flatten(0, 1), kernels)
            if bias is not None:
                products[side + 1] += bias  # the point (1, 1) reaches each output once
            made = _columns(a, _rows(a, _grid(products)))
            y[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile] = made
    return _as_images(y[:height, :width])


def tiles(height: int, width: int, tile: int) -> tuple[int, int]:
    """Return how many tiles an image needs downwards and across."""
    return -(-height // tile), -(-width // tile)


class _Winograd(torch.autograd.Function):
    """y = A ((G w Gᵀ) · (B x Bᵀ)) Aᵀ for each tile, and its derivatives.

    The dot multiplies matrices [N, in] and [in, out], one for each of the points.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tile: int) -> Tensor:
        (height, width), taps = x.shape[2:], weight.shape[2]
        kernels = transform_kernel(weight, tile)
        side = math.isqrt(len(kernels))
        data = x.new_empty(*tiles(height, width, tile), side, side, *x.shape[:2])
        y = convolve_tiles(x, kernels, bias, tile, data)
        ctx.save_for_backward(data, kernels)
        ctx.sizes = height, width, tile, taps
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        data, kernels = ctx.saved_tensors
        height, width, tile, taps = ctx.sizes
        down, across = data.shape[:2]
        a, g, b = (matrix.t().contiguous() for matrix in matrices(tile, taps))
        whole = _surround(gradient, 0, down * tile, across * tile)
        of_kernels = torch.zeros_like(kernels)
        of_padded = []
        for i in range(down):
            rows = _rows(a, whole[i * tile : (i + 1) * tile])
            of_rows = []
            for j in range(across):
                of_products = _columns(a, rows[:, j * tile : (j + 1) * tile]).flatten(0, 1)
                of_kernels.baddbmm_(data[i, j].flatten(0, 1).transpose(1, 2), of_products)
                if ctx.needs_input_grad[0]:
                    of_data = torch.bmm(of_products, kernels.transpose(1, 2))
                    of_rows.append(_columns(b, _grid(of_data)))
            if of_rows:
                of_padded.append(_rows(b, _join(of_rows, 1, tile)))
        of_x = None
        if of_padded:
            half = taps // 2
            found = _join(of_padded, 0, tile)
            of_x = _as_images(found[half : half + height, half : half + width])
        of_weight = _rows(g, _columns(g, _grid(of_kernels)))
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight.permute(3, 2, 0, 1), of_bias, None


def _rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix [m, n] with the first dimension of x [n, …]: [m, …]."""
    return (matrix @ x.reshape(len(x), -1)).view(len(matrix), *x.shape[1:])


def _columns(matrix: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply a matrix [m, n] with the second dimension of x [k, n, a, b]: [k, m, a, b]."""
    flat = None if out is None else out.flatten(2)
    found = torch.bmm(matrix.expand(len(x), -1, -1), x.flatten(2), out=flat)
    return found.view(*found.shape[:2], *x.shape[2:])


def _grid(points: Tensor) -> Tensor:
    """Turn [n², …] into [n, n, …]."""
    side = math.isqrt(len(points))
    return points.view(side, side, *points.shape[1:])


def _surround(x: Tensor, before: int, height: int, width: int) -> Tensor:
    """Turn x [N, C, h, w] into [height, width, N, C], with zeros before it and after it."""
    pixels = x.permute(2, 3, 0, 1)
    if pixels.shape[:2] == (height, width):
        return pixels.contiguous()
    inside = slice(before, before + pixels.shape[0]), slice(before, before + pixels.shape[1])
    whole = x.new_empty(height, width, *pixels.shape[2:])
    whole[:before] = 0
    whole[inside[0].stop :] = 0
    whole[:, :before] = 0
    whole[:, inside[1].stop :] = 0
    whole[inside] = pixels
    return whole


def _join(parts: list[Tensor], dim: int, step: int) -> Tensor:
    """Add tensors that lie `step` apart along a dimension, and overlap if they are longer."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    length = shape[dim]
    shape[dim] = (len(parts) - 1) * step + length
    whole = parts[0].new_zeros(shape)
    for k, part in enumerate(parts):
        whole.narrow(dim, k * step, length).add_(part)
    return whole


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
