"""Layers that another training brought learn at rates of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from deepcnn.learning.assembly import make_optimizers
from deepcnn.models.build import build_model
from tests.helpers.parameters import ONE, OPEN
from tests.helpers.tiny import QUICK, TINY, with_optimizer

FACTOR = 0.2
TORCHS: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "sgd": ({"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": ({}, torch.optim.Adam, {}),
    "adamw": ({}, torch.optim.AdamW, {}),
    "rmsprop": ({"momentum": 0.5}, torch.optim.RMSprop, {"momentum": 0.5}),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3))


@pytest.mark.parametrize("method", TORCHS)
def test_they_learn_as_torchs_groups_with_lower_rates(method: str) -> None:
    """Torch multiplies the weight decay of SGD and AdamW with the rate of the group, too."""
    settings, make, options = TORCHS[method]
    rates = {"learning_rate": 0.01, "head_learning_rate": 0.05}
    changes = {"method": method, "weight_decay": 0.003, "old_layers_rate": FACTOR}
    config = with_optimizer(TINY, **{"momentum": 0.0, **settings, **rates, **changes})
    ours, theirs = network(), network()
    old = {"0.weight", "0.bias", "2.weight"}
    optimizers = make_optimizers(config, ours, old)
    groups = []
    for name, parameter in theirs.named_parameters():
        rate = rates["head_learning_rate" if name == "2.weight" else "learning_rate"]
        decay = 0.003 / (rate if method in ("sgd", "adamw") else 1)
        lower = rate * (FACTOR if name in old else 1)
        groups.append({"params": [parameter], "lr": lower, "weight_decay": decay})
    oracle = make(groups, **options)
    for step in range(10):
        for model in (ours, theirs):
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step(ONE, OPEN)
        oracle.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_muon_turns_old_filters_less_far() -> None:
    moved = {}
    for factor in (1.0, FACTOR):
        config = with_optimizer(QUICK, old_layers_rate=factor, freeze=())
        model = build_model("speednet", widths=(4, 4, 4), shape=(3, 16, 16), seed=1)
        filters = {n: p for n, p in model.named_parameters() if p.ndim == 4 and p.requires_grad}
        before = {n: p.detach() * len(p) ** 0.5 / p.detach().norm() for n, p in filters.items()}
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers = make_optimizers(
            config, model, {"group1_1.conv.weight", "group2_1.conv.weight"}
        )
        for optimizer in optimizers:
            optimizer.step(ONE, OPEN)
        moved[factor] = {name: p.detach() - before[name] for name, p in filters.items()}
    for name, whole in moved[1.0].items():
        is_old = name in ("group1_1.conv.weight", "group2_1.conv.weight")
        expected = whole * (FACTOR if is_old else 1)
        torch.testing.assert_close(moved[FACTOR][name], expected, rtol=1e-4, atol=1e-6)


def test_with_the_usual_rate_nothing_is_divided_otherwise() -> None:
    model = build_model("speednet", widths=(4, 4, 4), shape=(3, 16, 16))
    names = {name for name, _ in model.named_parameters()}
    with_old, without = make_optimizers(QUICK, model, names), make_optimizers(QUICK, model)
    assert [o.tensors["momentum"].keys() for o in with_old] == [
        o.tensors["momentum"].keys() for o in without
    ]
