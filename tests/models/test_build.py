from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from deepcnn.errors import ConfigError
from deepcnn.models.build import build_given, build_model, name_of, network
from deepcnn.settings import ModelConfig


@pytest.mark.parametrize("name", ["tutorial", "speednet", "residual_speednet"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 24, 33)])
def test_networks_take_other_sizes_channels_and_classes(
    name: str, shape: tuple[int, int, int]
) -> None:
    model = build_model(name, shape=shape, classes=7)
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet"},
            "expected one of tutorial, speednet, .*mlp, cuda_convnet, found 'resnet'",
        ),
        ({"name": "tutorial", "widths": (1, 2)}, "has 4 .* found 2"),
        ({"name": "speednet", "widths": (1, 2)}, "has 3 groups, found 2"),
        ({"name": "speednet", "shape": (3, 2, 32)}, "at least 3 pixels a side, found 2 by 32"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(**arguments)  # type: ignore[arg-type]


def test_parameters_are_in_channels_last_memory() -> None:
    for name in ("tutorial", "speednet"):
        for module in build_model(name, shape=(3, 32, 32)).modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_makes_a_network_is_told_what_it_has_parameters_for() -> None:
    told: dict[str, Any] = {}

    def shape_only(shape: Any) -> nn.Module:
        told.update(shape=shape)
        return network_of_four()

    def two(widths: Any, *, classes: Any) -> nn.Module:
        told.update(widths=widths, classes=classes)
        return network_of_four()

    def everything(**settings: Any) -> nn.Module:
        told.update(settings)
        return network_of_four()

    offered: dict[str, Any] = {"shape": (3, 8, 8), "classes": 4, "widths": (5, 6), "seed": 7}
    makers: list[tuple[Callable[..., nn.Module], set[str]]] = [
        (network_of_four, set()),
        (shape_only, {"shape"}),
        (two, {"widths", "classes"}),
        (everything, set(offered)),
    ]
    for make, asks in makers:
        told.clear()
        build_given(make, **offered)
        assert told == {name: offered[name] for name in asks}


def network_of_four() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def test_a_module_is_taken_as_it_is_with_its_filters_in_the_order_that_is_fast() -> None:
    conv = nn.Conv2d(3, 4, 5)
    given = nn.Sequential(conv, nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    weight = conv.weight.detach().clone()
    model = build_given(given, shape=(3, 8, 8), classes=4)
    assert model is given
    assert not model.training
    assert torch.equal(conv.weight, weight)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_networks_are_called_as_they_can_be_imported_and_others_in_parentheses() -> None:
    def local() -> nn.Module:
        return nn.Linear(1, 1)

    assert name_of("package.module:make") == "package.module:make"
    assert name_of(build_model) == "deepcnn.models.build:build_model"
    assert name_of(nn.Linear) == "torch.nn.modules.linear:Linear"
    assert name_of(nn.Linear(1, 1)) == "(Linear)"
    assert name_of(local).startswith("(test_networks_are_called")
    assert name_of(lambda: nn.Linear(1, 1)).endswith("<lambda>)")
    local.__module__, local.__qualname__ = "__main__", "make"
    assert name_of(local) == "(make)"
    for given in ("package.module:make", build_model, nn.Linear(1, 1), local):
        ModelConfig(name_of(given))  # can be stored


def test_a_stored_name_is_only_imported_where_it_is_given_again() -> None:
    about: Any = {"shape": (3, 8, 8), "classes": 4}
    assert isinstance(network(ModelConfig("mlp"), None, **about), nn.Module)
    with pytest.raises(ConfigError, match="Its code only runs if you name it again"):
        network(ModelConfig("os:getcwd"), None, **about)
    with pytest.raises(ConfigError, match=r"came from Python, \(Linear\)"):
        network(ModelConfig("(Linear)"), None, **about)
    given = network_of_four()
    assert network(ModelConfig("(Sequential)"), given, **about) is given
    with pytest.raises(ConfigError, match=r"found 'speednett'. Did you mean speednet\?"):
        ModelConfig("speednett")
