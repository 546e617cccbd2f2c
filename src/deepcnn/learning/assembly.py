"""What a configuration asks for: optimizers, schedule, and the state before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from deepcnn.config import Config
from deepcnn.errors import ConfigError
from deepcnn.learning import objective, schedules
from deepcnn.learning.averages import LossAverages, ParameterAverages
from deepcnn.learning.muon import Muon
from deepcnn.learning.optimizers import SGD, Optimizer
from deepcnn.learning.state import TrainState

INITIAL_LOSS_SCALE = 2.0**16  # for fp16; halved at an overflow, doubled after many good steps

Schedule = Callable[[int], float]  # from a step to the factor of the learning rates


def make_state(config: Config, model: nn.Module) -> TrainState:
    """Make the state before the first step of a network with its initial weights."""
    averages = (
        ParameterAverages(model, config.average_decay) if config.average_decay is not None else None
    )
    return TrainState(
        model=model,
        optimizers=make_optimizers(config, model),
        averages=averages,
        loss_averages=LossAverages(len(objective.names(model))),
        failed=torch.full((), -1, dtype=torch.int64),
        loss_scale=torch.full((), INITIAL_LOSS_SCALE),
        good_steps=torch.zeros((), dtype=torch.int64),
    )


def make_schedule(config: Config, examples: int) -> Schedule:
    """Return the schedule; `examples`: of the training set, by which epochs are counted."""
    wanted = config.optimizer
    if wanted.schedule == "linear":
        return lambda step: schedules.linear(step, steps=config.steps)
    if wanted.drops:
        starts = [round(share * config.steps) for share in wanted.drops]
        return lambda step: schedules.drops(step, starts=starts, factor=wanted.decay_factor)
    decay_steps = max(1, math.floor(examples / config.batch_size * wanted.decay_epochs))
    return lambda step: schedules.staircase(
        step, decay_steps=decay_steps, factor=wanted.decay_factor
    )


def make_optimizers(config: Config, model: nn.Module) -> list[Optimizer]:
    """Give each trainable parameter to the optimizer that the configuration names for its kind.

    On the linear schedule the rates of layers that stop learning sooner reach 0 by then.
    """
    wanted = config.optimizer
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ConfigError("model: expected parameters that learn, found none")
    until = learn_until(config, model) if wanted.schedule == "linear" else {}
    filters = {n: p for n, p in trainable.items() if p.ndim == 4 and wanted.muon_learning_rate}
    found: list[Optimizer] = [
        SGD(
            parameters,
            learning_rate=rate,
            momentum=wanted.momentum,
            nesterov=wanted.nesterov,
            weight_decay=weight_decay,
            until=until,
        )
        for (rate, weight_decay), parameters in _groups(config, trainable, filters).items()
    ]
    if wanted.muon_learning_rate:
        found.append(
            Muon(
                filters,
                learning_rate=wanted.muon_learning_rate,
                momentum=wanted.muon_momentum,
                until=until,
            )
        )
    return found


def _groups(
    config: Config, trainable: Mapping[str, nn.Parameter], filters: Mapping[str, nn.Parameter]
) -> dict[tuple[float, float], dict[str, nn.Parameter]]:
    """Divide what is not Muon's by its initial learning rate and its weight decay."""
    wanted = config.optimizer
    names = [name for name in trainable if name not in filters]
    decayed = set(names)
    if wanted.decayed:
        found = [_beginning("decayed", layer, names, config) for layer in wanted.decayed]
        decayed = set().union(*found)
    head = list(trainable)[-1].rpartition(".")[0] + ".weight"
    groups: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name in names:
        rate = wanted.learning_rate
        if name == head:
            rate = wanted.head_learning_rate or rate
        elif name.rpartition(".")[2] == "bias":
            rate = wanted.bias_learning_rate or rate
        weight_decay = wanted.weight_decay if name in decayed else 0.0
        groups.setdefault((rate, weight_decay), {})[name] = trainable[name]
    return groups


def learn_until(config: Config, model: nn.Module) -> dict[str, float]:
    """Return the shares of the training after which parameters are fixed, by their names.

    The first layers settle first, and have the largest activations. Once they are fixed, the
    backward pass ends before them. (Brock et al.: "FreezeOut: accelerate training by
    progressively freezing layers", 2017.)
    """
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    until: dict[str, float] = {}
    for layer, share in config.optimizer.freeze:
        until |= dict.fromkeys(_beginning("freeze", layer, learning, config), share)
    return until


def _beginning(setting: str, layer: str, names: Sequence[str], config: Config) -> list[str]:
    """Return those names of parameters that begin with the name of a layer; there must be some."""
    found = [name for name in names if name.startswith(layer)]
    if not found:
        layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
        raise ConfigError(
            f"optimizer.{setting}: expected the beginning of the name of a layer that learns, in "
            f"{config.model.name} one of {layers}; found {layer!r}"
        )
    return found
