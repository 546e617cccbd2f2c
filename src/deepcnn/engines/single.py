"""One device, one process."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from deepcnn.devices import Part, Place
from deepcnn.engines.engine import Engine, Job
from deepcnn.events import Placed
from deepcnn.learning.state import TrainState


class Single(Engine):
    """One device, one process."""

    def __init__(self, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        self._part = Part(0, 1, place.device)

    @override
    def _step(self) -> Tensor:
        self.images, labels = self._job.load(self._state.step, self._part)
        total, losses, logits = self._forward(self.images, labels)
        self._answered = [(logits, labels)]
        torch.autograd.backward(total)
        return self._update(losses)

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scalar for the backward pass, [], and the losses and the logits, detached."""
        model = self._state.model
        with self._place.autocast():
            logits = model(images)
        return *self._losses(model, logits, labels, self._part), logits.detach()

    @override
    def placed(self) -> Placed:
        place = (str(self._place.device),)
        return self._table(("where",), place, place)
