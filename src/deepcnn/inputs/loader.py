"""From a feed to the network's input: the batch of a step, distorted, on its device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from deepcnn.devices import Part
from deepcnn.inputs import mixing
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.transform import Transform

PLANNED_AHEAD = (
    16  # steps whose random choices are made at once: those of a single one take almost as long
)
# Values of input that are made at once, for the same reason: on a processor as many as stay in the
# cache, on a GPU as many as keep it busy.
TOGETHER, TOGETHER_ON_GPU = 2**20, 2**25


Plan = dict[str, Tensor]  # `index`, which examples are seen, and the choices of `Draws`: [steps, b]


def made_together(values: int, device: torch.device) -> int:
    """Return for how many steps inputs are made at once; `values`: in the inputs of one step."""
    return max(1, (TOGETHER if device.type == "cpu" else TOGETHER_ON_GPU) // values)


class Loader:
    """Brings the batch of a step of training to a device, distorted.

    `training_steps`: of the whole training. The size of the images may depend on the share of them
    that is done. `share_at`: gives this share before a step, if it does not grow evenly. It may
    change at multiples of `steps` that nobody has asked about yet. `classes`: their number, needed
    if images are mixed.

    If the set is in memory, the random choices of `steps` steps are made at once, and small batches
    of a few of these steps are distorted together. From other feeds, each batch is made as it
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
        classes: int | None = None,
        share_at: Callable[[int], float] | None = None,
    ) -> None:
        self._share_at = share_at or (lambda step: step / training_steps)
        self._feed, self._transform, self._seed = feed, transform, seed
        self.steps, self._classes = steps, classes
        # Each with the steps it is for.
        self._plans: dict[Part, tuple[range, Plan]] = {}
        self._made: dict[Part, tuple[range, list[tuple[Tensor, Tensor]]]] = {}

    def load(self, step: int, part: Part) -> tuple[Tensor, Tensor]:
        """Return a part of the network's input for a step, and its labels, on the part's device.

        Images are float32 [b, C, H, W], labels int64 [b]. If images are mixed, labels are instead
        the shares of the classes, float32 [b, classes].
        """
        if self._transform.mixes:
            part = replace(part, with_before=True)
        if self._feed.in_memory:
            steps, made = self._made.get(part, (range(0), []))
            if step not in steps:
                steps, made = self._made[part] = self._make(step, part)
            return made[step - steps.start]
        batch = self._feed.batch(step, part)
        if self._feed.prepared:
            return batch.images, batch.labels
        draws = self._transform.draw(
            self._seed, index=batch.index, epoch=batch.epoch, position=batch.position
        )
        return self._distort((batch.images, batch.labels), draws, self.scale(step), steps=1)

    def scale(self, step: int) -> float:
        """Return the share of each side to which the images of a step are scaled."""
        return self._transform.scale_at(self._share_at(step))

    def plan(self, first_step: int, part: Part) -> Plan:
        """Return which examples are used, and the random choices about them: [steps, b] each."""
        index, epoch, position = self._feed.places(first_step, self.steps, part)
        draws = self._transform.draw(
            self._seed,
            index=index.flatten(),
            epoch=epoch.flatten(),
            position=position.flatten(),
        )
        chosen = {name: values.view(index.shape) for name, values in draws.made().items()}
        return {"index": index, **chosen}

    def take(self, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
        """Return the network's input for some steps of a plan, and its labels, as `load` does.

        The steps' inputs follow one another.
        """
        flat = {name: values.flatten() for name, values in plan.items()}
        examples = self._feed.take(flat.pop("index"))
        return self._distort(examples, Draws(**flat), scale, steps=len(plan["index"]))

    def _distort(
        self, examples: tuple[Tensor, Tensor], draws: Draws, scale: float, *, steps: int
    ) -> tuple[Tensor, Tensor]:
        images, labels = examples
        images = self._transform.train(images, draws, scale)
        if not self._transform.mixes:
            return images, labels
        assert self._classes is not None
        return mixing.mix(images, labels, draws, steps=steps, classes=self._classes)

    def _make(self, step: int, part: Part) -> tuple[range, list[tuple[Tensor, Tensor]]]:
        """Return the batches of a step and of a few after it, as long as images keep their size."""
        first, plan = self._planned(step, part)
        values = len(plan["index"][0]) * math.prod(self._transform.shape)
        count = made_together(values, part.device)
        steps = range(step, min(step + count, first + self.steps))
        scale = self.scale(step)
        steps = range(step, next((s for s in steps if self.scale(s) != scale), steps.stop))
        rows = slice(step - first, steps.stop - first)
        images, labels = self.take({name: values[rows] for name, values in plan.items()}, scale)
        each = len(labels) // len(steps)
        return steps, list(zip(torch.split(images, each), torch.split(labels, each), strict=True))

    def _planned(self, step: int, part: Part) -> tuple[int, Plan]:
        """Return the plan that contains a step, and the plan's first step."""
        steps, plan = self._plans.get(part, (range(0), {}))
        if step not in steps:
            first = step - step % self.steps
            steps, plan = range(first, first + self.steps), self.plan(first, part)
            self._plans[part] = steps, plan
        return steps.start, plan
