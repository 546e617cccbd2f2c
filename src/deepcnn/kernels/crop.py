"""Cropping and mirroring images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def crop(
    images: Tensor,
    row: Tensor,
    column: Tensor,
    flip: Tensor,
    size: tuple[int, int],
    *,
    pad: int = 0,
) -> Tensor:
    """Cut a window out of each image, and mirror it left to right if `flip` is true for it.

    `images`: uint8 [B, H, W, C]. `row`, `column`: int64 [B], where the windows start in the padded
    images. These have `pad` more pixels at each edge, reflected about the edge pixels. Windows must
    lie inside. Returns uint8 [B, *size, C].
    """
    if images.device.type == "cpu":
        cropped = _crop_on_host(
            images.contiguous().numpy(), row.numpy(), column.numpy(), flip.numpy(), size, pad
        )
        return torch.from_numpy(cropped)
    return crop_by_index(images, row, column, flip, size, pad)


def crop_by_index(
    images: Tensor, row: Tensor, column: Tensor, flip: Tensor, size: tuple[int, int], pad: int
) -> Tensor:
    """Do the same as `crop` by one indexing of all pixels; this suits a GPU, and runs anywhere."""
    height, width = size
    rows = row[:, None] - pad + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device)
    columns = column[:, None] - pad + torch.where(flip[:, None], width - 1 - across, across)
    rows = _reflect(rows, images.shape[1])
    columns = _reflect(columns, images.shape[2])
    each = torch.arange(len(images), device=images.device)
    return images[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def _crop_on_host(
    images: NDArray[np.uint8],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    flip: NDArray[np.bool_],
    size: tuple[int, int],
    pad: int,
) -> NDArray[np.uint8]:
    """Do the same with NumPy, which copies whole rows of windows, not single values."""
    if pad:
        images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    count, full_height, full_width, channels = images.shape
    height, width = size
    by_image, by_row, by_pixel, _ = images.strides
    rows_of_windows = np.ndarray(  # all windows, overlapping, without a copy; NumPy checks bounds
        (count, full_height - height + 1, full_width - width + 1, height),
        np.dtype((np.void, width * channels)),
        buffer=images,
        strides=(by_image, by_row, by_pixel, by_row),
    )
    cropped = rows_of_windows[np.arange(count), row, column]
    pixels = cropped.view(np.dtype((np.void, channels))).reshape(count, height, width)
    mirrored = np.flatnonzero(flip)
    pixels[mirrored] = pixels[mirrored][:, :, ::-1]
    return pixels.view(np.uint8).reshape(count, height, width, channels)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices that are up to size - 1 outside of [0, size) back into this range."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
