"""From a feed to the network's input: the batch of a step, distorted, on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcnn.devices import Part
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.transform import Draws, Transform

PLANNED_AHEAD = (
    16  # steps whose random choices are made at once: those of a single one take almost as long
)
# Values of input that are made at once, for the same reason: on a processor as many as stay in the
# cache, on a GPU as many as keep it busy.
TOGETHER, TOGETHER_ON_GPU = 2**20, 2**25


class Loader:
    """Brings the batch of a step of training to a device, distorted.

    `training_steps`: of the whole training; on the share of it that is done the size of the images
    may depend. Where the set is in memory, the random choices of `steps` steps are made at once,
    and small batches of a few of these are distorted together; from other feeds each is made as it
    comes. The numbers are the same.
    """

    def __init__(
        self,
        feed: Feed,
        transform: Transform,
        *,
        seed: int,
        training_steps: int,
        steps: int = PLANNED_AHEAD,
    ) -> None:
        self._feed, self._transform, self._seed = feed, transform, seed
        self._training_steps, self.steps = training_steps, steps
        # Each with the steps it is for.
        self._plans: dict[Part, tuple[range, tuple[Tensor, ...]]] = {}
        self._made: dict[Part, tuple[range, list[tuple[Tensor, Tensor]]]] = {}

    def load(self, step: int, part: Part) -> tuple[Tensor, Tensor]:
        """Return a part of the network's input for a step, and its labels.

        Images float32 [b, C, H, W], labels int64 [b], on the part's device.
        """
        if self._feed.in_memory:
            steps, made = self._made.get(part, (range(0), []))
            if step not in steps:
                steps, made = self._made[part] = self._make(step, part)
            return made[step - steps.start]
        batch = self._feed.batch(step, part)
        draws = self._transform.draw(
            self._seed, index=batch.index, epoch=batch.epoch, position=batch.position
        )
        return self._transform.train(batch.images, draws, self.scale(step)), batch.labels

    def scale(self, step: int) -> float:
        """Return the share of each side to which the images of a step are scaled."""
        return self._transform.scale_at(step / self._training_steps)

    def plan(self, first_step: int, part: Part) -> tuple[Tensor, ...]:
        """Return which examples are seen, and the random choices about them: [steps, b] each."""
        index, epoch, position = self._feed.places(first_step, self.steps, part)
        draws = self._transform.draw(
            self._seed,
            index=index.flatten(),
            epoch=epoch.flatten(),
            position=position.flatten(),
        )
        chosen = (getattr(draws, name) for name in self._transform.drawn)
        return index, *(values.view(index.shape) for values in chosen)

    def take(self, planned: tuple[Tensor, ...], scale: float) -> tuple[Tensor, Tensor]:
        """Return the network's input for a step of a plan, and its labels, as `load`."""
        index, *chosen = planned
        images, labels = self._feed.take(index)
        draws = Draws(**dict(zip(self._transform.drawn, chosen, strict=True)))
        return self._transform.train(images, draws, scale), labels

    def _make(self, step: int, part: Part) -> tuple[range, list[tuple[Tensor, Tensor]]]:
        """Return the batches of a step and of a few after it, where images keep their size."""
        first, plan = self._planned(step, part)
        each = len(plan[0][0])
        together = TOGETHER if part.device.type == "cpu" else TOGETHER_ON_GPU
        count = max(1, together // (each * math.prod(self._transform.shape)))
        steps = range(step, min(step + count, first + self.steps))
        scale = self.scale(step)
        steps = range(step, next((s for s in steps if self.scale(s) != scale), steps.stop))
        rows = slice(step - first, steps.stop - first)
        images, labels = self.take(tuple(values[rows].flatten() for values in plan), scale)
        return steps, list(zip(torch.split(images, each), torch.split(labels, each), strict=True))

    def _planned(self, step: int, part: Part) -> tuple[int, tuple[Tensor, ...]]:
        """Return the plan that a step is in, and the first step of it."""
        steps, plan = self._plans.get(part, (range(0), ()))
        if step not in steps:
            first = step - step % self.steps
            steps, plan = range(first, first + self.steps), self.plan(first, part)
            self._plans[part] = steps, plan
        return steps.start, plan
