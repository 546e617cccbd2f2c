"""The parts of a training that are made before its first step."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deepcnn.config import Config
from deepcnn.data.source import Source
from deepcnn.devices import Place
from deepcnn.errors import ConfigError
from deepcnn.hardware import keep_freed_memory, plain_products
from deepcnn.inputs.transform import Transform
from deepcnn.models.network import INITIAL_BLOCK, INITIAL_IMAGES, initialize, smallest_side_of
from deepcnn.team.team import Team


def set_up(team: Team, config: Config) -> Place:
    """Make the settings of the whole process, and choose where to compute."""
    if config.deterministic:  # cuBLAS reads it at its first product, and without it torch refuses
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # takes a second
        torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic  # few shapes, each many times
    keep_freed_memory()
    return team.place(config.device, config.precision, config.threads)


def transform_of(config: Config, source: Source) -> Transform:
    """Return how images become the network's input, with the statistics of the training set."""
    return Transform.of(source, **dataclasses.asdict(config.inputs))


def fit(transform: Transform, config: Config, model: nn.Module) -> Transform:
    """Limit the scaling of images to the smallest size that the network can take."""
    least = smallest_side_of(model)
    if config.inputs.scales and least is None:
        raise ConfigError(
            f"inputs.scales: the network {config.model.name} takes images of one size; leave it "
            "empty"
        )
    return dataclasses.replace(transform, least_side=least or 1)


def initialize_from(model: nn.Module, transform: Transform, source: Source, place: Place) -> None:
    """Set the initial weights that are made from the data, computed on the training's device."""

    def blocks() -> Iterator[Tensor]:
        for some in source.first_blocks(INITIAL_IMAGES, INITIAL_BLOCK):
            yield transform.evaluate(torch.from_numpy(some).to(place.device))

    with plain_products(place.device):
        initialize(model, blocks)
