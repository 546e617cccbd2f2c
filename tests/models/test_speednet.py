from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.inputs.transform import Transform
from deepcnn.models.build import build_model
from deepcnn.models.network import smallest_side_of
from deepcnn.models.speednet import Speednet


def test_speednet_whitens_real_patches(cifar10_test: Arrays) -> None:
    transform = Transform.of(
        in_memory(cifar10_test), crop=1, pad=1, flip="none", contrast=None, standardize="dataset"
    )
    images = transform.evaluate(torch.from_numpy(cifar10_test.images[:5000]))
    model = build_model("speednet", shape=(3, 32, 32))
    assert isinstance(model, Speednet)
    model.initialize(images)
    with torch.no_grad():
        out = model.stem(images).permute(1, 0, 2, 3).flatten(1).double()
    second_moments = (out[:12] @ out[:12].t()) / out.shape[1]
    diagonal = second_moments.diagonal()
    assert torch.all((diagonal > 0.5) & (diagonal < 1.01))  # epsilon takes some of the faintest
    assert (second_moments - second_moments.diag().diag()).abs().max() < 1e-3
    assert torch.allclose(out[12:], -out[:12], atol=1e-4)


def test_speednets_filters_and_scales_are_no_parameters() -> None:
    model = build_model("speednet", shape=(3, 32, 32))
    blocks = [f"group{group}_{k}" for group, k in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1))]
    blocks += ["group3_2", "group3_3"]
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == [
        "stem.bias",
        *(f"{block}.{name}" for block in blocks for name in ("conv.weight", "norm.bias")),
        "head.weight",
    ]
    assert model(torch.zeros(4, 3, 32, 32)).shape == (4, 10)


def test_a_residual_group_adds_what_its_first_block_made() -> None:
    """Against torch's own functions, in the order of the literature."""
    model = build_model("residual_speednet", shape=(3, 32, 32), widths=(8, 12, 16), seed=1)
    assert isinstance(model, Speednet)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    model.initialize(images)

    def convolved(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, model.get_parameter(f"{name}.conv.weight"), padding=1)

    def normal(x: Tensor, name: str) -> Tensor:
        bias = model.get_parameter(f"{name}.norm.bias")
        return F.batch_norm(x, None, None, None, bias, training=True)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
        x = F.silu(F.conv2d(images, model.stem.weight, model.stem.bias))
        for group in ("group1", "group2", "group3"):
            x = F.silu(normal(F.max_pool2d(convolved(x, f"{group}_1"), 2), f"{group}_1"))
            first = x
            x = F.silu(normal(convolved(x, f"{group}_2"), f"{group}_2"))
            x = F.silu(normal(convolved(x, f"{group}_3"), f"{group}_3") + first)
        expected = F.linear(x.amax((2, 3)), model.head.weight) / 16
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filters", [5, 24, 30])
def test_the_first_layer_may_have_other_filters_the_strongest_of_the_usual_ones(
    filters: int,
) -> None:
    images = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images[:, 1:] += images[:, :1]
    usual = build_model("speednet", shape=(3, 12, 12), widths=(4, 4, 4))
    other = build_model("speednet", shape=(3, 12, 12), widths=(filters, 4, 4, 4))
    assert isinstance(usual, Speednet)
    assert isinstance(other, Speednet)
    usual.initialize(images)
    other.initialize(images)
    expected, found = usual.stem.weight, other.stem.weight
    assert found.shape == (filters, 3, 2, 2)
    if filters < 24:  # of rising variances, so the last of the first twelve
        assert torch.equal(found, torch.cat([expected[9:12], expected[21:23]]))
    else:
        assert torch.equal(found[:24], expected)
        assert not found[24:].any()
    assert other(images).shape == (40, 10)


def test_whitening_by_blocks_is_that_of_all_images_bit_for_bit() -> None:
    images = torch.randn(1200, 3, 9, 10, generator=torch.Generator().manual_seed(3))
    whole, parts = (build_model("speednet", shape=(3, 9, 10), seed=1) for _ in range(2))
    assert isinstance(whole, Speednet)
    assert isinstance(parts, Speednet)
    whole.initialize(images)
    parts.initialize_by_blocks(iter([images[:500], images[500:1000], images[1000:]]))
    assert torch.equal(whole.stem.weight, parts.stem.weight)


@pytest.mark.parametrize(("side", "pooled"), [(9, 3), (8, 2), (5, 2), (4, 1), (3, 1)])
def test_of_small_images_only_the_last_groups_halve(side: int, pooled: int) -> None:
    model = build_model("speednet", shape=(1, side, side + 3), widths=(4, 4, 4))
    assert isinstance(model, Speednet)
    halved = [isinstance(blocks[0].pool, nn.MaxPool2d) for blocks in model.groups()]
    assert halved == [False] * (3 - pooled) + [True] * pooled
    assert model(torch.zeros(2, 1, side, side + 3)).shape == (2, 10)
    assert smallest_side_of(model) == 2**pooled + 1
