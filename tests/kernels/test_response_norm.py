"""Local response normalization after ReLU in one function, against its two steps in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deepcnn.kernels.response_norm import STEEP, near_one, times_power
from deepcnn.models.response_norm import LocalResponseNorm, ReLUResponseNorm
from tests.helpers.definition import check


def test_rectified_normalization_equals_its_two_steps() -> None:
    torch.manual_seed(0)
    x = 20 * torch.randn(20, 24, 12, 12)  # more than one block
    x[0, 0, 0, 0] = 0.0
    plain = LocalResponseNorm(24).double()
    check(
        ReLUResponseNorm(24),
        lambda x: plain(F.relu(x)),
        [x.contiguous(memory_format=torch.channels_last)],
        torch.randn(x.shape),
        1e-6,
    )


def test_rectified_normalization_is_the_same_in_any_memory_format_and_batch() -> None:
    norm = ReLUResponseNorm(16)
    x = torch.randn(5, 16, 3, 4)
    expected = norm(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(norm(x), expected)
    assert torch.allclose(torch.cat([norm(x[:2]), norm(x[2:])]), expected, rtol=1e-6)
    assert norm(x[:0]).shape == (0, 16, 3, 4)


@pytest.mark.parametrize("size", [1, 8, 20])  # the last is too large for a polynomial
def test_rectified_normalization_in_bf16_equals_its_two_steps_to_rounding(size: int) -> None:
    torch.manual_seed(0)
    x = (size * torch.randn(160, 24, 12, 12)).bfloat16()  # more than one block
    sums = F.conv2d(F.relu(x.float()).square(), LocalResponseNorm(24).band)
    assert (sums.max() > 0.25) == (size == 20)
    plain = LocalResponseNorm(24).double()
    check(
        ReLUResponseNorm(24),
        lambda x: plain(F.relu(x)),
        [x.contiguous(memory_format=torch.channels_last)],
        torch.randn(x.shape).bfloat16(),
        6e-3,  # one rounding is 4e-3
    )


def test_what_is_near_one_is_multiplied_with_its_power() -> None:
    sums = torch.linspace(0, STEEP * 0.25, 1001).bfloat16()
    q = near_one(sums)
    assert q is not None
    ones = torch.ones(1001)
    expected = (1 + sums.double() / STEEP) ** -0.75
    error = times_power(ones, q.float()).double() - expected
    assert error.abs().max() < 1e-3  # a quarter of a bit
    assert near_one(torch.tensor([0.0, STEEP * 0.2520]).bfloat16()) is None
    for value in (torch.nan, -torch.nan, torch.inf):
        found = ReLUResponseNorm(16)(torch.full((1, 16, 1, 1), value, dtype=torch.bfloat16))
        assert found.isnan().all()
    assert ReLUResponseNorm(16)(torch.ones(0, 16, 2, 2).bfloat16()).shape == (0, 16, 2, 2)


def test_rectified_normalization_in_lower_precision_is_the_plain_one() -> None:
    norm = ReLUResponseNorm(16)
    x = torch.randn(2, 16, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(x.float()).bfloat16())
