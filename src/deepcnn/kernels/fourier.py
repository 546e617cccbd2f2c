"""Convolutions by Fourier transforms, in float32 or bf16 on a processor.

A convolution with k × k taps needs k² products for each pixel. After a discrete Fourier transform
it needs one product for each frequency (Mathieu, Henaff, LeCun: "Fast Training of Convolutional
Networks through FFTs", 2014). The transform is over H + k - 1 rows and W + k - 1 columns, with
zeros beyond the image. Pixels are real, so half of the frequencies determine the others. A product
of complex numbers is three products of real ones (Gauss). So there are 1.5 (H + k - 1) (W + k - 1)
products instead of H W k²; for 12 × 12 pixels and 5 × 5 taps, 384 instead of 3600. (Zlateski, Jia,
Li, Durand: "FFT Convolutions are Faster than Winograd on Modern CPUs, Here is Why", 2018.) Each of
them is a product of matrices, [N, in] and [in, out].

A transform preserves lengths, up to a factor. So rounding errors do not grow on the way, as they do
with the tiles of `winograd`, and all of it can be in bf16. Images are small, so no "fast" transform
is used. A transform is a product of a small matrix with a long one: first for all rows together,
then, for each pair of rows, for all columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepcnn.hardware import multiplies_bf16
from deepcnn.kernels.pixels import in_rows, result_size, room

# Measured on two cores with AVX-512: what must be saved, times channels; of how many images, since
# small matrices are not multiplied fast; and of what size at most, since a transform that is not a
# fast one takes longer for each pixel of a larger image. With few taps tiles take less time in
# float32, and in bf16 where one of them covers the image.
_WORTH, _FEWEST, _LARGEST, _FEW_TAPS, _ONE_TILE = 150.0, 32, 32, 3, 7


def fourier_pays(image: torch.Size, weight: torch.Size, dtype: torch.dtype) -> bool:
    """Tell whether `fourier_conv2d` is faster than the direct sum and than tiles.

    `image`: the shape [N, in, H, W]. `weight`: [out, in, k, k]. `dtype`: the type to compute in.
    The saving grows with the product of the numbers of channels, the cost of the transforms with
    their sum.
    """
    count, _, height, width = image
    outputs, inputs, taps, _ = weight
    bf16 = dtype == torch.bfloat16 and multiplies_bf16()
    if not bf16 and (dtype != torch.float32 or taps <= _FEW_TAPS):
        return False
    side = max(height, width)
    if side > _LARGEST or (taps <= _FEW_TAPS and side <= _ONE_TILE):
        return False
    products = math.prod(_lengths((height, width), taps)) * 3 // 2
    saved = taps * taps * height * width / products - 1
    return count >= _FEWEST and saved * inputs * outputs >= _WORTH * (inputs + outputs)


def fourier_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, *, even: bool = False) -> Tensor:
    """Convolve with a square kernel of odd size k > 1, keeping the size (SAME).

    `x`: float32 or bf16 [N, in, H, W]. `weight`: [out, in, k, k]. `bias`: [out] or None. Both are
    float32. `even`: leave out an odd last row and column, which pooling by 2 does not use.
    Everything is computed in the type of `x`. Returns [N, out, H, W] of this type, in channels_last
    memory. The error (root mean square, in units of the result) is 3e-7 in float32, like that of
    the direct sum. In bf16 it is 5e-3; the direct sum has 2e-3.
    """
    result: Tensor = _Fourier.apply(x, weight, bias, even)  # type: ignore[no-untyped-call]
    return result


def transform_kernel(weight: Tensor, image: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return the matrices for images of size `image`: [planes, in, out] of `dtype`.

    `weight`: [out, in, k, k].
    """
    outputs, inputs, taps, _ = weight.shape
    by_tap = weight.permute(2, 3, 1, 0).reshape(taps * taps, -1).to(dtype)
    return (_transforms(image, image, taps, dtype).kernel @ by_tap).view(-1, inputs, outputs)


def convolve_pixels(pixels: Tensor, kernels: Tensor, bias: Tensor | None, taps: int) -> Tensor:
    """Do the same as `fourier_conv2d`, without gradients, with the images in the third dimension.

    `pixels`: [H, W, N, in]. `kernels`: from `transform_kernel`. Returns [H, W, N, out], with one
    row after another in memory if this is so for `pixels`.
    """
    image = pixels.shape[0], pixels.shape[1]
    return _convolve(pixels, kernels, bias, _transforms(image, image, taps, pixels.dtype))[0]


