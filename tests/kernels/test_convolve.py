"""The convolution that keeps the size, whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.kernels.convolve import same_conv2d
from deepcnn.kernels.winograd import tile_that_pays
from tests.helpers.definition import check, values_and_gradients


def weights_of(inputs: int, outputs: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias as torch's own layer begins with them."""
    layer = nn.Conv2d(inputs, outputs, taps)
    assert layer.bias is not None
    return layer.weight.detach(), layer.bias.detach()


@pytest.mark.parametrize(("side", "even"), [(7, False), (7, True), (3, False)])
def test_tiles_are_more_precise_than_the_direct_sum_in_bf16(side: int, even: bool) -> None:
    inputs, outputs = 96, 128
    torch.manual_seed(0)
    weight, bias = weights_of(inputs, outputs, 3)
    x = torch.randn(64, inputs, side, side).relu().bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    assert tile_that_pays(x.shape, weight.shape, even=even, bf16=True) is not None
    size = side // 2 * 2 if even else side

    def tiled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return same_conv2d(x, weight, bias, even=even)

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)[:, :, :size, :size]

    arguments = [x, weight, bias]
    weights = torch.randn(64, outputs, size, size)
    with torch.autocast("cpu", torch.bfloat16):
        found = values_and_gradients(tiled, arguments, weights)
        rounded = values_and_gradients(direct, arguments, weights)
    exact = values_and_gradients(direct, [a.double() for a in arguments], weights)
    for ours, theirs, value in zip(found, rounded, exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - value).norm() < (theirs - value).norm() < 4e-3 * value.norm()


@pytest.mark.parametrize("taps", [3, 5])
def test_a_single_pixel_is_convolved_by_the_kernels_middle(taps: int) -> None:
    torch.manual_seed(0)
    check(
        same_conv2d,
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [torch.randn(3, 6, 1, 1), torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, 1, 1),
        1e-6,
    )


@pytest.mark.parametrize(("taps", "side"), [(3, 15), (5, 12)])  # by tiles, by transforms
def test_results_lie_as_torchs_own_do(taps: int, side: int) -> None:
    x = torch.randn(32, 64, side, side).contiguous(memory_format=torch.channels_last)
    weight, bias = weights_of(64, 64, taps)
    y = same_conv2d(x, weight, bias)
    assert y.is_contiguous(memory_format=torch.channels_last)
    direct = F.conv2d(x, weight, bias, padding=taps // 2)
    assert not torch.equal(y, direct)  # something else was used
    assert torch.allclose(y, direct, atol=1e-4)


@pytest.mark.parametrize(
    ("taps", "height", "width"), [(3, 1, 1), (3, 2, 2), (3, 1, 2), (3, 2, 1), (5, 3, 3), (5, 2, 3)]
)
def test_images_within_a_kernels_reach_are_convolved_as_by_definition(
    taps: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, height, width).contiguous(memory_format=torch.channels_last)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = same_conv2d(x, weight, bias)
        assert y.is_contiguous(memory_format=torch.channels_last)
        return y

    check(
        convolve,
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [x, *weights_of(3, 5, taps)],
        torch.randn(4, 5, height, width),
        1e-6,
    )
