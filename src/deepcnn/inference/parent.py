"""A trained network with which another training begins, and which of its layers fit there.

Layers are found by their names. If a layer's shapes are the same, it is taken with all that belongs
to it, including statistics of batches. The last layer has a number for each class; it is only taken
if the classes are the same in the same order. The shapes of some layers depend on the size of the
images. If this size differs, these layers keep the initial weights of the new network.

If the first layer is a convolution, it is fitted to another number of channels. From colours to
gray, its filters are summed over the channels. From gray to colours, they are divided evenly among
the channels. In both cases the network's answer about a gray picture stays the same: a picture
whose channels, as the network sees them, are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from deepcnn import config as configs
from deepcnn.config import Config
from deepcnn.errors import CheckpointError, ConfigError, RunError
from deepcnn.inference.trained import checkpoint_of, weights_in
from deepcnn.inference.weights import read_weights
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import check_fit
from deepcnn.models.build import BUILDERS, network, widths_to_take
from deepcnn.runs import checkpoint
from deepcnn.runs.beginning import Beginning, layer_of, run_of
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import ModelConfig

LARGEST = 4 * 2**30  # bytes of a file; networks for small images, with all to resume, have less


@dataclass(frozen=True)
class Parent:
    """A trained network: its weights by name, on the processor, and what is known about it.

    `path`: as the user gave it. `file`: the file that was read. `config`, `classes`: None for a
    checkpoint that lies in no run.
    """

    path: Path
    file: Path
    step: int
    averaged: bool
    weights: dict[str, Tensor]
    config: Config | None = None
    classes: tuple[str, ...] | None = None

    def widths_for(self, model: ModelConfig, channels: int) -> tuple[int, ...]:
        """Return the widths with which a network for other channels can take the weights."""
        if self.config is None or self.config.model.name != model.name:
            return model.widths
        return widths_to_take(model, channels, self.weights)

    def options(self) -> str:
        """Return what to type to get a network like this one."""
        if self.config is None:
            return "--model.name and --model.widths"
        name, widths = self.config.model.name, self.config.model.widths
        if name.startswith("("):
            return "model=… in Python, again"
        return " ".join(
            [f"--model.name {name}", *(["--model.widths"] if widths else []), *map(str, widths)]
        )


def open_parent(path: Path) -> Parent:
    """Open a run (its best checkpoint, or else its newest) or a file.

    The file is a checkpoint, or weights of `deepcnn export`. If there are moving averages of
    parameters, they are taken, as always after a training. Raises RunError or CheckpointError for
    anything else, and for what is damaged, too large or not finite.
    """
    if path.is_dir():
        run = Run.open(path)
        parent = _of_checkpoint(path, checkpoint_of(run, None), run)
    else:
        parent = _of_file(path)
    if not all(bool(tensor.isfinite().all()) for tensor in parent.weights.values()):
        raise CheckpointError(f"{parent.file}: expected finite weights, found others")
    return parent


def _of_file(path: Path) -> Parent:
    if not path.is_file():
        what = "another thing" if path.exists() else "nothing"
        raise CheckpointError(
            f"{path}: expected a run, a checkpoint, or weights of `deepcnn export RUN --to "
            f"safetensors`, found {what} there"
        )
    _check_size(path)
    if _is_checkpoint(path):
        return _of_checkpoint(path, path, run_of(path))
    about, weights = read_weights(path)
    try:
        config = configs.from_dict(about.settings)
        shape = Transform.from_dict(about.inputs).shape
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not as deepcnn writes it ({error})") from error
    parent = Parent(path, path, about.step, about.averaged, weights, config, about.classes)
    _check_itself(parent, shape)
    return parent


def _of_checkpoint(path: Path, file: Path, run: Run | None) -> Parent:
    """Open a checkpoint; `run`: the run that contains it."""
    _check_size(file)
    try:
        step, tensors, _ = checkpoint.load(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file}: is gone; where {path} is still trained, try again"
        ) from error
    weights, averaged = weights_in(tensors, averaged=True)
    if run is None:
        return Parent(path, file, step, averaged, weights)
    on = TrainedOn.read(run)
    parent = Parent(path, file, step, averaged, weights, run.config(), on.classes)
    _check_itself(parent, on.transform.shape)
    return parent


def _check_size(file: Path) -> None:
    """Raise CheckpointError for a file that would fill the memory."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    if size > LARGEST:
        raise CheckpointError(
            f"{file}: expected weights of at most {LARGEST:,} bytes, found {size:,} bytes"
        )


