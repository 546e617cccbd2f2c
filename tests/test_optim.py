from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deepcnn.learning import objective
from deepcnn.learning import optimizers as optim
from deepcnn.learning.averages import LossAverages, ParameterAverages

OPEN, SHUT, ONE = torch.tensor(True), torch.tensor(False), torch.ones(())


def parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        str(i): nn.Parameter(torch.randn(shape, generator=generator))
        for i, shape in enumerate(shapes)
    }


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.85, 0.004)])
def test_sgd_equals_torchs(momentum: float, weight_decay: float) -> None:
    ours, theirs = parameters((5, 3), (7,)), parameters((5, 3), (7,))
    rate = 0.2
    sgd = optim.SGD(ours, learning_rate=rate, momentum=momentum, weight_decay=weight_decay)
    oracle = torch.optim.SGD(
        theirs.values(),
        lr=rate,
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=weight_decay / rate,
    )
    for step in range(10):
        factor = 1 - step / 10
        oracle.param_groups[0]["lr"] = rate * factor
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad = torch.sin(a.detach() * 3 + step)
            b.grad = torch.sin(b.detach() * 3 + step)
        sgd.step(torch.tensor(factor), OPEN)
        oracle.step()
    for a, b in zip(ours.values(), theirs.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_muon_moves_along_the_orthogonal_factor() -> None:
    matrix = torch.randn(16, 36, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    for m, polar in ((matrix, u @ v), (matrix.t(), (u @ v).t())):
        (found,) = optim.orthogonalize([m], 5)
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
    monkeypatch.setattr(optim, "kernels_are_dear", lambda _: on_gpu)
    generator = torch.Generator().manual_seed(3)
    # Three of them share their shorter side; on a GPU the last but one alone is too small for it.
    sizes = [(8, 20), (6, 9), (30, 8), (8, 12), (1, 7), (5, 5)]
    matrices = [torch.randn(size, generator=generator) for size in sizes]
    together = optim.orthogonalize(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        (alone,) = optim.orthogonalize([matrix])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


def test_one_step_of_muon_equals_the_definition() -> None:
    filters = parameters((8, 4, 3, 3))
    p = filters["0"]
    before = p.detach().clone().double()
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    optim.Muon(filters, learning_rate=0.1, momentum=0.6).step(torch.tensor(0.5), OPEN)
    x = (p.grad.double() * 1.6).reshape(8, 36)  # Nesterov: g + 0.6 · (0.6 · 0 + g)
    x = x / x.norm()
    for _ in range(3):
        gram = x @ x.t()
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    expected = before * 8**0.5 / before.norm() - 0.05 * x.reshape(p.shape)
    torch.testing.assert_close(p.detach().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sgd", "decaying sgd", "muon"])
def test_a_shut_gate_leaves_no_trace_of_a_bad_gradient(kind: str) -> None:
    filters = parameters((8, 4, 3, 3))
    decaying: Any = functools.partial(optim.SGD, weight_decay=0.1)
    make = {"sgd": optim.SGD, "decaying sgd": decaying, "muon": optim.Muon}[kind]
    optimizer = make(filters, learning_rate=0.1, momentum=0.9)
    p = filters["0"]
    p.grad = torch.ones_like(p)
    optimizer.step(ONE, OPEN)
    weight, momentum = p.detach().clone(), optimizer.tensors["0"].clone()
    p.grad = torch.full_like(p, float("nan"))
    optimizer.step(ONE, SHUT)
    assert torch.equal(p, weight)
    assert torch.equal(optimizer.tensors["0"], momentum)
    p.grad = None
    optimizer.step(ONE, OPEN)
    assert torch.equal(p, weight)


def test_schedules() -> None:
    steps = (0, 136_717, 136_718, 273_435, 273_436)
    found = [optim.staircase(step, decay_steps=136_718, factor=0.1) for step in steps]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert [optim.linear(step, steps=4) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]


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


def test_losses_equal_the_definition_in_float64() -> None:
    class Penalized(nn.Module):
        penalties = {"a.weight": 0.004, "b.weight": 0.5}  # noqa: RUF012

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


def test_an_answer_that_is_not_a_number_is_never_right() -> None:
    logits = torch.tensor([[2.0, 1.0], [1.0, 2.0], [float("nan"), 0.0], [0.0, float("inf")]])
    assert int(objective.count_correct(logits, torch.tensor([0, 0, 0, 1]))) == 1


@pytest.mark.parametrize("make", [optim.SGD, optim.Muon])
def test_what_learns_until_half_time_learns_as_in_half_a_training(
    make: type[optim.SGD] | type[optim.Muon],
) -> None:
    weights = []
    for until, steps in ((0.5, 20), (1.0, 10)):
        generator = torch.Generator().manual_seed(0)
        parameter = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator))
        optimizer = make({"w": parameter}, learning_rate=0.3, momentum=0.6, until={"w": until})
        for step in range(12):
            parameter.grad = torch.randn(4, 3, 2, 2, generator=generator)
            factor = torch.tensor(optim.linear(step, steps=steps))
            optimizer.step(factor, torch.tensor(True))
            if step == 9:
                before = parameter.detach().clone()
        if make is optim.SGD:  # Muon also scales to its norm, whatever the rate
            assert torch.equal(parameter, before)
        weights.append(parameter.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
