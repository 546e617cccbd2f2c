from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from deepcnn.learning import schedules
from deepcnn.learning.muon import Muon
from deepcnn.learning.optimizers import SGD
from tests.helpers.parameters import ONE, OPEN, SHUT, parameters


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.85, 0.004)])
def test_sgd_equals_torchs(momentum: float, weight_decay: float) -> None:
    ours, theirs = parameters((5, 3), (7,)), parameters((5, 3), (7,))
    rate = 0.2
    sgd = SGD(ours, learning_rate=rate, momentum=momentum, weight_decay=weight_decay)
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


@pytest.mark.parametrize("kind", ["sgd", "decaying sgd", "muon"])
def test_a_shut_gate_leaves_no_trace_of_a_bad_gradient(kind: str) -> None:
    filters = parameters((8, 4, 3, 3))
    decaying: Any = functools.partial(SGD, weight_decay=0.1)
    make = {"sgd": SGD, "decaying sgd": decaying, "muon": Muon}[kind]
    optimizer = make(filters, learning_rate=0.1, momentum=0.9)
    p = filters["0"]
    p.grad = torch.ones_like(p)
    optimizer.step(ONE, OPEN)
    weight, momentum = p.detach().clone(), optimizer.tensors["momentum"]["0"].clone()
    p.grad = torch.full_like(p, float("nan"))
    optimizer.step(ONE, SHUT)
    assert torch.equal(p, weight)
    assert torch.equal(optimizer.tensors["momentum"]["0"], momentum)
    p.grad = None
    optimizer.step(ONE, OPEN)
    assert torch.equal(p, weight)


@pytest.mark.parametrize("make", [SGD, Muon])
def test_what_learns_until_half_time_learns_as_in_half_a_training(
    make: type[SGD] | type[Muon],
) -> None:
    weights = []
    for until, steps in ((0.5, 20), (1.0, 10)):
        generator = torch.Generator().manual_seed(0)
        parameter = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator))
        optimizer = make({"w": parameter}, learning_rate=0.3, momentum=0.6, until={"w": until})
        for step in range(12):
            parameter.grad = torch.randn(4, 3, 2, 2, generator=generator)
            factor = torch.tensor(schedules.linear(step, steps=steps))
            optimizer.step(factor, torch.tensor(True))
            if step == 9:
                before = parameter.detach().clone()
        if make is SGD:  # Muon also scales to its norm, whatever the rate
            assert torch.equal(parameter, before)
        weights.append(parameter.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