def _is_checkpoint(file: Path) -> bool:
    """Tell a checkpoint from exported weights, which name their classes."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            found = json.loads((opened.metadata() or {}).get("deepcnn", "null"))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "classes" not in found and "step" in found


def _check_itself(parent: Parent, shape: tuple[int, int, int]) -> None:
    """Raise CheckpointError unless the weights belong to the network that the file names.

    So a file cannot make us build a larger network than it holds.
    """
    config, classes = parent.config, parent.classes
    if config is None or classes is None or config.model.name not in BUILDERS:
        return
    try:
        planned = _without_memory(config.model, shape, len(classes))
    except (ConfigError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{parent.path}: no network is like that ({error})") from error
    check_fit(planned, parent.weights, str(parent.file))


def _without_memory(
    model: ModelConfig, shape: tuple[int, int, int], classes: int
) -> dict[str, Tensor]:
    with torch.device("meta"):
        return network(model, None, shape=shape, classes=classes).state_dict()


@dataclass(frozen=True)
class New:
    """The network that will begin with another one's layers.

    `config`: how it was made. `shape`: [C, H, W] of its input. `classes`: their names.
    """

    config: ModelConfig
    model: nn.Module
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


def fit(parent: Parent, new: New) -> tuple[dict[str, Tensor], Beginning]:
    """Return what a network takes from another one, in its own shapes, and what is told of this.

    Raises a ConfigError that says what to type if the layers have other widths, or if no layer that
    learns can be taken.
    """
    own = new.model.state_dict()
    _check_widths(parent, new, own)
    layers: dict[str, list[str]] = {}
    for name in own:
        layers.setdefault(layer_of(name), []).append(name)
    first = next((layer_of(name) for name, tensor in own.items() if tensor.ndim == 4), None)
    head = _head(own, layers, len(new.classes))
    found: dict[str, Tensor] = {}
    refitted: list[str] = []
    left: dict[str, str] = {}
    for layer, names in layers.items():
        theirs = {name: parent.weights[name] for name in names if name in parent.weights}
        brought = {n: _brought(t, own[n]) if layer == first else t for n, t in theirs.items()}
        if layer == head and parent.classes != new.classes:
            left[layer] = "other classes"
        elif len(theirs) < len(names):
            left[layer] = "not there"
        elif all(_alike(brought[name], own[name]) for name in names):
            found |= brought
            refitted += [layer] if any(brought[n] is not theirs[n] for n in names) else []
        else:
            left[layer] = _unlike(theirs, own)
    learning = {name for name, p in new.model.named_parameters() if p.requires_grad and p.ndim > 1}
    if not learning & found.keys():
        raise ConfigError(
            f"start_from: no layer of {new.config.name} is like one of {parent.path}. Name its "
            f"network: {parent.options()}"
        )
    taken = tuple(layer for layer in layers if layer not in left)
    return found, Beginning(
        path=str(parent.path),
        file=str(parent.file),
        step=parent.step,
        averaged=parent.averaged,
        data=None if parent.config is None else parent.config.data,
        sha256=_digest({name: parent.weights[name] for name in found}),
        taken=taken,
        refitted=tuple(refitted),
        left=left,
    )


def parameters_in(model: nn.Module, began: Beginning | None) -> frozenset[str]:
    """Return the names of the parameters that came from another network."""
    taken = set() if began is None else {*began.taken}
    return frozenset(name for name, _ in model.named_parameters() if layer_of(name) in taken)


def _check_widths(parent: Parent, new: New, own: Mapping[str, Tensor]) -> None:
    """Raise ConfigError if a network of the same kind has other widths."""
    config = parent.config
    if config is None or config.model.name != new.config.name:
        return
    if config.model.name in BUILDERS:
        theirs = ModelConfig(config.model.name, parent.widths_for(config.model, new.shape[0]))
        planned = _without_memory(theirs, new.shape, len(new.classes))
        same = {n: t.shape for n, t in planned.items()} == {n: t.shape for n, t in own.items()}
    else:
        same = config.model.widths == new.config.widths
    if not same:
        raise ConfigError(
            f"start_from: {parent.path} has a network of other widths than "
            f"{list(new.config.widths) or 'those of the literature'}. Give its own: "
            f"{parent.options()}"
        )


def _head(own: Mapping[str, Tensor], layers: Mapping[str, list[str]], classes: int) -> str | None:
    """Return the last layer that has a number for each class."""
    with_classes = [
        layer
        for layer, names in layers.items()
        if all(own[name].shape[:1] == (classes,) for name in names)
    ]
    return with_classes[-1] if with_classes else None


def _brought(weight: Tensor, own: Tensor) -> Tensor:
    """Return filters [out, channels, height, width] for the channels that `own` has."""
    if weight.ndim != 4 or own.ndim != 4 or weight.shape[1] == own.shape[1]:
        return weight
    if own.shape[1] == 1:
        return weight.sum(1, keepdim=True)
    if weight.shape[1] == 1:
        return (weight / own.shape[1]).expand(-1, own.shape[1], -1, -1)
    return weight


def _alike(found: Tensor, own: Tensor) -> bool:
    return (found.shape, found.dtype) == (own.shape, own.dtype)


def _unlike(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return how the shapes of a layer differ, in words."""
    name = next(n for n, t in theirs.items() if not _alike(t, own[n]))
    there, here = ("×".join(map(str, each[name].shape)) for each in (theirs, own))
    return f"{there} there, {here} here"


def _digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    checkpoint.add_tensors(digest, {n: tensor.contiguous() for n, tensor in weights.items()})
    return digest.hexdigest()
