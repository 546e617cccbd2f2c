"""What all engines share: the losses of a part of a batch, and the update from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deepcnn.devices import Part, Place
from deepcnn.events import Placed
from deepcnn.hardware import float32_products, rough_products
from deepcnn.learning import objective
from deepcnn.learning.finite import sums
from deepcnn.learning.state import TrainState

STEPS_TO_GROW = 2000  # good steps after which the loss scale of fp16 is doubled
LEAST_SCALE = 2.0**-24  # of fp16: what overflows at it does so at any


@dataclass(frozen=True)
class Moment:
    """What an update needs to know about its step, on the state's device.

    `step`: int64 []; `factor`: float32 [], of the learning rates; `weight`: float32 [], how far
    the averages of the parameters move.
    """

    step: Tensor
    factor: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Job:
    """What each step must compute, with any engine.

    `load` brings a part of a step's batch to its device: images float32 [b, C, H, W], the network's
    input, and labels as `objective.losses` takes them. `batch_size`: the examples of all parts
    together. `schedule` maps a step to the factor of the learning rates. `class_weights`: float32
    [classes], or None. `sync_batch_norm`: normalize with the statistics of all parts together.
    `steps_per_plan`: for how many steps the host plans at once; 1: for each step as it comes.
    `compile`: compile the network, for planned steps.
    """

    load: Callable[[int, Part], tuple[Tensor, Tensor]]
    batch_size: int
    schedule: Callable[[int], float]
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    sync_batch_norm: bool = False
    steps_per_plan: int = 1
    compile: bool = False


class Engine(ABC):
    """Makes steps of training. Nothing in a step waits for a device.

    `images`: the network's input for the first part of the last step, float32 [b, C, H, W].
    `device`: of the state. `towers`: the devices of the replicas in this process, if there are any.
    """

    images: Tensor
    _answered: list[tuple[Tensor, Tensor]]  # of this process's parts of the last step
    towers: tuple[torch.device, ...] = ()

    def __init__(self, state: TrainState, place: Place, job: Job) -> None:
        self.images = torch.empty(0)  # before the first step
        state.to(place.device)
        if job.class_weights is not None:
            job = replace(job, class_weights=job.class_weights.to(place.device))
        self._state = state
        self._place = place
        self._job = job
        self._computes_on = self.device = place.device

    @property
    def model(self) -> nn.Module:
        """The network that computes the first part, for watching its activations."""
        return self._state.model

    def step(self) -> Tensor:
        """Make one step of training and count it.

        Returns the losses of the whole batch before the update, float32
        [len(objective.names(model))], on the state's device. If one of them or a gradient is not
        finite, this update and all later ones are not applied, and the state's `failed` holds this
        step.
        """
        with float32_products(self._computes_on):
            return self._step()

    def watched_step(self) -> Tensor:
        """Make a step in which hooks of the network's layers are called."""
        with float32_products(self._computes_on):
            return self._watched_step()

    @abstractmethod
    def _step(self) -> Tensor:
        """Make a step as `step` describes it."""

    def _watched_step(self) -> Tensor:
        return self._step()

    def correct(self) -> Tensor:
        """Return how many examples of the last step's whole batch were answered rightly, int64 [].

        The answers are those of the network before the update, in training mode. They are counted
        when this method is called, on the state's device, without waiting for it. All processes
        call it together.
        """
        parts = [objective.count_correct(*part).to(self._place.device) for part in self._answered]
        return torch.stack(parts).sum()

    def settle(self) -> None:  # noqa: B027 (most engines have nothing to do)
        """Bring the state up to date before it is scored or saved."""

    def close(self) -> None:  # noqa: B027 (most engines have no threads)
        """Stop all threads and wait for them."""

    @abstractmethod
    def placed(self) -> Placed:
        """Return which data are on which device."""

    def _losses(
        self, model: nn.Module, logits: Tensor, labels: Tensor, part: Part
    ) -> tuple[Tensor, Tensor]:
        """Return the scalar for the backward pass, [], and the detached losses of a part, [n].

        `model` holds the weights of the penalties. For both results, the mean over all parts is the
        value for the whole batch.
        """
        job = self._job
        weights = job.class_weights
        losses = objective.losses(
            model,
            logits,
            labels,
            label_smoothing=job.label_smoothing,
            class_weights=None if weights is None else weights.to(part.device),
            weight=len(labels) * part.count / job.batch_size,
        )
        total = losses[objective.TOTAL]
        if self._place.precision == "fp16":
            total = total * self._state.loss_scale.to(part.device)
        return total, torch.stack([loss.detach() for loss in losses.values()])

    def _update(self, losses: Tensor) -> Tensor:
        """Update the state from its gradients and the whole batch's losses; return the losses."""
        state, device = self._state, self._place.device
        factor, weight = self._factor_and_weight(state.step)
        moment = Moment(
            torch.full((), state.step, device=device),
            torch.full((), factor, device=device),
            torch.full((), weight, device=device),
        )
        self._apply(losses, moment)
        state.step += 1
        return losses

    def _factor_and_weight(self, step: int) -> tuple[float, float]:
        """Return the `factor` and the `weight` of a step's `Moment`."""
        averages = self._state.averages
        return self._job.schedule(step), averages.weight(step + 1) if averages else 0.0

    def _apply(self, losses: Tensor, moment: Moment) -> None:
        """Change the tensors of the state as an update does; the host has no part in it."""
        with rough_products(self._place.device):  # Muon's iterations do not converge anyway
            self._change(losses, moment)

    @torch.no_grad()
    def _change(self, losses: Tensor, moment: Moment) -> None:
        state = self._state
        if self._place.precision == "fp16":
            self._unscale_gradients()
        finite = self._finite(losses)
        fine = finite.all()
        if self._place.precision == "fp16":
            fine = self._adapt_scale(losses, finite)
        first_failure = (state.failed < 0) & ~fine
        state.failed.copy_(torch.where(first_failure, moment.step, state.failed))
        state.finite.copy_(torch.where(first_failure, finite, state.finite))
        gate = (state.failed < 0) & finite.all()
        for optimizer in state.optimizers:
            optimizer.step(moment.factor, gate)
        if state.averages is not None:
            state.averages.update(moment.weight, gate)
        state.loss_averages.update(losses)

    def _finite(self, losses: Tensor) -> Tensor:
        """Tell for each loss, and for each parameter's gradient, whether it is finite: bool [n]."""
        gradients = [p.grad for p in self._state.model.parameters()]
        found = iter(sums([g for g in gradients if g is not None]))
        none = losses.new_zeros(())
        each = [none if g is None or not g.numel() else next(found) for g in gradients]
        return torch.cat([losses, torch.stack(each)]).isfinite()

    def _unscale_gradients(self) -> None:
        for parameter in self._state.model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self._state.loss_scale)

    def _adapt_scale(self, losses: Tensor, finite: Tensor) -> Tensor:
        """Adapt the loss scale to the gradients of a step; return False if the step failed.

        `finite`: see `_finite`. An overflow of fp16 is not a failure: the update is left out, and
        the scale is halved. If even the smallest scale overflows, fp16 is not the cause.
        """
        state, count = self._state, len(losses)
        fine = finite[count:].all()
        state.good_steps.add_(1).mul_(fine)
        grow = state.good_steps >= STEPS_TO_GROW  # only where this step was finite
        state.loss_scale.mul_(0.5 + 0.5 * fine + 1.0 * grow)  # exact: halved, kept or doubled
        state.good_steps.mul_(~grow)
        return finite[:count].all() & (fine | (state.loss_scale >= LEAST_SCALE))

    def _table(
        self, columns: tuple[str, ...], variables: tuple[str, ...], rest: tuple[str, ...]
    ) -> Placed:
        """Make the table of devices and what they hold.

        `columns`: the holders. `variables`, `rest`: where they hold the network's variables, and
        all else that belongs to an update.
        """
        state = self._state
        rows = [
            (name, _shown(tensor), *variables)
            for name, tensor in state.model.state_dict().items()
            if tensor.ndim
        ]
        kept = [kind for optimizer in state.optimizers for kind in optimizer.tensors.items()]
        kept += [("moving averages", state.averages.tensors)] if state.averages else []
        for name, tensors in kept:
            if tensors:
                count = sum(tensor.numel() for tensor in tensors.values())
                rows.append((name, f"float32 [{count}]", *rest))
        rows += [("mean of the gradients", "", *rest), ("update", "", *rest)]
        return Placed(("what", "type", *columns), tuple(rows))


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
