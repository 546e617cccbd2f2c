"""Adam, AdamW and RMSProp against torch's, and what a shut gate leaves of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcnn.config import Config
from deepcnn.learning import optimizers, schedules
from deepcnn.learning.adam import Adam
from deepcnn.learning.assembly import make_optimizers
from deepcnn.learning.optimizers import SGD, Optimizer
from deepcnn.learning.rmsprop import RMSProp
from tests.helpers.parameters import ONE, OPEN, SHUT, parameters
from tests.helpers.tiny import TINY, with_optimizer

RATE = 2**-6  # with the factors of `STEPS` steps it is exact in float32
STEPS = 32
PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "adam": (
        functools.partial(Adam, beta1=0.8),
        functools.partial(torch.optim.Adam, betas=(0.8, 0.999)),
    ),
    "adam, decay": (
        functools.partial(Adam, beta2=0.95, epsilon=1e-3, weight_decay=0.3),
        functools.partial(torch.optim.Adam, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.3),
    ),
    "adamw": (
        functools.partial(Adam, weight_decay=0.3 * RATE, decoupled=True),
        functools.partial(torch.optim.AdamW, weight_decay=0.3),
    ),
    "no mean": (
        functools.partial(Adam, beta1=0.0, beta2=0.5),
        functools.partial(torch.optim.Adam, betas=(0.0, 0.5)),
    ),
    "rmsprop": (RMSProp, torch.optim.RMSprop),
    "rmsprop, decay": (
        functools.partial(RMSProp, beta2=0.9, epsilon=1e-3, momentum=0.8, weight_decay=0.3),
        functools.partial(torch.optim.RMSprop, alpha=0.9, eps=1e-3, momentum=0.8, weight_decay=0.3),
    ),
    "plain momentum": (
        functools.partial(SGD, momentum=0.9, nesterov=False, weight_decay=0.3 * RATE),
        functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=0.3),
    ),
}


def gradient(parameter: Tensor, step: int) -> Tensor:
    """Return a gradient that depends on the weights, and changes its sign now and then."""
    return torch.sin(parameter.detach() * 3 + step / 4)


def as_type(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    made = parameters((5, 3), (7,), (4, 3, 3, 3))
    return {name: nn.Parameter(p.detach().to(dtype)) for name, p in made.items()}


@pytest.mark.parametrize("dear", [False, True])  # as on a processor, and as on a GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_each_equals_torchs(
    name: str, dtype: torch.dtype, dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "kernels_are_dear", lambda _: dear)
    make, make_torchs = PAIRS[name]
    ours, theirs = as_type(dtype), as_type(dtype)
    before = [p.detach().clone() for p in ours.values()]
    mine, oracle = make(ours, learning_rate=RATE), make_torchs(theirs.values(), lr=RATE)
    for step in range(STEPS):
        factor = 1 - step / STEPS
        oracle.param_groups[0]["lr"] = RATE * factor
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad, b.grad = gradient(a, step), gradient(b, step)
        mine.step(torch.tensor(factor), OPEN)
        oracle.step()
    for a, b, first in zip(ours.values(), theirs.values(), before, strict=True):
        assert (a - first).abs().mean() > 0.02
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


GROUPS: dict[str, tuple[dict[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ({"momentum": 0.9}, functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "adam": ({}, torch.optim.Adam),
    "adamw": ({"beta1": 0.8}, functools.partial(torch.optim.AdamW, betas=(0.8, 0.999))),
    "rmsprop": ({"momentum": 0.0}, torch.optim.RMSprop),
}


@pytest.mark.parametrize("method", GROUPS)
def test_groups_with_rates_and_decay_of_their_own_equal_torchs(method: str) -> None:
    """The last layer's weights, biases, and the one layer that decays each have another rate."""
    settings, make_torchs = GROUPS[method]
    rates = {"learning_rate": 0.01, "head_learning_rate": 0.05, "bias_learning_rate": 0.02}
    share = method in ("sgd", "adamw")
    changes = {"method": method, "weight_decay": 0.003, "decayed": ("first", "head.w")}
    config = with_optimizer(TINY, **settings, **rates, **changes)
    ours, theirs = network(), network()
    made = make_optimizers(config, ours)
    assert len(made) == 5  # weights and biases, both with decay and without, and the last weights
    groups = []
    for name, parameter in theirs.named_parameters():
        kind = "head_" if name == "head.weight" else "bias_" if name.endswith("bias") else ""
        rate = rates[f"{kind}learning_rate"]
        decays = name.startswith(("first", "head.w"))
        decay = 0.003 / (rate if share else 1) if decays else 0.0
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    oracle = make_torchs(groups)
    for step in range(20):
        for model in (ours, theirs):
            for parameter in model.parameters():
                parameter.grad = gradient(parameter, step)
        for optimizer in made:
            optimizer.step(ONE, OPEN)
        oracle.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential()
    for name, layer in {
        "first": nn.Linear(4, 5),
        "second": nn.Linear(5, 5),
        "head": nn.Linear(5, 3),
    }.items():
        model.add_module(name, layer)
    return model