class _Fourier(torch.autograd.Function):
    """y = C ((G w) · (A x)): A and G are transforms, the dot multiplies matrices, C goes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, even: bool) -> Tensor:
        count, _, height, width = x.shape
        outputs, _, taps, _ = weight.shape
        size = result_size(x.shape, even=even)
        kernels = transform_kernel(weight, (height, width), x.dtype)
        transforms = _transforms((height, width), size, taps, x.dtype)
        pixels, planes = _convolve(x.permute(2, 3, 0, 1), kernels, bias, transforms)
        y = x.new_empty(count, *size, outputs)
        y.permute(1, 2, 0, 3).copy_(pixels)
        ctx.save_for_backward(planes, kernels)
        # What comes back lies in memory as x does, so that nobody need reorder it.
        ctx.of_x = x.shape, torch.empty_like(x, device="meta").stride()
        ctx.of_weight = taps, weight.dtype
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        planes, kernels = ctx.saved_tensors
        shape, strides = ctx.of_x
        taps, dtype = ctx.of_weight
        count, inputs, height, width = shape
        size = gradient.shape[2], gradient.shape[3]
        transforms = _transforms((height, width), size, taps, gradient.dtype)
        of_x: Tensor | None = None
        of_bias: Tensor | None = None
        with torch.autocast("cpu", enabled=False):
            of_y = in_rows(gradient.permute(2, 3, 0, 1), planes.shape[1], gradient.dtype)
            of_products = _to_planes(transforms.of_y, of_y)
            of_kernels = torch.bmm(planes.transpose(1, 2), of_products)
            of_weight = (transforms.kernel.t() @ of_kernels.flatten(1)).to(dtype)
            if ctx.needs_input_grad[2]:  # the sum over all pixels is the first frequency
                of_bias = of_products[0].sum(0, dtype=dtype) * transforms.pixels
            if ctx.needs_input_grad[0]:
                of_planes = torch.bmm(of_products, kernels.transpose(1, 2))
                of_x = gradient.new_empty_strided(shape, strides)
                of_pixels = _from_planes(transforms.of_x, of_planes)[:, :, :count]
                of_x.permute(2, 3, 0, 1).copy_(of_pixels)
        of_weight = of_weight.view(taps, taps, inputs, -1).permute(3, 2, 0, 1)
        return of_x, of_weight, of_bias, None


def _convolve(
    pixels: Tensor, kernels: Tensor, bias: Tensor | None, transforms: _Transforms
) -> tuple[Tensor, Tensor]:
    """Return [H, W, N, out], and the matrices that the kernels were multiplied with."""
    count = pixels.shape[2]
    images = room(pixels, kernels.shape[1:], pixels.dtype)
    planes = _to_planes(transforms.x, in_rows(pixels, images, pixels.dtype))
    products = torch.bmm(planes, kernels)
    if bias is not None:  # the same for all pixels, so it is of the first frequency alone
        products[0] += bias * transforms.pixels
    return _from_planes(transforms.y, products)[:, :, :count], planes


class _Transform(NamedTuple):
    """From pixels to planes, or back, as two products one after the other.

    The frequencies of rows come in pairs: the real and the imaginary part of one frequency. The
    first pair is the lowest and the highest frequency, which are real. A plane holds the factors of
    one product of real numbers.
    """

    rows: Tensor  # [2 · pairs, H] or [H, 2 · pairs]
    columns: Tensor  # [pairs, planes / pairs, 2 · W] or [pairs, 2 · W, planes / pairs]


class _Transforms(NamedTuple):
    """All matrices for images of one size; "of" marks those of the way back."""

    x: _Transform  # pixels to planes
    y: _Transform  # planes to pixels
    of_y: _Transform  # pixels to planes
    of_x: _Transform  # planes to pixels
    kernel: Tensor  # [planes, k²]
    pixels: int  # how many, with the zeros beyond the image


def _to_planes(transform: _Transform, pixels: Tensor) -> Tensor:
    """Take pixels [H, W, N, C], in rows, to [planes, N, C]."""
    height, _, *rest = pixels.shape
    rows = transform.rows @ pixels.view(height, -1)
    planes = torch.bmm(transform.columns, rows.view(*transform.columns.shape[::2], -1))
    return planes.view(-1, *rest)


def _from_planes(transform: _Transform, planes: Tensor) -> Tensor:
    """Take [planes, N, C] to pixels [H, W, N, C]."""
    rest = planes.shape[1:]
    rows = torch.bmm(transform.columns, planes.view(*transform.columns.shape[::2], -1))
    pixels = transform.rows @ rows.view(transform.rows.shape[1], -1)
    return pixels.view(len(pixels), -1, *rest)


@functools.lru_cache
def _transforms(
    image: tuple[int, int], size: tuple[int, int], taps: int, dtype: torch.dtype
) -> _Transforms:
    """Return the transforms for images [H, W], a result of that `size`, and `taps` × `taps`."""
    height, width = image
    down, across = _lengths(image, taps)
    middle = np.arange(taps) - taps // 2
    waves_down, waves_across = _waves(down, np.arange(height)), _waves(across, np.arange(width))
    of_taps_down, of_taps_across = _waves(down, -middle), _waves(across, -middle)

    pairs, planes = down // 2, 3 * across
    rows = np.stack([waves_down.real, waves_down.imag], 1)[:pairs]
    rows[0, 1] = waves_down[pairs].real
    rows_back = rows * (2 / down)  # each frequency stands for its mirror image too
    rows_back[0] /= 2
    seen, made = np.zeros((2, pairs, planes, 2, width))
    kernel = np.zeros((pairs, planes, taps, taps))
    used = [0] * pairs
    for pair, factors, of_row, of_column in _frequencies(down, across):
        wave = np.outer(factors, waves_across[of_column])
        tap = np.outer(of_taps_down[of_row], of_taps_across[of_column])
        is_real = pair == 0 and of_column in (0, across // 2)
        share = (2 if pair == 0 and not is_real else 1) / across
        for of_wave, of_tap, of_result in _products(wave, tap, is_real=is_real):
            place = pair, used[pair]
            seen[place], kernel[place], made[place] = of_wave, of_tap, share * of_result
            used[pair] += 1

    def transform(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> _Transform:
        matrices = np.ascontiguousarray(rows), np.ascontiguousarray(columns)
        return _Transform(*(torch.tensor(matrix, dtype=dtype) for matrix in matrices))

    rows, rows_back = rows.reshape(down, height), rows_back.reshape(down, height)[:, : size[0]]
    made = made[..., : size[1]].reshape(pairs, planes, -1)
    seen = seen.reshape(pairs, planes, -1)
    return _Transforms(
        x=transform(rows, seen),
        y=transform(rows_back.T, made.swapaxes(1, 2)),
        of_y=transform(rows_back, made),
        of_x=transform(rows.T, seen.swapaxes(1, 2)),
        kernel=torch.tensor(kernel.reshape(-1, taps * taps), dtype=dtype),
        pixels=down * across,
    )


def _lengths(image: tuple[int, int], taps: int) -> tuple[int, int]:
    """Return the length of transforms over rows and columns: even, so the highest wave is real."""
    height, width = image
    return (height + taps) // 2 * 2, (width + taps) // 2 * 2


def _frequencies(down: int, across: int) -> Iterator[tuple[int, tuple[complex, complex], int, int]]:
    """Yield every frequency that is not another's mirror image: that of rows, that of columns.

    Before these two come the pair of rows, and the factors that make this frequency's row of them.
    """
    for of_column in range(across // 2 + 1):
        yield 0, (1, 0), 0, of_column
        yield 0, (0, 1), down // 2, of_column
    for pair in range(1, down // 2):
        for of_column in range(across):
            yield pair, (1, 1j), pair, of_column


def _products(
    wave: NDArray[np.complex128], tap: NDArray[np.complex128], *, is_real: bool
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each real product what it takes from image and kernel, and what it gives.

    (a + bi) (c + di) = p - r + (p + q) i, p = (a + b) c, q = a (d - c), r = b (c + d).
    """
    if is_real:
        return [(wave.real, tap.real, wave.real)]
    return [
        (wave.real + wave.imag, tap.real, wave.real + wave.imag),
        (wave.real, tap.imag - tap.real, wave.imag),
        (wave.imag, tap.real + tap.imag, -wave.real),
    ]


def _waves(length: int, places: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Return the transform's matrix: e^(-2πi f p / length) for each frequency f and place p."""
    matrix: NDArray[np.complex128] = np.exp(
        -2j * np.pi / length * np.outer(np.arange(length), places)
    )
    return matrix
