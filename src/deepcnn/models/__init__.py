"""The networks, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.models.mlp import MLP
from deepcnn.models.speednet import ResidualSpeednet, Speednet
from deepcnn.models.tutorial import Tutorial

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "tutorial": Tutorial,
    "speednet": Speednet,
    "residual_speednet": ResidualSpeednet,
    "mlp": MLP,
}


@runtime_checkable
class FitsImages(Protocol):
    """A network some of whose initial weights are made from the data."""

    def initialize(self, images: Tensor) -> None:
        """Set them from undistorted training input [N, C, H, W], before the first step."""


def build_model(
    name: str,
    *,
    shape: tuple[int, int, int] = (3, 24, 24),
    classes: int = 10,
    widths: tuple[int, ...] = (),
    seed: int = 0,
) -> nn.Module:
    """Build a network with its initial weights, a function of `seed`, in channels_last memory.

    `shape`: channels, height and width of its input; `widths`: the filters or units of its
    layers, or empty for those of the literature. Raises ConfigError for an unknown name, or
    widths and a shape that do not fit the network.
    """
    if name not in BUILDERS:
        raise ConfigError(f"model: expected one of {', '.join(BUILDERS)}, found {name!r}")
    model = BUILDERS[name](shape=shape, classes=classes, widths=widths, seed=seed)
    for parameter in model.parameters():
        if parameter.ndim == 4:  # the fast order of a convolution's filters
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
