from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deepcnn.learning import objective


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=labels)
    expected = [0.47619047619047616, 1.3333333333333333, 6.666666666666667]
    weights = objective.balanced_weights(np.bincount(labels))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_classes_without_an_example_change_nothing_for_the_others() -> None:
    labels = np.repeat([0, 2, 3], [700, 250, 50])
    weights = objective.balanced_weights(np.bincount(labels, minlength=6))
    expected = objective.balanced_weights(np.array([700, 250, 50])).tolist()
    assert weights.tolist() == [expected[0], 0, expected[1], expected[2], 0, 0]
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert objective.balanced_weights(np.array([2, 0])).tolist() == [1, 0]


def test_weighted_loss_is_the_mean_over_examples_of_torchs() -> None:
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 0])
    weights = torch.tensor([0.5, 1.5, 4.0])
    found = objective.losses(nn.Identity(), logits, labels, class_weights=weights)
    expected = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / 9
    torch.testing.assert_close(found["cross_entropy"], expected)
