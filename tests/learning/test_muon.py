from __future__ import annotations

import pytest
import torch

from deepcnn.learning import muon
from deepcnn.learning.muon import Muon, orthogonalize
from tests.helpers.parameters import OPEN, parameters


def test_muon_moves_along_the_orthogonal_factor() -> None:
    matrix = torch.randn(16, 36, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    for m, polar in ((matrix, u @ v), (matrix.t(), (u @ v).t())):
        (found,) = orthogonalize([m], 5)
        singular = torch.linalg.svdvals(found)
        assert singular.min() > 0.6
        assert singular.max() < 1.3
        # The same singular vectors: what is left after undoing the polar factor is symmetric.
        rest = found @ polar.t() if m is matrix else polar.t() @ found
        torch.testing.assert_close(rest, rest.t(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_matrices_are_orthogonalized_together_as_each_alone(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "kernels_are_dear", lambda _: on_gpu)
    generator = torch.Generator().manual_seed(3)
    # Three of them share their shorter side; on a GPU the last but one alone is too small for it.
    sizes = [(8, 20), (6, 9), (30, 8), (8, 12), (1, 7), (5, 5)]
    matrices = [torch.randn(size, generator=generator) for size in sizes]
    together = orthogonalize(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        (alone,) = orthogonalize([matrix])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_one_step_of_muon_equals_the_definition() -> None:
    filters = parameters((8, 4, 3, 3))
    p = filters["0"]
    before = p.detach().clone().double()
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    Muon(filters, learning_rate=0.1, momentum=0.6).step(torch.tensor(0.5), OPEN)
    x = (p.grad.double() * 1.6).reshape(8, 36)  # Nesterov: g + 0.6 · (0.6 · 0 + g)
    x = x / x.norm()
    for _ in range(3):
        gram = x @ x.t()
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    expected = before * 8**0.5 / before.norm() - 0.05 * x.reshape(p.shape)
    torch.testing.assert_close(p.detach().double(), expected, atol=1e-5, rtol=1e-5)
