"""Cropping, mirroring and standardizing on a GPU in one pass over memory.

torch's own functions gather single bytes, convert them to floats, and go over these three times.
The function is written for Triton, like those of `norm_silu.py`; see there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values that a program makes


def crop_and_standardize(
    images: Tensor,
    where: tuple[Tensor, Tensor, Tensor],
    size: tuple[int, int],
    *,
    pad: int,
    mean: Tensor,
    scale: Tensor,
) -> Tensor:
    """Cut and mirror windows as `crop.crop` does, and return (window - mean) · scale.

    `images`: uint8 [B, H, W, C]. `where`: row and column, int64 [B], and flip, bool [B]. `mean`,
    `scale`: float32 [C]. Returns float32 [B, C, *size], in channels_last memory.
    """
    count, full_height, full_width, channels = images.shape
    height, width = size
    out = torch.empty(
        *(count, channels, height, width),
        device=images.device,
        memory_format=torch.channels_last,
    )
    make_window[(count, triton.cdiv(channels * height * width, _BLOCK))](
        *(images.contiguous(), *where, mean, scale, out),
        *(full_height, full_width, height, width, pad),
        CHANNELS=channels,
        BLOCK=_BLOCK,
    )
    return out


@triton.jit
def make_window(
    images,
    row,
    column,
    flip,
    mean,
    scale,
    out,
    full_height,
    full_width,
    height,
    width,
    pad,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute some values of a window."""
    image = tl.program_id(0)
    value = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = value < height * width * CHANNELS
    channel, pixel = value % CHANNELS, value // CHANNELS
    down, across = pixel // width, pixel % width
    if tl.load(flip + image):
        across = width - 1 - across
    down = _reflect(tl.load(row + image).to(tl.int32) - pad + down, full_height)
    across = _reflect(tl.load(column + image).to(tl.int32) - pad + across, full_width)
    seen = images + image.to(tl.int64) * (full_height * full_width * CHANNELS)
    x = tl.load(seen + (down * full_width + across) * CHANNELS + channel, inside, other=0)
    x = (x.to(tl.float32) - tl.load(mean + channel)) * tl.load(scale + channel)
    tl.store(out + image.to(tl.int64) * (height * width * CHANNELS) + value, x, inside)


@triton.jit
def _reflect(index, size):
    """Mirror indices that lie up to size - 1 outside of [0, size) back into it."""
    return (size - 1) - tl.abs((size - 1) - tl.abs(index))
