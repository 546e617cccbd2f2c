"""Engines: the gradients and the update for one batch, on some devices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deepcnn import objective
from deepcnn.devices import Precision, autocast
from deepcnn.state import TrainState

INITIAL_LOSS_SCALE = 2.0**16  # for fp16; halved at an overflow, doubled after so many good steps:
STEPS_TO_GROW = 2000


class Single:
    """One device. Nothing in a step waits for it.

    `schedule` maps a step to the factor of the learning rates.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        device: torch.device,
        precision: Precision,
        schedule: Callable[[int], float],
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        self._state = state
        self._device = device
        self._precision = precision
        self._schedule = schedule
        self._label_smoothing = label_smoothing
        self._class_weights = None if class_weights is None else class_weights.to(device)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Make one step of training and count it.

        `images`: float32 [B, C, H, W], the network's input; `labels`: int64 [B]. Returns the
        losses before the update, float32 [len(objective.names(model))] on the device. If the total
        is not finite, then neither this update nor any later one is applied, and the state's
        `failed` holds this step.
        """
        state = self._state
        with autocast(self._device, self._precision):
            logits = state.model(images)
        losses = objective.losses(
            state.model,
            logits,
            labels,
            label_smoothing=self._label_smoothing,
            class_weights=self._class_weights,
        )
        total = losses[objective.TOTAL]
        torch.autograd.backward(total * state.loss_scale if self._precision == "fp16" else total)

        with torch.no_grad():
            first_failure = (state.failed < 0) & ~total.isfinite()
            state.failed.copy_(torch.where(first_failure, state.step, state.failed))
            gate = state.failed < 0
            if self._precision == "fp16":
                gate = gate & self._unscale_gradients()
            factor = torch.full((), self._schedule(state.step), device=self._device)
            for optimizer in state.optimizers:
                optimizer.step(factor, gate)
            state.step += 1
            if state.averages is not None:
                state.averages.update(state.step, gate)
            values = torch.stack([loss.detach() for loss in losses.values()])
            state.loss_averages.update(values)
            return values

    def _unscale_gradients(self) -> Tensor:
        """Divide the gradients by the loss scale, adapt the scale, and tell whether all are finite.

        An overflow of fp16 is no failure: the update is left out and the scale halved.
        """
        state = self._state
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        for gradient in gradients:
            gradient.div_(state.loss_scale)
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        state.good_steps.copy_(torch.where(finite, state.good_steps + 1, 0))
        grow = state.good_steps >= STEPS_TO_GROW
        change = torch.where(finite, torch.where(grow, 2.0, 1.0), 0.5)
        state.loss_scale.mul_(change)
        state.good_steps.mul_(~grow)
        return finite
