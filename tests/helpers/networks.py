"""Networks that answer about CIFAR-10 as if they were trained, without the training."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.inference.answers import Answers
from deepcnn.inference.calibration import calibrate, margin_of
from deepcnn.inference.kinds import statistics_of
from deepcnn.inference.trained import Trained
from deepcnn.inputs.transform import Transform
from deepcnn.models.build import BUILDERS, network
from deepcnn.models.network import initialize
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import ModelConfig

HERE = Place(torch.device("cpu"), "fp32")
WIDTHS = {"tutorial": (8, 8, 16, 16), "mlp": (16, 16), "cuda_convnet": (8, 8, 6, 4)}
# Of each network and transform that a preset has, one; and what no preset has.
CASES = (
    "quick",
    "speedrun94",
    "speedrun96",
    "tutorial",
    "cuda_convnet",
    "mnist",
    "own",
    "odd sides",
)


class Plain(nn.Module):
    """A network of somebody's own, which knows nothing of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2), nn.GroupNorm(3, 12), nn.GELU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(images).flatten(2).mean(2))
        return found


def config_of(case: str) -> Config:
    """Return a configuration with few filters."""
    if case == "own":
        preset = presets.quick()
        inputs = dataclasses.replace(preset.inputs, views="mirrored", scales=())
        return dataclasses.replace(preset, model=ModelConfig("(Plain)"), inputs=inputs)
    if case == "odd sides":
        preset = presets.tutorial()
        inputs = dataclasses.replace(preset.inputs, crop=0.79, views="shifted")
        config = dataclasses.replace(preset, inputs=inputs)
    else:
        config = presets.PRESETS[case]()
    widths = WIDTHS.get(config.model.name, (8, 16, 16))
    return dataclasses.replace(config, model=ModelConfig(config.model.name, widths))


def of_channels(data: Arrays, case: str) -> Arrays:
    """Return images as a case has them: gray ones for MNIST's network."""
    images = data.images[..., 1:2] if case == "mnist" else data.images
    return dataclasses.replace(data, images=np.ascontiguousarray(images))


def as_trained(case: str, data: Arrays) -> Trained:
    """Return a network whose weights are not the initial ones, calibrated on `data`."""
    config = config_of(case)
    given = {f.name: getattr(config.inputs, f.name) for f in dataclasses.fields(config.inputs)}
    transform = Transform.of(in_memory(data), **given)
    own = None if config.model.name in BUILDERS else Plain()
    model = network(config.model, own, shape=transform.shape, classes=len(data.classes), seed=3)
    initialize(model, lambda: [transform.evaluate(torch.from_numpy(data.images))])
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                nn.init.kaiming_normal_(parameter, generator=generator)
            elif parameter.requires_grad:
                parameter.normal_(0, 0.1, generator=generator)
        spread = Answers(model, transform, HERE).logits(torch.from_numpy(data.images)).std(0).max()
        last = list(model.parameters())[-1 if config.model.name.endswith("speednet") else -2]
        last.mul_(3 / spread)  # so that answers are as sure as trained ones
    trained = Trained(config, TrainedOn(transform, data.classes), model, 7, False, None)
    return trained if case == "odd sides" else fit(trained, data)


def fit(trained: Trained, data: Arrays) -> Trained:
    """Return a network with a temperature, a margin and thresholds; half its answers are right."""
    images = torch.from_numpy(data.images)
    transform = trained.trained_on.transform
    answers = Answers(trained.model, transform, HERE)
    margin = margin_of(answers.first_look(images).numpy()) if transform.views == "unsure" else None
    answers.margin = margin
    logits = answers.logits(images).numpy()
    labels = np.where(np.arange(len(logits)) % 2, data.labels, logits.argmax(1))
    found = calibrate(
        logits,
        labels,
        step=7,
        averaged=False,
        split="test",
        margin=margin,
        statistics=statistics_of(data.images),
        error=0.4,
    )
    return dataclasses.replace(trained, calibration=found)
