"""What tiles and transforms share: matrices in which a row is one pixel of all images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CACHE_PERIOD = 4096  # bytes; after so many addresses an L1 cache starts anew


def result_size(image: torch.Size, *, even: bool) -> tuple[int, int]:
    """Return how many rows and columns the result of an image [N, C, H, W] has.

    `even`: without an odd last row and column.
    """
    height, width = image[2:]
    return (height // 2 * 2, width // 2 * 2) if even else (height, width)


def room(pixels: Tensor, channels: Sequence[int], dtype: torch.dtype) -> int:
    """Return for how many images there is room in `in_rows` of pixels [H, W, N, C].

    `channels`: of all matrices that will be multiplied. If rows are a multiple of 4 KiB apart, all
    values of a column share a few lines of the L1 cache, which cannot hold them all. Then there is
    room for one more image, unless pixels already lie as they should.
    """
    count = pixels.shape[2]
    aligned = any(count * some * dtype.itemsize % _CACHE_PERIOD == 0 for some in channels)
    as_it_lies = pixels.dtype == dtype and pixels.is_contiguous()
    return count + 1 if aligned and not as_it_lies else count


def in_rows(pixels: Tensor, images: int, dtype: torch.dtype) -> Tensor:
    """Return pixels [H, W, N, C] as [H, W, images, C] of `dtype`, row after row in memory.

    Images beyond N are zeros.
    """
    count = pixels.shape[2]
    if images == count:
        return pixels.to(dtype, memory_format=torch.contiguous_format).contiguous()
    values = pixels.new_empty(*pixels.shape[:2], images, pixels.shape[3], dtype=dtype)
    values[:, :, :count].copy_(pixels)
    values[:, :, count:].zero_()
    return values
