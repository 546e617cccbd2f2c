from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from deepcnn.learning import objective
from deepcnn.models.network import Network


def test_losses_equal_the_definition_in_float64() -> None:
    class Penalized(Network):
        penalties: ClassVar[Mapping[str, float]] = {"a.weight": 0.004, "b.weight": 0.5}

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    model = Penalized()
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 5
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    z = logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    for smoothing in (0.0, 0.2):
        found = objective.losses(model, logits, labels, label_smoothing=smoothing)
        target = np.full((6, 3), smoothing / 3)
        target[np.arange(6), labels] += 1 - smoothing
        entropy = -(target * log_p).sum(1).mean()
        a, b = (0.5 * float((w.weight.detach().double() ** 2).sum()) for w in (model.a, model.b))
        expected = [entropy, 0.004 * a, 0.5 * b, entropy + 0.004 * a + 0.5 * b]
        assert list(found) == ["cross_entropy", "a/weight_loss", "b/weight_loss", "total_loss"]
        np.testing.assert_allclose([float(v.detach()) for v in found.values()], expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 4.0]])
def test_the_loss_of_mixed_examples_is_their_classes_losses_by_their_shares(
    smoothing: float, weights: list[float] | None
) -> None:
    """λ·L(a) + (1-λ)·L(b), each of a single label, smoothed and weighted, in float64."""
    rng = np.random.default_rng(0)
    z, count = rng.normal(size=(8, 3)) * 4, 8
    a, b, share = rng.integers(0, 3, count), rng.integers(0, 3, count), rng.random(count)
    share[0] = 1.0
    assert (a == b).any()
    assert (a != b).any()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))

    def loss(labels: NDArray[np.int64]) -> NDArray[np.float64]:
        target = np.full((count, 3), smoothing / 3)
        target[np.arange(count), labels] += 1 - smoothing
        each: NDArray[np.float64] = -(target * log_p).sum(1)
        return each if weights is None else each * np.array(weights)[labels]

    expected = (share * loss(a) + (1 - share) * loss(b)).mean()
    soft = share[:, None] * np.eye(3)[a] + (1 - share[:, None]) * np.eye(3)[b]

    def found(labels: torch.Tensor) -> float:
        losses = objective.losses(
            nn.Identity(),
            torch.from_numpy(z).float(),
            labels,
            label_smoothing=smoothing,
            class_weights=None if weights is None else torch.tensor(weights),
            weight=0.75,
        )
        return float(losses["cross_entropy"])

    assert found(torch.from_numpy(soft).float()) == pytest.approx(0.75 * expected, rel=1e-5)
    assert found(torch.eye(3)[a]) == pytest.approx(found(torch.from_numpy(a)), rel=1e-6)


def test_an_answer_that_is_not_a_number_is_never_right() -> None:
    logits = torch.tensor([[2.0, 1.0], [1.0, 2.0], [float("nan"), 0.0], [0.0, float("inf")]])
    assert int(objective.count_correct(logits, torch.tensor([0, 0, 0, 1]))) == 1


def test_of_a_mixed_example_the_class_with_the_largest_share_is_right() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    shares = torch.tensor([[0.6, 0.0, 0.4], [0.3, 0.7, 0.0], [1.0, 0.0, 0.0]])
    assert int(objective.count_correct(logits, shares)) == 2


@pytest.mark.parametrize(
    "counts", [[10, 10, 10], [1, 30, 5], [7, 0, 21], [0, 0, 3], [4, 0, 0, 0, 0, 6]]
)
def test_balanced_weights_are_one_on_average_over_the_examples(counts: list[int]) -> None:
    """Also where a class has no example: it takes no part."""
    found = objective.balanced_weights(np.array(counts))
    weights = found.double().numpy()
    assert (weights * counts).sum() / sum(counts) == pytest.approx(1, rel=1e-6)
    shares = [weight * count for weight, count in zip(weights, counts, strict=True) if count]
    assert shares == pytest.approx([shares[0]] * len(shares), rel=1e-6)  # each class as much
    assert [weight == 0 for weight in weights] == [count == 0 for count in counts]
    assert found.dtype == torch.float32
