"""Makes what a configuration asks for: optimizers, schedule, and the first state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from deepcnn.config import Config
from deepcnn.errors import ConfigError
from deepcnn.learning import objective, schedules
from deepcnn.learning.adam import Adam
from deepcnn.learning.averages import LossAverages, ParameterAverages
from deepcnn.learning.muon import Muon
from deepcnn.learning.optimizers import SGD, Optimizer
from deepcnn.learning.rmsprop import RMSProp
from deepcnn.learning.state import TrainState
from deepcnn.settings import OptimizerConfig

ADAM_BETA2, RMSPROP_BETA2 = 0.999, 0.99  # as is usual, where the configuration says nothing
RATES = ("learning_rate", "head_learning_rate", "bias_learning_rate", "muon_learning_rate")
INITIAL_LOSS_SCALE = 2.0**16  # for fp16; halved at an overflow, doubled after many good steps

Schedule = Callable[[float], float]  # from a step to the factor of the learning rates


def make_state(config: Config, model: nn.Module, old: Collection[str] = ()) -> TrainState:
    """Make the state before the first step, for a network with its initial weights.

    `old`: the names of the parameters that come from another training.
    """
    averages = (
        ParameterAverages(model, config.average_decay) if config.average_decay is not None else None
    )
    losses = len(objective.names(model))
    return TrainState(
        model=model,
        optimizers=make_optimizers(config, model, old),
        averages=averages,
        loss_averages=LossAverages(losses),
        failed=torch.full((), -1, dtype=torch.int64),
        loss_scale=torch.full((), INITIAL_LOSS_SCALE),
        good_steps=torch.zeros((), dtype=torch.int64),
        finite=torch.ones(losses + len([*model.parameters()]), dtype=torch.bool),
    )


def make_schedule(config: Config, examples: int) -> Schedule:
    """Return the schedule; `examples`: of the training set, which define an epoch."""
    even = dataclasses.replace(config, steps=config.even_steps, pace=())
    warm = even.optimizer.warm_up * even.steps
    schedule = _schedule(even, examples, warm)
    if config.pace:
        return lambda step: _risen(config.even_step(step), warm) * schedule(config.even_step(step))
    if warm:
        return lambda step: _risen(step, warm) * schedule(step)
    return schedule


def _risen(step: float, warm: float) -> float:
    return schedules.warm_up(step, steps=warm) if warm else 1.0


def _schedule(config: Config, examples: int, warm: float) -> Schedule:
    """Return the schedule without its rise in the first `warm` steps."""
    wanted, steps = config.optimizer, config.steps
    match wanted.schedule:
        case "constant":
            return lambda _: 1.0
        case "linear":
            return lambda step: schedules.linear(step, steps=steps, start=warm)
        case "cosine":
            return lambda step: schedules.cosine(step, steps=steps, start=warm)
        case "one_cycle":
            return lambda step: schedules.one_cycle(step, steps=steps)
    if wanted.drops:
        starts = [round(share * steps) for share in wanted.drops]
        return lambda step: schedules.drops(step, starts=starts, factor=wanted.decay_factor)
    decay_steps = max(1, math.floor(examples / config.batch_size * wanted.decay_epochs))
    return lambda step: schedules.staircase(
        step, decay_steps=decay_steps, factor=wanted.decay_factor
    )


def slowed(config: Config, rollbacks: int) -> Config:
    """Return the configuration with the rates after this many rollbacks; each halves them.

    The weight decay of a step stays in proportion to the rate.
    """
    optimizer, factor = config.optimizer, 0.5**rollbacks
    changed: dict[str, Any] = {
        name: rate * factor for name in RATES if (rate := getattr(optimizer, name)) is not None
    }
    if optimizer.method in ("sgd", "adamw"):  # elsewhere the rate multiplies it
        changed["weight_decay"] = optimizer.weight_decay * factor
    return dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, **changed))


def make_optimizers(config: Config, model: nn.Module, old: Collection[str] = ()) -> list[Optimizer]:
    """Give each trainable parameter to the optimizer that the configuration names for its kind.

    Parameters of `old` layers, by name, learn at `old_layers_rate` times the rate of their kind. On
    the linear schedule, the rates of layers that stop learning sooner reach 0 when they stop. If
    the schedule begins with a rise, their rates are like all others.
    """
    wanted = config.optimizer
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ConfigError("model: expected parameters that learn, found none")
    falls = wanted.schedule == "linear" and not wanted.warm_up
    until = learn_until(config, model) if falls else {}
    filters = {n: p for n, p in trainable.items() if p.ndim == 4 and wanted.muon_learning_rate}
    slower = dict.fromkeys(old, wanted.old_layers_rate)
    groups = _groups(config, trainable, filters, slower)
    found: list[Optimizer] = [
        _optimizer(wanted, parameters, rate, weight_decay, until)
        for (rate, weight_decay), parameters in groups.items()
    ]
    return found + (_muons(wanted, filters, slower, until) if wanted.muon_learning_rate else [])


def _muons(
    wanted: OptimizerConfig,
    filters: Mapping[str, nn.Parameter],
    slower: Mapping[str, float],
    until: Mapping[str, float],
) -> list[Optimizer]:
    """Make Muon for the filters, one for each rate; `slower` has factors for some, by name."""
    by_factor: dict[float, dict[str, nn.Parameter]] = {} if filters else {1.0: {}}
    for name, parameter in filters.items():
        by_factor.setdefault(slower.get(name, 1.0), {})[name] = parameter
    rate, momentum = wanted.muon_learning_rate or 0.0, wanted.muon_momentum
    return [
        Muon(some, learning_rate=factor * rate, momentum=momentum, until=until)
        for factor, some in by_factor.items()
    ]


def _optimizer(
    wanted: OptimizerConfig,
    parameters: Mapping[str, nn.Parameter],
    rate: float,
    weight_decay: float,
    until: Mapping[str, float],
) -> Optimizer:
    """Make the optimizer of a group with this rate and this weight decay."""
    group = {"learning_rate": rate, "weight_decay": weight_decay}
    if wanted.method == "sgd":
        momentum, nesterov = wanted.momentum, wanted.nesterov
        return SGD(parameters, **group, momentum=momentum, nesterov=nesterov, until=until)
    if wanted.method == "rmsprop":
        beta2 = RMSPROP_BETA2 if wanted.beta2 is None else wanted.beta2
        return RMSProp(
            parameters,
            **group,
            beta2=beta2,
            epsilon=wanted.epsilon,
            momentum=wanted.momentum,
            until=until,
        )
    return Adam(
        parameters,
        **group,
        beta1=wanted.beta1,
        beta2=ADAM_BETA2 if wanted.beta2 is None else wanted.beta2,
        epsilon=wanted.epsilon,
        decoupled=wanted.method == "adamw",
        until=until,
    )


def _groups(
    config: Config,
    trainable: Mapping[str, nn.Parameter],
    filters: Mapping[str, nn.Parameter],
    slower: Mapping[str, float],
) -> dict[tuple[float, float], dict[str, nn.Parameter]]:
    """Group the parameters that are not Muon's by initial learning rate and weight decay.

    `slower`: factors for the rates of some parameters, by name. With SGD and AdamW, the weight
    decay is multiplied by this factor, too; other methods multiply it with the rate themselves.
    """
    wanted = config.optimizer
    by_share = wanted.method in ("sgd", "adamw")
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
        factor = slower.get(name, 1.0)
        weight_decay *= factor if by_share else 1.0
        groups.setdefault((factor * rate, weight_decay), {})[name] = trainable[name]
    return groups


def learn_until(config: Config, model: nn.Module) -> dict[str, float]:
    """Return the shares of the training after which parameters are fixed, by their names.

    The first layers settle first, and they have the largest activations. Once they are fixed, the
    backward pass stops before them. (Brock et al.: "FreezeOut: accelerate training by progressively
    freezing layers", 2017.)
    """
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    until: dict[str, float] = {}
    for layer, share in config.optimizer.freeze:
        until |= dict.fromkeys(_beginning("freeze", layer, learning, config), share)
    return until


def _beginning(setting: str, layer: str, names: Sequence[str], config: Config) -> list[str]:
    """Return the names of parameters that begin with a layer's name; there must be some."""
    found = [name for name in names if name.startswith(layer)]
    if not found:
        layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
        raise ConfigError(
            f"optimizer.{setting}: expected the beginning of the name of a layer that learns, in "
            f"{config.model.name} one of {layers}; found {layer!r}"
        )
    return found
