"""Contrast and standardization, as one scale and one offset for each channel.

The reference distorts a training image in this order: random crop, horizontal flip with
probability 1/2, brightness (add u), contrast (of each channel about its own mean, times f),
standardization (subtract the image's mean, divide by its deviation). Nothing is clipped, so
brightness has no effect: contrast keeps a channel's mean m_c + u, and standardization subtracts
u with the image's mean, whichever of the two comes first. With m the mean of all m_c, and v_c the
variance of channel c over the crop, all that is left is one scale and one offset per channel:

    out = (f * (x - m_c) + m_c - m) / max(sqrt(f² * mean(v_c) + mean((m_c - m)²)), 1 / sqrt(n))

with n the number of values in the crop. The sums are taken over integers and are exact; m_c is
subtracted first, so that an image without contrast becomes zeros and not rounding errors.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepcnn.data.source import Source

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def standardize(crops: Tensor, contrast: Tensor | None, statistics: Statistics | None) -> Tensor:
    """Apply `(x - centre) * scale + offset`, in three passes over memory that is still cached.

    `crops`: uint8 [B, H, W, C]. `contrast`: float32 [B], the factors, or None. `statistics`: mean
    and standard deviation of each channel of the data set, in pixel values of 0 to 255; None: those
    of each image alone. Returns float32 [B, C, H, W], in channels_last memory.
    """
    if contrast is None and torch.compiler.is_compiling():
        return _in_a_graph(crops, statistics)
    count, height, width, channels = crops.shape
    values = crops.to(torch.float32).reshape(count, height, width * channels)
    if statistics is None:
        sums, squares = channel_sums(values, channels), channel_sums(values.square(), channels)
        parts = image_moments(sums, squares, contrast, area=height * width)
    else:
        mean, std = (on_device(each, crops.device) for each in statistics)
        parts = torch.stack([mean, 1 / std, torch.zeros_like(mean)])[:, None]
        if contrast is not None:
            centre = channel_sums(values, channels) / (height * width)
            parts = torch.stack([centre, contrast[:, None] / std, (centre - mean) / std])
    # The same for each pixel of a row, since loops over the channels alone would be slow.
    centre, scale, offset = parts.repeat(1, 1, width)[:, :, None]
    values.sub_(centre).mul_(scale).add_(offset)
    return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def _in_a_graph(crops: Tensor, statistics: Statistics | None) -> Tensor:
    """Do the same without contrast, for a traced graph that other runtimes compute.

    All is in float32, since some runtimes have no int64 and no float64. Means are subtracted before
    anything is squared, so that nothing large cancels. They are taken of rows, then of columns, so
    that the mean of equal values is exact.
    """
    values = crops.to(torch.float32).permute(0, 3, 1, 2)
    if statistics is not None:
        mean, std = (torch.tensor(each)[:, None, None] for each in statistics)
        return (values - mean) / std
    values = values - _mean_of_each(values)
    deviation = _mean_of_each(values.square()).sqrt()
    return values / deviation.clamp_min(1 / math.sqrt(math.prod(values.shape[1:])))


def _mean_of_each(values: Tensor) -> Tensor:
    """Return the mean of each image of [N, C, H, W]: [N, 1, 1, 1]."""
    return values.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


@functools.lru_cache
def on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return constants as float32, copied to the device only once: a GPU waits for a copy."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def channel_sums(values: Tensor, channels: int) -> Tensor:
    """Sum each channel of integers in float32 [B, H, W·C] over the pixels: int64 [B, C], exact.

    Columns are summed first, in float32, which holds sums of 256 squared pixels exactly, in any
    order. Then few numbers are left for the slower sums of integers.
    """
    if values.shape[1] > 256:
        values = values.to(torch.float64)
    columns = values.sum(1).to(torch.int64)
    return columns.view(len(values), -1, channels).sum(1)


def image_moments(sums: Tensor, squares: Tensor, contrast: Tensor | None, *, area: int) -> Tensor:
    """Return m_c, the scale and the offset of this module's docstring: float32 [3, B, C].

    `sums`, `squares`: int64 [B, C], of the pixels and of their squares, over `area` pixels.
    """
    if sums.device.type == "cpu":  # NumPy is quicker where numbers are few
        factor = None if contrast is None else contrast.numpy().astype(np.float64)
        found = moments(sums.numpy(), squares.numpy(), factor, area)
        return torch.from_numpy(np.stack(found).astype(np.float32))
    return torch.stack(moments(sums, squares, contrast, area)).to(torch.float32)


def moments(sums: Any, squares: Any, factor: Any, area: int) -> tuple[Any, Any, Any]:
    """Do the arithmetic of `image_moments`, on NumPy arrays or torch tensors."""
    channels = sums.shape[1]
    of_sums = (sums * sums).sum(1)
    image = sums.sum(1)
    # `area²` times the variance of a channel, and `(channels * area)²` times the variance of the
    # channels' means: integers, so that nothing cancels.
    within = (area * squares.sum(1) - of_sums) / (channels * area**2)
    between = (channels * of_sums - image * image) / (channels * area) ** 2
    if factor is not None:
        within = factor * factor * within
    deviation = ((within + between) ** 0.5).clip(min=1 / math.sqrt(channels * area))
    scale = (1 if factor is None else factor) / deviation
    scale = scale[:, None] + 0.0 * sums  # the same for all channels: [B, C], as the others
    offset = (channels * sums - image[:, None]) / (channels * area * deviation[:, None])
    return sums / area, scale, offset


def statistics_of(source: Source) -> Statistics:
    """Return mean and population standard deviation of each channel over all pixels."""
    height, width, channels = source.shape
    total, squares = torch.zeros(2, height * width * channels, dtype=torch.float64)
    # So few images that float32 holds the sums of squares exactly, and the cache all there is.
    count = max(1, min(256, 2**20 // len(total)))
    for images, _ in source.blocks():
        for some in torch.split(torch.from_numpy(images).flatten(1), count):
            values = some.to(torch.float32)
            total += values.sum(0)
            squares += values.square_().sum(0)
    total, squares = (sums.view(-1, channels).sum(0) for sums in (total, squares))
    pixels = len(source) * height * width
    mean = total / pixels
    std = (squares / pixels - mean.square()).sqrt().clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())
