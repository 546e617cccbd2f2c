from __future__ import annotations

import pytest
import torch

from deepcnn.kernels.crop import crop, crop_by_index


@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_crops_of_a_processor_and_of_a_gpu_are_the_same(pad: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(pad)
    images = torch.randint(0, 256, (200, 13, 17, channels), dtype=torch.uint8, generator=generator)
    size = (9, 12)
    row = torch.randint(0, 13 + 2 * pad - 9 + 1, (200,), generator=generator)
    column = torch.randint(0, 17 + 2 * pad - 12 + 1, (200,), generator=generator)
    flip = torch.rand(200, generator=generator) < 0.5
    assert torch.equal(
        crop(images, row, column, flip, size, pad=pad),
        crop_by_index(images, row, column, flip, size, pad),
    )
