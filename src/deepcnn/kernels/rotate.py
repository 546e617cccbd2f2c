"""Cropping images that are rotated first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_turned(
    images: Tensor,
    where: tuple[Tensor, Tensor, Tensor],
    angle: Tensor,
    size: tuple[int, int],
    *,
    pad: int = 0,
) -> Tensor:
    """Rotate each image about its centre, then cut a window out of it as `crop.crop` does.

    `images`: uint8 [B, H, W, C]. `where`: row and column, int64 [B], and flip, bool [B], as for
    `crop.crop`, also with `pad`. `angle`: float32 [B], in degrees, counterclockwise. A pixel of the
    window lies between four pixels of the image, and gets their bilinear mean, rounded to a whole
    number. Beyond its edges an image continues as its reflection about the edge pixels. Returns
    uint8 [B, *size, C].
    """
    row, column, flip = where
    height, width = images.shape[1:3]
    down = row[:, None] - pad + torch.arange(size[0], device=images.device)
    across = torch.arange(size[1], device=images.device)
    across = column[:, None] - pad + torch.where(flip[:, None], size[1] - 1 - across, across)
    # From the centre, the place in the turned image, and for it the one in the image.
    y = (down - (height - 1) / 2)[:, :, None]
    x = (across - (width - 1) / 2)[:, None, :]
    radians = torch.deg2rad(angle)[:, None, None]
    cosine, sine = radians.cos(), radians.sin()
    # `grid_sample` wants the corners' pixels at -1 and 1.
    grid = torch.stack(
        [
            (cosine * x - sine * y) * (2 / max(width - 1, 1)),
            (sine * x + cosine * y) * (2 / max(height - 1, 1)),
        ],
        3,
    )
    pixels = images.permute(0, 3, 1, 2).contiguous().to(torch.float32)
    turned = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=True)
    return turned.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
