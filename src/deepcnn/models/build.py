"""Networks of this package, by name, and networks that come from elsewhere."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.machine import LARGEST_SHARE, memory
from deepcnn.models.cuda_convnet import CudaConvnet
from deepcnn.models.mlp import MLP
from deepcnn.models.speednet import ResidualSpeednet, Speednet
from deepcnn.models.tutorial import Tutorial
from deepcnn.settings import NETWORKS, ModelConfig

BUILDERS: dict[str, Callable[..., nn.Module]] = dict(
    zip(NETWORKS, (Tutorial, Speednet, ResidualSpeednet, MLP, CudaConvnet), strict=True)
)

LARGEST_USUAL = 4096  # filters; a network that has more is measured before it is made

# A network, a function or a class that makes one, or where that can be imported from.
Given = nn.Module | Callable[..., nn.Module] | str


def build_model(
    name: str,
    *,
    shape: tuple[int, int, int] = (3, 24, 24),
    classes: int = 10,
    widths: tuple[int, ...] = (),
    seed: int = 0,
) -> nn.Module:
    """Build a network of this package with its initial weights, in channels_last memory.

    `shape`: channels, height and width of its input. `widths`: the filters or units of its layers;
    empty: those of the literature. The weights are a function of `seed`. Raises ConfigError for an
    unknown name, and if widths or shape do not fit the network.
    """
    if name not in BUILDERS:
        raise ConfigError(f"model: expected one of {', '.join(BUILDERS)}, found {name!r}")
    make = functools.partial(BUILDERS[name], shape=shape, classes=classes, widths=widths)
    if max(widths, default=0) > LARGEST_USUAL:
        _check_room(make, widths)
    return _in_channels_last(make(seed=seed))


def _check_room(make: Callable[..., nn.Module], widths: tuple[int, ...]) -> None:
    """Raise ConfigError if this machine's memory is too small to train a network."""
    with torch.device("meta"):  # whose tensors have a shape, and no values
        model = make()
    tensors = [*model.parameters(), *model.buffers()]
    # The weights themselves, their gradients, the momentum and the averages.
    needed = 4 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    there = memory()
    if there is not None and needed > LARGEST_SHARE * there:
        raise ConfigError(
            f"model.widths: expected a network that can be trained in {there / 1e9:.1f} GB of "
            f"memory, found one that needs {needed / 1e9:,.0f} GB, of widths "
            f"{', '.join(map(str, widths))}. Take fewer filters."
        )


def build_given(
    given: Given,
    *,
    shape: tuple[int, int, int],
    classes: int,
    widths: tuple[int, ...] = (),
    seed: int = 0,
) -> nn.Module:
    """Return a network that comes from elsewhere, and check that it does what is asked of it.

    A function or a class is called with those of `shape`, `classes`, `widths` and `seed` that it
    has parameters for. torch's generator starts at `seed` for this call. An `nn.Module` is taken as
    it is, and trained in place. Raises ConfigError if the network cannot be made, or if it does not
    map images [N, *shape] to logits [N, classes].
    """
    given = import_named(given) if isinstance(given, str) else given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(given, nn.Module):
            model = given
        else:
            offered = {"shape": shape, "classes": classes, "widths": widths, "seed": seed}
            model = given(**_wanted(given, offered))
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: expected an nn.Module, found {type(model).__name__}")
    _check(model, shape, classes)
    return _in_channels_last(model)


def widths_to_take(
    config: ModelConfig, channels: int, weights: Mapping[str, Tensor]
) -> tuple[int, ...]:
    """Return the widths that a network of this package needs to take the weights of a similar one.

    `channels`: of the new network's own images; the images for which the weights were learned may
    have others. The weights are given by name.
    """
    kind = BUILDERS.get(config.name)
    if isinstance(kind, type) and issubclass(kind, Speednet):
        return kind.widths_to_take(config.widths, channels, weights)
    return config.widths


def import_named(name: str) -> Callable[..., nn.Module]:
    """Return the object that `package.module:function` names; this runs the module's code."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"model.name: {name!r} cannot be imported ({error}). Expected package.module:function; "
            "the module must lie where Python looks for one (PYTHONPATH)."
        ) from error
    if not callable(found):
        raise ConfigError(f"model.name: {name!r}: expected a function, found {found!r}")
    return found  # type: ignore[no-any-return]


def name_of(given: Given) -> str:
    """Return the name under which a network is stored: where it can be imported from.

    A network without such a name gets one in parentheses, which tells a reader what it was.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, nn.Module):
        return f"({type(given).__name__})"
    module, path = getattr(given, "__module__", ""), getattr(given, "__qualname__", "")
    if module in ("", "__main__") or not re.fullmatch(r"[\w.]+", path):
        return f"({path or type(given).__name__})"
    return f"{module}:{path}"


def network(
    config: ModelConfig,
    given: Given | None,
    *,
    shape: tuple[int, int, int],
    classes: int,
    seed: int = 0,
) -> nn.Module:
    """Build the network that a configuration names, or `given`.

    A user's own network is only imported if its name is given again, since a configuration may come
    from elsewhere and must not run code. Raises ConfigError if it is not given.
    """
    if given is not None:
        return build_given(given, shape=shape, classes=classes, widths=config.widths, seed=seed)
    if config.name in BUILDERS:
        return build_model(
            config.name, shape=shape, classes=classes, widths=config.widths, seed=seed
        )
    if config.name.startswith("("):
        raise ConfigError(
            f"model: this run trained a network that came from Python, {config.name}, and has no "
            "name to import it by. Give it again: model=… in Python."
        )
    raise ConfigError(
        f"model: this run trained a network of its own, {config.name}. Its code only runs if you "
        f"name it again: --model.name {config.name}, or model={config.name!r} in Python."
    )


def _wanted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments for which a function has parameters."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}


@torch.no_grad()
def _check(model: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    training = model.training
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    expected = f"logits [2, {classes}] for images {[2, *shape]}"
    try:
        logits = model.eval()(torch.zeros(2, *shape, device=device))
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(
            f"model: {type(model).__name__}: expected {expected}, found {type(error).__name__}: "
            f"{error}"
        ) from error
    finally:
        model.train(training)
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"model: {type(model).__name__}: expected {expected}, found {found}")


def _in_channels_last(model: nn.Module) -> nn.Module:
    """Put the filters of convolutions into the memory order that is fast."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
