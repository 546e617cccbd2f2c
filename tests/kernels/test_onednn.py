"""Images in oneDNN's own layout: the same results, where that was measured to pay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.kernels.onednn import is_suitable, onednn_conv2d, onednn_pays
from deepcnn.models.layers import SameMaxPool
from tests.helpers.definition import check, values_and_gradients


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 4), (3, 1)])
def test_onednns_own_layout_changes_no_result(height: int, width: int) -> None:
    torch.manual_seed(0)
    pool = SameMaxPool()

    def in_own_layout(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = onednn_conv2d(x, weight, bias)
        assert y.is_mkldnn
        assert y.shape == (3, 16, height, width)
        pooled: Tensor = pool(y)
        return pooled

    def in_torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = pool(F.conv2d(x, weight, bias, padding=2))
        return y

    arguments = [torch.randn(3, 5, height, width), torch.randn(16, 5, 5, 5), torch.randn(16)]
    weights = torch.randn(3, 16, -(-height // 2), -(-width // 2))
    check(in_own_layout, in_torchs, arguments, weights, 1e-5)
    # In bf16 which is the largest of a window depends on rounding, so only torch's is comparable.
    in_bf16 = [argument.bfloat16() for argument in arguments]
    found = values_and_gradients(in_own_layout, in_bf16, weights)
    expected = values_and_gradients(in_torchs, in_bf16, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()


@pytest.fixture
def another_processor() -> Iterator[None]:
    yield
    is_suitable.cache_clear()


@pytest.mark.usefixtures("another_processor")
def test_images_are_opaque_where_that_was_measured_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = torch.Size((128, 3, 24, 24)), torch.Size((64, 3, 5, 5))

    def pays(
        images: torch.Size = images,
        weight: torch.Size = weight,
        dtype: torch.dtype = torch.bfloat16,
    ) -> bool:
        is_suitable.cache_clear()
        return onednn_pays(images, weight, dtype)

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    assert pays()
    assert pays(dtype=torch.float32)
    assert not pays(dtype=torch.float64)
    assert not pays(torch.Size((64, 3, 24, 24)))
    assert not pays(torch.Size((128, 1, 28, 28)), torch.Size((64, 1, 5, 5)))
    assert not pays(torch.Size((256, 3, 32, 32)), torch.Size((20, 3, 5, 5)))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not pays()
    assert pays(dtype=torch.float32)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"neon": True})
    assert not pays(dtype=torch.float32)
