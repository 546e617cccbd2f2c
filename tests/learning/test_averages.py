from __future__ import annotations

import numpy as np
import torch
from torch import nn

from deepcnn.learning.averages import LossAverages, ParameterAverages
from tests.helpers.parameters import OPEN, SHUT


def test_averages_of_parameters_equal_the_definition_in_float64() -> None:
    model = nn.Linear(3, 2)
    averages = ParameterAverages(model, 0.7)
    expected = model.weight.detach().double().numpy().copy()
    live_before = model.weight
    for n in range(1, 40):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(n)))
        averages.update(torch.tensor(averages.weight(n)), OPEN)
        decay = min(0.7, (1 + n) / (10 + n))  # the warm-up lasts until n = 20
        expected = decay * expected + (1 - decay) * model.weight.detach().double().numpy()
        np.testing.assert_allclose(averages.tensors["weight"], expected, rtol=1e-5, atol=1e-6)
    kept = averages.tensors["weight"].clone()
    averages.update(torch.tensor(0.3), SHUT)
    assert torch.equal(averages.tensors["weight"], kept)
    assert model.weight is live_before


def test_an_averaged_model_has_the_buffers_of_the_live_one_and_leaves_it_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    averages = ParameterAverages(model, 0.9)
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1)
    model(torch.randn(8, 3))
    averaged = averages.model(model).state_dict()
    assert torch.equal(averaged["1.running_mean"], model.get_buffer("1.running_mean"))
    assert torch.equal(averaged["0.weight"], averages.tensors["0.weight"])
    assert not torch.equal(averaged["0.weight"], model.get_parameter("0.weight"))


def test_averages_of_losses_are_debiased() -> None:
    averages = LossAverages(2)
    expected = np.zeros(2)
    for n in range(1, 30):
        values = np.array([1 / n, n])
        averages.update(torch.from_numpy(values).float())
        expected = 0.9 * expected + 0.1 * values
        np.testing.assert_allclose(averages.values(n), expected / (1 - 0.9**n), rtol=1e-5)
