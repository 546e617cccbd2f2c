"""Random erasing: a rectangle of an image is filled with random values.

Zhong et al.: "Random erasing data augmentation", AAAI 2020 (arXiv 2017). The area and the aspect
ratio of the rectangle are those of the paper. The paper draws them again until the rectangle lies
inside. Here only rectangles that fit are drawn, so nothing is tried twice. The area is uniform, as
in the paper. The ratio is uniform on a logarithmic scale, so that tall and wide rectangles are
equally likely. The place is uniform.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcnn import hashing
from deepcnn.inputs.draws import Draws, open_uniform
from deepcnn.kernels.boxes import inside

AREA = (0.02, 0.4)  # share of the image
LEAST_ASPECT = 0.3  # height by width, as shares of the image's; at most the inverse

STREAMS = (
    hashing.ERASE,
    hashing.ERASE_AREA,
    hashing.ERASE_ASPECT,
    hashing.ERASE_ROW,
    hashing.ERASE_COLUMN,
    hashing.ERASE_KEY,
)


def draw(probability: float, size: tuple[int, int], bits: dict[int, Tensor]) -> dict[str, Tensor]:
    """Choose rectangles for crops of one size: the fields of `Draws` that begin with `erase`."""
    erased = hashing.unit(bits[hashing.ERASE]) < probability
    area = AREA[0] + (AREA[1] - AREA[0]) * open_uniform(bits[hashing.ERASE_AREA])
    # With shares h and w of the sides, area = h·w and aspect = h / w. Neither share is above 1
    # where the aspect is from `area` to its inverse.
    widest = area.clamp_min(LEAST_ASPECT).log()
    aspect = ((1 - 2 * open_uniform(bits[hashing.ERASE_ASPECT])) * widest).exp()
    sides = [
        (share.sqrt() * side).round().clamp(1, side).to(torch.int64)
        for share, side in zip((area * aspect, area / aspect), size, strict=True)
    ]
    return {
        "erase_row": hashing.below(size[0] - sides[0] + 1, bits[hashing.ERASE_ROW]),
        "erase_column": hashing.below(size[1] - sides[1] + 1, bits[hashing.ERASE_COLUMN]),
        "erase_height": sides[0] * erased,
        "erase_width": sides[1],
        "erase_key": bits[hashing.ERASE_KEY],
    }


def erase(crops: Tensor, draws: Draws) -> Tensor:
    """Fill the rectangles with random values, uniform from 0 to 255.

    `crops`: uint8 [B, H, W, C]; they are not changed. Returns uint8 [B, H, W, C].
    """
    assert draws.erase_row is not None
    assert draws.erase_column is not None
    assert draws.erase_height is not None
    assert draws.erase_width is not None
    assert draws.erase_key is not None
    height, width, channels = crops.shape[1:]
    words = math.ceil(height * width * channels / 8)  # a hash is good for eight values
    index = torch.arange(words, device=crops.device)
    random = hashing.bits(0, hashing.ERASE_VALUES, draws.erase_key[:, None], index[None])
    values = random.view(torch.uint8)[:, : height * width * channels].view(crops.shape)
    erased = inside(
        draws.erase_row,
        draws.erase_column,
        draws.erase_height,
        draws.erase_width,
        (height, width),
    )
    return torch.where(erased[..., None], values, crops)
