from __future__ import annotations

import pytest
import torch
from torch import nn

from deepcnn.errors import ConfigError
from deepcnn.models.build import build_model


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
            "expected one of tutorial, speednet, residual_speednet, mlp, found 'resnet'",
        ),
        ({"name": "tutorial", "widths": (1, 2)}, "has 4 .* found 2"),
        ({"name": "speednet", "widths": (1, 2)}, "has 3 groups, found 2"),
        ({"name": "speednet", "shape": (3, 8, 32)}, "at least 9 pixels a side, found 8 by 32"),
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
