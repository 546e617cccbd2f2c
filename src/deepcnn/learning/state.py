"""Everything that changes while training, and so everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcnn.errors import CheckpointError
from deepcnn.learning.averages import LossAverages, ParameterAverages
from deepcnn.learning.optimizers import Optimizer

ROLLBACKS = "rollbacks"  # the name of their number in a checkpoint


@dataclass
class TrainState:
    """The state of a training.

    `step` counts the steps made. `averages` is None if the configuration asks for none. `failed` is
    the first step with a loss or a gradient that was not finite, or -1 (int64 [], on the device);
    from this step on, no update is applied. `finite` tells which of them were finite in that step:
    bool [losses + parameters], in the order of `objective.names` and of the model. `loss_scale`
    multiplies fp16 gradients (float32 []), and `good_steps` (int64 []) counts the steps since it
    last changed. `rollbacks` counts how often the training went back to a checkpoint, to go on at
    half the rate; a checkpoint stores it if it is not 0.
    """

    model: nn.Module
    optimizers: Sequence[Optimizer]
    averages: ParameterAverages | None
    loss_averages: LossAverages
    failed: Tensor
    loss_scale: Tensor
    good_steps: Tensor
    finite: Tensor
    step: int = 0
    rollbacks: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the state by name, sharing their memory."""
        found = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for kind, tensors in optimizer.tensors.items():
                found |= {f"{kind}.{name}": t for name, t in tensors.items()}
            if optimizer.updates is not None:
                found[f"updates.{i}"] = optimizer.updates
        if self.averages is not None:
            found |= {f"average.{name}": t for name, t in self.averages.tensors.items()}
        found["loss_averages"] = self.loss_averages.biased
        found["loss_scale"] = self.loss_scale
        found["good_steps"] = self.good_steps
        if self.rollbacks:
            found[ROLLBACKS] = torch.tensor(self.rollbacks)
        return found

    def forget_gradients(self) -> None:
        """Drop the gradients of the step that was made."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def to(self, device: torch.device) -> None:
        """Move everything to a device; the parameters stay the same objects.

        On a GPU, filters and all that belongs to them lie in the order that its convolutions read.
        """
        self.model.to(device)
        if device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        like = dict(self.model.named_parameters())
        kept = [of_kind for each in self.optimizers for of_kind in each.tensors.values()]
        kept += [self.averages.tensors] if self.averages is not None else []
        for tensors in kept:
            for name, tensor in tensors.items():
                tensors[name] = torch.empty_like(like[name]).copy_(tensor)
        for optimizer in self.optimizers:
            if optimizer.updates is not None:
                optimizer.updates = optimizer.updates.to(device)
        self.loss_averages.biased = self.loss_averages.biased.to(device)
        self.failed, self.finite = self.failed.to(device), self.finite.to(device)
        self.loss_scale = self.loss_scale.to(device)
        self.good_steps = self.good_steps.to(device)

    @torch.no_grad()
    def begin_with(self, weights: dict[str, Tensor], source: str) -> None:
        """Take over weights of another network, by name, before the first step; others stay.

        If they do not fit, it raises CheckpointError, which names the tensor, and changes nothing.
        """
        own = self.model.state_dict()
        check_fit({name: own[name] for name in own.keys() & weights.keys()}, weights, source)
        averages = {} if self.averages is None else self.averages.tensors
        for name, weight in weights.items():
            own[name].copy_(weight)
            if name in averages:
                averages[name].copy_(weight)

    @torch.no_grad()
    def load(self, step: int, tensors: dict[str, Tensor], source: str) -> None:
        """Take over the state of a checkpoint; `source` is its name in errors.

        `rollbacks` stays as it is, since the optimizers' rates depend on it. If the checkpoint does
        not fit, it raises CheckpointError, which names the tensor, and changes nothing.
        """
        own = {name: tensor for name, tensor in self.tensors().items() if name != ROLLBACKS}
        tensors = {name: tensor for name, tensor in tensors.items() if name != ROLLBACKS}
        check_fit(own, tensors, source)
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.failed.fill_(-1)
        self.finite.fill_(True)
        self.step = step


def check_fit(own: dict[str, Tensor], found: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless both have tensors of the same names, shapes and types."""
    for name in sorted(own.keys() | found.keys()):
        expected, actual = _describe(own.get(name)), _describe(found.get(name))
        if expected != actual:
            raise CheckpointError(
                f"{source} does not fit this run: {name}: expected {expected}, found {actual}"
            )


def _describe(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
