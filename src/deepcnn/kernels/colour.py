"""Brightness, saturation and hue of images; the results are pictures again, 0 to 255."""

from __future__ import annotations

import torch
from torch import Tensor


def brighten(images: Tensor, amount: Tensor) -> Tensor:
    """Add an amount to each image, and clip to 0 to 255.

    `images`: uint8 [B, H, W, C]; `amount`: float32 [B]. Returns uint8 [B, H, W, C], rounded.
    """
    values = images.to(torch.float32).add_(amount[:, None, None, None])
    return values.clamp_(0, 255).round_().to(torch.uint8)


def recolour(images: Tensor, saturation: Tensor | None, turn: Tensor | None) -> Tensor:
    """Multiply the saturation of each image, turn its hue, or both; the value stays the same.

    Hue, saturation and value are those of a hexagonal cone (Smith: "Color gamut transform pairs",
    SIGGRAPH 1978), as in Python's `colorsys`, Pillow and TensorFlow. The value is the largest of
    red, green and blue. The saturation is the distance from the smallest to the largest, as a share
    of the largest.

    `images`: uint8 [B, H, W, 3]. `saturation`: float32 [B], the factors; 0 gives gray, and no
    saturation grows beyond 1. `turn`: float32 [B], shares of the colour circle, from red towards
    green, -1 to 1. Returns uint8 [B, H, W, 3], rounded.
    """
    planes = images.permute(3, 0, 1, 2).contiguous().to(torch.float32)
    top, chroma = planes.amax(0), planes.amax(0) - planes.amin(0)
    some = chroma.clamp_min(1)  # integers: it is 0 where a pixel is gray, and then nothing matters
    wanted = chroma
    if saturation is not None:
        wanted = torch.minimum(chroma * saturation[:, None, None], top)
    if turn is None:
        # what a colour has less than the largest shrinks or grows, all in the same proportion
        planes = top - (top - planes) * (wanted / some)
    else:
        hue = _hue(planes, top, some) + 6 * turn[:, None, None]
        planes = top - wanted * _missing(hue)
    return planes.round_().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def _hue(planes: Tensor, top: Tensor, chroma: Tensor) -> Tensor:
    """Return the hue in sixths of the circle, -1 to 5: 0 is red, 2 is green, 4 is blue."""
    red, green, blue = planes
    is_red, is_green = red == top, green == top
    apart = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    # without a number in `torch.where`, which a GPU would wait for
    sector: Tensor = (~is_red) * (4.0 - 2.0 * is_green)
    return apart / chroma + sector


def _missing(hue: Tensor) -> Tensor:
    """Return how much less than the largest red, green and blue are, as a share of the chroma.

    `hue`: in sixths of the circle, [B, H, W]. Returns [3, B, H, W], 0 to 1.
    """
    hue = hue - 6 * (hue / 6).floor()
    red = 2 - (hue - 3).abs()
    green = (hue - 2).abs() - 1
    blue = (hue - 4).abs() - 1
    return torch.stack([red, green, blue]).clamp_(0, 1)
