"""Layers: what is convolved in oneDNN's own layout, pooled and normalized, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.kernels.onednn import onednn_pays
from deepcnn.kernels.winograd import tile_that_pays
from deepcnn.models.layers import LateReLU, LateReLUToPool, SameMaxPool
from deepcnn.models.response_norm import ReLUResponseNorm


@pytest.mark.parametrize(("height", "width"), [(24, 24), (25, 25), (24, 25), (5, 4), (1, 2)])
def test_pooling_pads_like_tensorflows_same(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    found = SameMaxPool()(x)
    rows, columns = -(-height // 2), -(-width // 2)
    assert found.shape == (2, 3, rows, columns)
    top = max((rows - 1) * 2 + 3 - height, 0) // 2
    left = max((columns - 1) * 2 + 3 - width, 0) // 2
    for r in range(rows):
        for c in range(columns):
            y0, x0 = 2 * r - top, 2 * c - left
            window = x[:, :, max(y0, 0) : y0 + 3, max(x0, 0) : x0 + 3]
            assert torch.equal(found[:, :, r, c], window.amax((2, 3)))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_large_first_layer_is_opaque_until_it_is_pooled(bf16: bool) -> None:
    torch.manual_seed(0)
    own, usual, pool = LateReLUToPool(3, 64, 5), LateReLU(3, 64, 5), SameMaxPool()
    usual.load_state_dict(own.state_dict())
    images, weights = torch.randn(112, 3, 25, 24), torch.randn(112, 64, 13, 12)

    def results(layer: LateReLU, images: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", enabled=bf16):
            y = pool(layer(images))
        return [y.detach(), *torch.autograd.grad(y, [*layer.parameters()], weights.to(y.dtype))]

    with torch.autocast("cpu", enabled=bf16):
        dtype = torch.bfloat16 if bf16 else torch.float32
        assert own(images).is_mkldnn == onednn_pays(images.shape, own.weight.shape, dtype)
    found = results(own, images)
    if not bf16:
        usual, images = usual.double(), images.double()
    for ours, expected in zip(found, results(usual, images), strict=True):
        assert (ours - expected).norm() < (5e-3 if bf16 else 5e-6) * expected.norm()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("where", ["image", "weight", "bias"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pooling_hides_no_failure(bf16: bool, where: str, bad: float) -> None:
    torch.manual_seed(0)
    layer, pool = LateReLUToPool(3, 64, 5), SameMaxPool()
    images = torch.randn(128, 3, 24, 24)
    with torch.no_grad():
        (images if where == "image" else layer.get_parameter(where)).flatten()[40] = bad
    with torch.autocast("cpu", enabled=bf16):
        y = pool(layer(images))
        expected = pool(F.conv2d(images, layer.weight, layer.bias, padding=2))
    assert not y.isfinite().all()
    assert torch.equal(y.isnan(), expected.isnan())


def test_rows_and_columns_may_be_exchanged_in_memory() -> None:
    torch.manual_seed(0)
    turned = torch.randn(40, 12, 12, 64).permute(0, 3, 2, 1)  # [N, C, H, W], in memory [N, W, H, C]
    images = [x.detach().requires_grad_() for x in (turned, turned.contiguous())]
    layer, norm = LateReLU(64, 64, 5), ReLUResponseNorm(64)
    assert tile_that_pays(turned.shape, layer.weight.shape) is not None
    results = []
    for x in images:
        y = norm(x)
        z = layer(y)
        results.append((y, z, *torch.autograd.grad(z.sum(), [y, x])))
    y, _, of_y, of_x = results[0]
    assert y.stride() == of_y.stride() == of_x.stride() == turned.stride()
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-5)
