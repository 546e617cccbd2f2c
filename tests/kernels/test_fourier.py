"""Convolution by Fourier transforms, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.kernels.fourier import fourier_conv2d, fourier_pays
from tests.helpers.definition import check, values_and_gradients


@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 7), (6, 9), (1, 3), (4, 1), (2, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 4e-2)])
def test_fourier_equals_the_direct_sum(
    taps: int, height: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    check(
        fourier_conv2d,
        lambda x, w, b: F.conv2d(x, w, b, padding=taps // 2),
        [x, torch.randn(5, 6, taps, taps), torch.randn(5)],
        torch.randn(3, 5, height, width).to(dtype),
        tolerance,
    )


@pytest.mark.parametrize(("height", "width"), [(13, 7), (6, 9), (3, 2)])
def test_fourier_leaves_out_what_pooling_does_not_see(height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=torch.channels_last)
    rows, columns = height // 2 * 2, width // 2 * 2
    check(
        lambda x, w, b: fourier_conv2d(x, w, b, even=True),
        lambda x, w, b: F.conv2d(x, w, b, padding=1)[:, :, :rows, :columns],
        [x, torch.randn(5, 6, 3, 3), torch.randn(5)],
        torch.randn(3, 5, rows, columns),
        5e-6,
    )


def test_fourier_without_bias_or_gradient_of_the_images() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(3, 6, 9, 9), torch.randn(3, 5, 9, 9)
    check(
        lambda w: fourier_conv2d(x.to(w.dtype), w, None),
        lambda w: F.conv2d(x.to(w.dtype), w, padding=2),
        [torch.randn(5, 6, 5, 5)],
        weights,
        5e-6,
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 3), (3, 8), (8, 8)])
@pytest.mark.parametrize("images_last", [False, True])
def test_fourier_where_rows_would_be_whole_pages(
    inputs: int, outputs: int, images_last: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 128, inputs).permute(2, 3, 0, 1)  # rows of 4096 bytes
    check(
        fourier_conv2d,
        lambda x, w, b: F.conv2d(x, w, b, padding=2),
        [
            x if images_last else x.contiguous(),
            torch.randn(outputs, inputs, 5, 5),
            torch.randn(outputs),
        ],
        torch.randn(128, outputs, 4, 5),
        5e-6,
    )


@pytest.mark.parametrize(
    ("dtype", "stated", "times"), [(torch.float32, 3e-7, 1.3), (torch.bfloat16, 5e-3, 3.3)]
)
def test_fourier_rounds_as_its_documentation_says(
    dtype: torch.dtype, stated: float, times: float
) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(64, 64, 12, 12).relu().to(dtype), 0.05 * torch.randn(64, 64, 5, 5)
    arguments, weights = [x, w, torch.randn(64)], torch.randn(64, 64, 12, 12).to(dtype)

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=2)

    exact = values_and_gradients(direct, [a.double() for a in arguments], weights)
    found = values_and_gradients(fourier_conv2d, arguments, weights)
    rounded = values_and_gradients(direct, arguments, weights)
    for ours, theirs, value in zip(found, rounded, exact, strict=True):
        error = (ours - value).norm() / value.norm()
        assert 0.3 * stated < error < 1.3 * stated
        assert error < times * (theirs - value).norm() / value.norm()


def test_fourier_is_used_where_it_saves_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def pays(
        inputs: int,
        outputs: int,
        side: int,
        taps: int = 5,
        count: int = 128,
        dtype: torch.dtype = torch.float32,
    ) -> bool:
        image = torch.Size([count, inputs, side, side])
        return fourier_pays(image, torch.Size([outputs, inputs, taps, taps]), dtype)

    assert pays(64, 64, 12)  # the tutorial's conv2
    assert pays(32, 32, 12, taps=7)
    assert pays(64, 64, 6)
    assert not pays(3, 64, 24)  # its conv1 has too few channels
    assert not pays(16, 32, 12)
    assert not pays(64, 64, 4)  # tiles are faster
    assert pays(64, 64, 32)
    assert not pays(64, 64, 33)
    assert not pays(64, 64, 12, count=31)
    assert not pays(256, 256, 15, taps=3)  # so they are
    assert not pays(64, 64, 12, dtype=torch.float16)
    for has in (True, False):
        monkeypatch.setattr("deepcnn.kernels.fourier.multiplies_bf16", lambda has=has: has)
        assert pays(64, 64, 12, dtype=torch.bfloat16) is has
        assert pays(64, 256, 15, taps=3, dtype=torch.bfloat16) is has
        assert not pays(64, 64, 15, taps=3, dtype=torch.bfloat16)
        assert not pays(256, 256, 7, taps=3, dtype=torch.bfloat16)  # one tile is faster
