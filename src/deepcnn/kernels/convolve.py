"""A convolution that keeps the image's size, and the one choice of how it is computed.

direct      the sum of the definition, by torch
matrix      one product without any padding, if each pixel sees all others
fourier     by Fourier transforms on a processor, see `fourier`
tiles       by Winograd's tiles on a processor, in float32 even if other layers are in bf16, see
            `winograd`
onednn      the direct sum; its result stays in oneDNN's own layout for the pooling that follows,
            see `onednn`
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.hardware import is_on_processor, multiplies_bf16
from deepcnn.kernels.fourier import fourier_conv2d, fourier_pays
from deepcnn.kernels.onednn import all_finite, onednn_conv2d, onednn_pays
from deepcnn.kernels.winograd import Tile, tile_that_pays, winograd_conv2d


class Way(NamedTuple):
    """How a convolution is computed; `tile`: rows and columns, if it is computed in tiles."""

    name: Literal["direct", "matrix", "fourier", "tiles", "onednn"]
    tile: Tile = (0, 0)


@functools.lru_cache(maxsize=1024)
def way_that_pays(
    image: torch.Size,
    weight: torch.Size,
    dtype: torch.dtype,
    *,
    even: bool = False,
    training: bool = True,
    to_pool: bool = False,
) -> Way:
    """Return the fastest way on a processor, of those that were measured.

    `image`: the shape [N, in, H, W]. `weight`: [out, in, k, k], float32. `dtype`: the type in which
    other layers compute. `even`: an odd last row and column are not needed. `training`: whether
    there will be derivatives. Without them, filters lie in oneDNN's own order, which makes the
    direct sum faster; then only large kernels are transformed. `to_pool`: only `SameMaxPool` uses
    the result.
    """
    taps = weight[2]
    if to_pool and onednn_pays(image, weight, dtype):
        return Way("onednn")
    if training and is_seen_whole(image, taps):
        return Way("matrix")
    if (training or taps > 3) and fourier_pays(image, weight, dtype):
        return Way("fourier")
    bf16 = dtype == torch.bfloat16 and (multiplies_bf16() or not training)
    tile = tile_that_pays(image, weight, even=even, backward=training, bf16=bf16)
    return Way("direct") if tile is None else Way("tiles", tile)


def same_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, even: bool = False, to_pool: bool = False
) -> Tensor:
    """Convolve with a square kernel of odd size, keeping the size (SAME).

    `x`: [N, in, H, W]. `weight`: [out, in, k, k]. `bias`: [out] or None. Returns [N, out, H, W].
    With `to_pool` the result is opaque (`is_mkldnn`) if this pays. `even`: an odd last row and
    column may be left out, since pooling by 2 follows.
    """
    dtype = computing_dtype(x)
    if is_on_processor(x) and weight.dtype == torch.float32:
        way = way_that_pays(x.shape, weight.shape, dtype, even=even, to_pool=to_pool)
        if way.name == "onednn" and (bias is None or not all_finite(x, weight, bias)):
            way = way_that_pays(x.shape, weight.shape, dtype, even=even)
    else:
        way = Way("matrix" if is_seen_whole(x.shape, weight.shape[2]) else "direct")
    if way.name == "matrix":
        return _by_matrix(x, weight, bias)
    if way.name == "direct":
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    with torch.autocast("cpu", enabled=False):
        if way.name == "fourier":
            return fourier_conv2d(x.to(dtype), weight, bias, even=even)
        if way.name == "tiles":
            return winograd_conv2d(x, weight, bias, way.tile, even=even)
        assert bias is not None
        return onednn_conv2d(x.to(dtype), weight.to(dtype), bias.to(dtype))


def is_seen_whole(image: torch.Size, taps: int) -> bool:
    """Tell whether each pixel of an image [N, C, H, W] sees all others through this many taps."""
    return max(image[2:]) <= taps // 2 + 1


def computing_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which a processor multiplies x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _by_matrix(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve images in which each pixel sees all others, without any product with padding."""
    count, _, height, width = images.shape
    middle = weight.shape[2] // 2
    by_pixel = weight.permute(0, 2, 3, 1)  # [outputs, kernel, kernel, inputs]
    seen = [
        by_pixel[:, middle - row : middle - row + height, middle - column :][:, :, :width]
        for row in range(height)
        for column in range(width)
    ]
    matrix = torch.stack(seen).flatten(2).flatten(0, 1)
    bias = None if bias is None else bias.repeat(height * width)
    y = F.linear(images.permute(0, 2, 3, 1).flatten(1), matrix, bias)
    return y.view(count, height, width, -1).permute(0, 3, 1, 2)
