"""Views of an image, over which answers are averaged."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def shifted(central: Tensor) -> list[tuple[float, Tensor]]:
    """Return images shifted by a pixel up and left, and down and right, and their mirror images.

    `central`: [B, C, H, W]; it is reflected about its edge pixels. Each view has a weight of a
    quarter. (Jordan's airbench, 2024.)
    """
    height, width = central.shape[2:]
    padded = F.pad(central, (1, 1, 1, 1), mode="reflect")
    moved = [padded[:, :, i : i + height, i : i + width] for i in (0, 2)]
    return [(0.25, view) for view in [*moved, *(view.flip(3) for view in moved)]]


def ten_crops(images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Cut windows out at the centre and in the corners; return each, and its mirror image.

    `images`: [B, H, W, C]; `size`: of the windows. (Krizhevsky, Sutskever, Hinton: "ImageNet
    classification with deep convolutional neural networks", 2012.)
    """
    height, width = size
    down, across = images.shape[1] - height, images.shape[2] - width
    starts = [(down // 2, across // 2), (0, 0), (0, across), (down, 0), (down, across)]
    crops = [images[:, row : row + height, left : left + width] for row, left in starts]
    return [view for crop in crops for view in (crop, crop.flip(2))]
