"""Rectangles in images, one for each."""

from __future__ import annotations

import torch
from torch import Tensor


def inside(
    row: Tensor,
    column: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    size: tuple[int, int],
) -> Tensor:
    """Tell which pixels lie in a rectangle: bool [B, *size].

    `row`, `column`: int64 [B], where the rectangle begins. `height`, `width`: int64 [B], or one
    number for all images; 0 for an empty rectangle.
    """
    device = row.device
    down = _within(torch.arange(size[0], device=device) - row[:, None], height)
    across = _within(torch.arange(size[1], device=device) - column[:, None], width)
    return down[:, :, None] & across[:, None]


def _within(index: Tensor, length: Tensor | int) -> Tensor:
    end = length if isinstance(length, int) else length[:, None]
    return (index >= 0) & (index < end)
