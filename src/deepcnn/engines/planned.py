"""One device that is told of many steps at once, and on a GPU replays a recorded step.

A step of a small network is over before a host has launched its few hundred kernels one by one. So
the host makes a plan for many steps, copies it to the device at once, and lets the device read its
row of the plan itself. Then nothing in a step depends on the host, and a GPU can record one step
as a CUDA graph and replay it. (Gray: "Getting started with CUDA graphs", NVIDIA, 2019; Nguyen et
al.: "Accelerating PyTorch with CUDA graphs", 2021.)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepcnn.data.feeds import to_device
from deepcnn.devices import Place
from deepcnn.engines.single import Job, Moment, Single
from deepcnn.state import TrainState

WARM_UP = 3  # steps of a kind before it is recorded: libraries choose their kernels in these

Kind = tuple[float, tuple[bool, ...]]  # the images' scale, and which parameters learn


@dataclass(frozen=True)
class _Recording:
    """A recorded step, and where it leaves the images and the losses."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    losses: Tensor


class Planned(Single):
    """One device, one process, plans for `job.ahead.steps` steps at a time.

    The numbers are those of `Single`. On other devices than a GPU there is nothing to record; each
    step is computed as it comes.
    """

    def __init__(self, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        assert job.ahead is not None
        self._ahead = job.ahead
        self._parameters = list(state.model.parameters())
        self._row = torch.zeros(1, dtype=torch.int64, device=place.device)  # of the next step
        self._plan: list[Tensor] = []  # tensors [steps, …], the same memory for every plan
        self._steps = range(0)  # that the plan is for
        self._recordings: dict[Kind, _Recording] = {}
        self._met: Counter[Kind] = Counter()
        self._records = place.device.type == "cuda"
        # Recordings are made on a stream of their own, and what is recorded was warm on it.
        self._stream: torch.cuda.Stream | None = (
            torch.cuda.Stream(place.device) if self._records else None  # type: ignore[no-untyped-call]
        )

    def step(self) -> Tensor:
        """Make one step; see `Engine.step`."""
        kind = self._prepare()
        if not self._records or self._met[kind] < WARM_UP:
            self._met[kind] += 1
            return self._eagerly(kind)
        if kind not in self._recordings:
            self._recordings[kind] = self._record(kind)
        recording = self._recordings[kind]
        recording.graph.replay()
        self.images = recording.images
        self._state.step += 1
        return recording.losses

    def watched_step(self) -> Tensor:
        """Make a step without a recording, since a replay calls no hooks."""
        return self._eagerly(self._prepare())

    def _prepare(self) -> Kind:
        """Make a plan where the last one is used up, and tell which kind of step is next."""
        step = self._state.step
        if step not in self._steps:
            self._make_plan(step)
        learning = tuple(p.requires_grad for p in self._parameters)
        return self._ahead.scale(step), learning

    def _make_plan(self, first_step: int) -> None:
        self._steps = range(first_step, first_step + self._ahead.steps)
        numbers = np.array([self._factor_and_weight(step) for step in self._steps], np.float32)
        moments = (
            to_device(np.array(self._steps, np.int64), self._place.device),
            *to_device(numbers, self._place.device).t(),
        )
        fresh = [*moments, *self._ahead.plan(first_step, self._part)]
        if not self._plan:
            self._plan = [torch.empty_like(tensor) for tensor in fresh]
        for tensor, values in zip(self._plan, fresh, strict=True):
            tensor.copy_(values)
        self._row.zero_()

    def _compute(self, scale: float) -> tuple[Tensor, Tensor]:
        """Make the step of the next row of the plan; return images and losses."""
        step, factor, weight, *planned = (t.index_select(0, self._row)[0] for t in self._plan)
        images, labels = self._ahead.take(tuple(planned), scale)
        losses = self._learn(images, labels)
        self._apply(losses, Moment(step, factor, weight))
        self._row += 1
        return images, losses

    def _eagerly(self, kind: Kind) -> Tensor:
        """Make a step, on the stream that recordings are made on."""
        if self._stream is None:
            self.images, losses = self._compute(kind[0])
        else:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self.images, losses = self._compute(kind[0])
            torch.cuda.current_stream().wait_stream(self._stream)
        self._state.step += 1
        return losses

    def _record(self, kind: Kind) -> _Recording:
        """Record a step without making it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            images, losses = self._compute(kind[0])
        return _Recording(graph, images, losses)
