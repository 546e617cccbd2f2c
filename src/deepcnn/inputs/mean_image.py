"""The training set's mean image, which networks of 2009 to 2012 had subtracted from images.

Each value of the mean image is the mean of this value over all images. So what is usual at a place
is subtracted there. cuda-convnet crops the mean image around its centre, to the size of the
network's input. It subtracts this same piece from each crop, wherever the crop lies, and after
mirroring it (`convdata.py`). Here it is the same. The results are pixel values of -255 to 255,
neither divided nor clipped.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from deepcnn.data.source import Source


def mean_image_of(source: Source, size: tuple[int, int]) -> tuple[float, ...]:
    """Return the centre, of `size`, of a set's mean image, ordered by row, column, channel.

    The sums are exact; each mean is rounded once.
    """
    height, width, _ = source.shape
    total = torch.zeros(source.shape, dtype=torch.float64)
    for images, _ in source.blocks():
        for some in torch.split(torch.from_numpy(images), 256):  # float32 holds sums of 65,793
            total += some.to(torch.float32).sum(0)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    centre = total[top : top + size[0], left : left + size[1]] / len(source)
    return tuple(centre.flatten().tolist())


def without_mean_image(crops: Tensor, mean: tuple[float, ...], contrast: Tensor | None) -> Tensor:
    """Return crops without the mean image, float32 [B, C, H, W] in channels_last order.

    `crops`: uint8 [B, H, W, C]. `mean`: the mean image's centre of H × W × C values. `contrast`:
    float32 [B] or None; first, the distance of each value from the mean of its channel in the crop
    is multiplied by it.
    """
    values = crops.to(torch.float32)
    if contrast is not None:
        centre = values.mean((1, 2), keepdim=True)
        values = (values - centre) * contrast[:, None, None, None] + centre
    image = _as_image if torch.compiler.is_compiling() else _kept
    values = values - image(mean, crops.shape[1:], crops.device)
    return values.permute(0, 3, 1, 2)


def _as_image(mean: tuple[float, ...], shape: torch.Size, device: torch.device) -> Tensor:
    return torch.tensor(mean, dtype=torch.float32, device=device).view(shape)


# on a device once, since a GPU waits for each copy
_kept = functools.lru_cache(maxsize=8)(_as_image)
