from __future__ import annotations

import numpy as np
import torch

from deepcnn.models.response_norm import LocalResponseNorm


def test_normalization_equals_the_definition_in_float64() -> None:
    x = np.random.default_rng(0).normal(0, 30, (2, 20, 3, 3))
    expected = np.empty_like(x)
    for channel in range(20):
        window = x[:, max(0, channel - 4) : channel + 5]
        total = (window**2).sum(1)
        expected[:, channel] = x[:, channel] / (1 + 0.001 / 9 * total) ** 0.75
    found = LocalResponseNorm(20)(torch.from_numpy(x).float())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_normalization_keeps_float32_inside_lower_precision() -> None:
    x = torch.randn(2, 16, 4, 4)
    norm = LocalResponseNorm(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(x.bfloat16().float()).bfloat16())
