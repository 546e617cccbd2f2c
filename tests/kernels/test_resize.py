from __future__ import annotations

import pytest
import torch

from deepcnn.kernels.resize import resize_by_products


@pytest.mark.parametrize("size", [(24, 24), (16, 16), (32, 9), (45, 32)])
def test_images_are_resized_on_a_gpu_as_on_a_processor(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randn(5, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    found = resize_by_products(images, size)
    expected = torch.nn.functional.interpolate(images, size, mode="bilinear")
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert found.stride() == expected.stride()
