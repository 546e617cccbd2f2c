"""One device that is told of many steps at once, and on a GPU replays a recorded step.

A step of a small network is over before a host has launched its few hundred kernels one by one. So
on a GPU one step is recorded as a CUDA graph, and replayed with the images, the labels and the
numbers of each step. These are made for many steps at once, since for a single one the host would
launch as many kernels again. (Gray: "Getting started with CUDA graphs", NVIDIA, 2019; Nguyen et
al.: "Accelerating PyTorch with CUDA graphs", 2021.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepcnn.devices import Place, to_device
from deepcnn.engines.single import Job, Moment, Single
from deepcnn.state import TrainState

WARM_UP = 1  # step of a kind before it is recorded: libraries choose their kernels in it
MOST_KINDS = 64  # that are compiled, before torch takes them for a mistake

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # as `Single._forward`

Kind = tuple[tuple[int, ...], tuple[bool, ...]]  # the images' shape, and which parameters learn


@dataclass(frozen=True)
class _Recording:
    """A recorded step: what it reads, and where it leaves the losses."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    moment: Tensor
    losses: Tensor

    def replay(self, images: Tensor, labels: Tensor, moment: Tensor) -> Tensor:
        """Make the recorded step with these."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.moment.copy_(moment)
        self.graph.replay()
        return self.losses


class Planned(Single):
    """One device, one process, plans for `job.steps_per_plan` steps at a time.

    The numbers are those of `Single`. On other devices than a GPU there is nothing to record; each
    step is computed as it comes.
    """

    def __init__(self, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        self._parameters = list(state.model.parameters())
        self._plan = torch.empty(0)  # float64 [steps, 3]: step, factor and weight of a `Moment`
        self._steps = range(0)  # that the plan is for
        self._recordings: dict[Kind, _Recording] = {}
        self._met: Counter[Kind] = Counter()
        self._forward_unwatched = self._forward
        if job.compile:
            torch._dynamo.config.recompile_limit = MOST_KINDS
            self._forward_unwatched = torch.compile(self._forward, dynamic=False)
            self._change = torch.compile(self._change, dynamic=False)  # type: ignore[method-assign]
        self._records = place.device.type == "cuda"
        if self._records:
            # Recordings are made on a stream of their own, and what is recorded was warm on it.
            # They are replayed one after another, so they may share their memory.
            self._stream = torch.cuda.Stream(place.device)  # type: ignore[no-untyped-call]
            self._memory = torch.cuda.graph_pool_handle()

    def step(self) -> Tensor:
        """Make one step; see `Engine.step`."""
        images, labels, moment = self._next()
        kind = tuple(images.shape), tuple(p.requires_grad for p in self._parameters)
        if not self._records or self._met[kind] < WARM_UP:
            self._met[kind] += 1
            return self._eagerly(images, labels, moment, self._forward_unwatched)
        if kind not in self._recordings:
            self._recordings[kind] = self._record(images, labels, moment)
        losses = self._recordings[kind].replay(images, labels, moment)
        self._state.step += 1
        return losses

    def watched_step(self) -> Tensor:
        """Make a step without a recording, since that calls no hooks, nor does what is compiled."""
        return self._eagerly(*self._next(), self._forward)

    def _next(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return images and labels of the next step, and its row of the plan."""
        step = self._state.step
        self.images, labels = self._job.load(step, self._part)
        if step not in self._steps:
            self._steps = range(step, step + self._job.steps_per_plan)
            plan = np.array([(s, *self._factor_and_weight(s)) for s in self._steps], np.float64)
            self._plan = to_device(plan, self._place.device)
        return self.images, labels, self._plan[step - self._steps.start]

    def _compute(self, images: Tensor, labels: Tensor, moment: Tensor, forward: Forward) -> Tensor:
        total, losses = forward(images, labels)
        torch.autograd.backward(total)
        step, factor, weight = *moment[:1], *moment[1:].float()
        self._apply(losses, Moment(step, factor, weight))
        return losses

    def _eagerly(self, images: Tensor, labels: Tensor, moment: Tensor, forward: Forward) -> Tensor:
        """Make a step, on the stream that recordings are made on."""
        if not self._records:
            losses = self._compute(images, labels, moment, forward)
        else:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                losses = self._compute(images, labels, moment, forward)
            torch.cuda.current_stream().wait_stream(self._stream)
        self._state.step += 1
        return losses

    def _record(self, images: Tensor, labels: Tensor, moment: Tensor) -> _Recording:
        """Record a step without making it.

        `torch.cuda.graph` would do the same, but give back all memory that nobody uses first, which
        then has to be asked for again.
        """
        own = images.clone(), labels.clone(), moment.clone()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._place.device)
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._memory)
            losses = self._compute(*own, self._forward_unwatched)
            graph.capture_end()
        return _Recording(graph, *own, losses)