@pytest.mark.parametrize("dear", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_a_shut_gate_changes_nothing_at_all(
    name: str, dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first update, and after some: it is as if the step had never been."""
    monkeypatch.setattr(optimizers, "kernels_are_dear", lambda _: dear)
    make, _ = PAIRS[name]
    weights = parameters((5, 3), (7,))
    undisturbed = parameters((5, 3), (7,))
    optimizer, other = (make(p, learning_rate=0.1) for p in (weights, undisturbed))
    for step in range(4):
        for values in (float("nan"), float("inf"), 2.0):
            before = remembered(optimizer, weights)
            for parameter in weights.values():
                parameter.grad = torch.full_like(parameter, values)
            optimizer.step(ONE, SHUT)
            for now, then in zip(remembered(optimizer, weights), before, strict=True):
                assert torch.equal(now, then)
        for each, of_each in ((optimizer, weights), (other, undisturbed)):
            for parameter in of_each.values():
                parameter.grad = gradient(parameter, step)
            each.step(torch.tensor(0.0 if step == 2 else 0.5), OPEN)
    for a, b in zip(remembered(optimizer, weights), remembered(other, undisturbed), strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


def remembered(optimizer: Optimizer, weights: dict[str, nn.Parameter]) -> list[Tensor]:
    """Return copies of the weights and of all that the optimizer holds."""
    kept: Iterable[Tensor] = [t for kind in optimizer.tensors.values() for t in kind.values()]
    count = [] if optimizer.updates is None else [optimizer.updates]
    return [t.detach().clone() for t in (*weights.values(), *kept, *count)]


@pytest.mark.parametrize("make", [Adam, RMSProp])
def test_what_learns_until_half_time_learns_as_in_half_a_training(
    make: type[Adam | RMSProp],
) -> None:
    weights = []
    for until, steps in ((0.5, 20), (1.0, 10)):
        parameter = nn.Parameter(torch.linspace(-1, 1, 12))
        optimizer = make({"w": parameter}, learning_rate=0.1, until={"w": until})
        for step in range(12):
            parameter.grad = gradient(torch.linspace(-1, 1, 12), step)
            optimizer.step(torch.tensor(schedules.linear(step, steps=steps)), OPEN)
        weights.append(parameter.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["adam", "adamw", "rmsprop"])
def test_a_method_takes_what_muon_leaves(method: str) -> None:
    config: Config = with_optimizer(TINY, method=method, muon_learning_rate=0.1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    *others, muon = make_optimizers(config, model)
    assert [*muon.tensors["momentum"]] == ["0.weight"]
    named = [[*each.tensors["squares"]] for each in others]
    assert named == [["0.bias", "1.weight", "1.bias"]]
