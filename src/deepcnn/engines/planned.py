"""One device that plans many steps at once, and on a GPU replays a recorded step.

A step of a small network takes less time than the host needs to launch its few hundred kernels one
by one. So on a GPU one step is recorded as a CUDA graph. It is replayed with the images, the labels
and the numbers of each step. These are made for many steps at once, since for a single step the
host would have to launch just as many kernels again. (Gray: "Getting started with CUDA graphs",
NVIDIA, 2019; Nguyen et al.: "Accelerating PyTorch with CUDA graphs", 2021.)
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from deepcnn.devices import Place, to_device
from deepcnn.engines.engine import Job, Moment
from deepcnn.engines.single import Single
from deepcnn.learning.state import TrainState

WARM_UP = 1  # step of a kind before it is recorded: libraries choose their kernels in it
MOST_KINDS = 64  # that are compiled, before torch takes them for a mistake

Kind = tuple[tuple[int, ...], tuple[bool, ...]]  # the images' shape, and which parameters learn
# Images, labels, and of the step's `Moment` the step, int64 [], factor and weight, float32 [2].
Given = tuple[Tensor, Tensor, Tensor, Tensor]
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # as `Single._forward`
Made = tuple[Tensor, Tensor]  # of a step: its losses, and the logits of its images


@dataclass(frozen=True)
class Recording:
    """A recorded step: its inputs, and where it leaves its outputs."""

    graph: torch.cuda.CUDAGraph
    own: Given
    made: Made

    def replay(self, given: Given) -> Made:
        """Make the recorded step with these inputs."""
        for tensor, values in zip(self.own, given, strict=True):
            tensor.copy_(values)
        self.graph.replay()
        return self.made


@functools.cache
def _stream_for_recordings(device: torch.device) -> torch.cuda.Stream:
    """Return the same stream each time, since freed memory stays with its stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Recorder:
    """Records steps on a GPU, and makes all others directly.

    Recordings are made on a stream of their own, after a warm-up on this stream. They are replayed
    one after another, so they may share their memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _stream_for_recordings(device)
        self._memory = torch.cuda.graph_pool_handle()

    def make(self, compute: Callable[[], Made]) -> Made:
        """Make a step on the stream of the recordings; return its outputs."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            made = compute()
        torch.cuda.current_stream().wait_stream(self._stream)
        return made

    def record(self, compute: Callable[[Given], Made], given: Given) -> Recording:
        """Record a step without making it.

        `torch.cuda.graph` would do the same. But it would first wait for the GPU, which still makes
        the steps before, and free all unused memory, which is then requested again.
        """
        images, labels, step, numbers = (tensor.clone() for tensor in given)
        own = images, labels, step, numbers
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._memory)
            made = compute(own)
            graph.capture_end()
        return Recording(graph, own, made)


def recorder_for(device: torch.device) -> Recorder | None:
    """Return the recorder for a device; None if steps are computed directly."""
    return Recorder(device) if device.type == "cuda" else None


class Planned(Single):
    """One device, one process, plans for `job.steps_per_plan` steps at a time.

    The numbers are those of `Single`. On devices other than a GPU, nothing is recorded, and each
    step is computed directly.
    """

    def __init__(self, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        self._parameters = list(state.model.parameters())
        self._plan: tuple[Tensor, Tensor] = torch.empty(0), torch.empty(0)  # rows: [steps, …]
        self._steps = range(0)  # that the plan is for
        self._recordings: dict[Kind, Recording] = {}
        self._met: Counter[Kind] = Counter()
        self._forward_unwatched = self._forward
        if job.compile:
            torch._dynamo.config.recompile_limit = MOST_KINDS
            self._forward_unwatched = torch.compile(self._forward, dynamic=False)
            self._change = torch.compile(self._change, dynamic=False)  # type: ignore[method-assign]
        self._recorder = recorder_for(place.device)

    @override
    def _step(self) -> Tensor:
        given = self._next()
        kind = tuple(self.images.shape), tuple(p.requires_grad for p in self._parameters)
        if self._recorder is None or self._met[kind] < WARM_UP:
            self._met[kind] += 1
            return self._eagerly(given, self._forward_unwatched)
        if kind not in self._recordings:
            compute = functools.partial(self._compute, forward=self._forward_unwatched)
            self._recordings[kind] = self._recorder.record(compute, given)
        return self._count(given, self._recordings[kind].replay(given))

    @override
    def _watched_step(self) -> Tensor:
        # without a recording, since that calls no hooks, nor does what is compiled
        return self._eagerly(self._next(), self._forward)

    def _next(self) -> Given:
        """Return the images and labels of the next step, and its row of the plan."""
        step = self._state.step
        self.images, labels = self._job.load(step, self._part)
        if step not in self._steps:
            self._steps = range(step, step + self._job.steps_per_plan)
            numbers = np.array([self._factor_and_weight(s) for s in self._steps], np.float32)
            device = self._place.device
            self._plan = to_device(np.array(self._steps), device), to_device(numbers, device)
        steps, numbers_of_steps = self._plan
        row = step - self._steps.start
        return self.images, labels, steps[row], numbers_of_steps[row]

    def _compute(self, given: Given, forward: Forward) -> Made:
        images, labels, step, numbers = given
        total, losses, logits = forward(images, labels)
        torch.autograd.backward(total)
        self._apply(losses, Moment(step, *numbers.unbind()))
        return losses, logits

    def _eagerly(self, given: Given, forward: Forward) -> Tensor:
        compute = functools.partial(self._compute, given, forward)
        made = compute() if self._recorder is None else self._recorder.make(compute)
        return self._count(given, made)

    def _count(self, given: Given, made: Made) -> Tensor:
        """Count a step that was made, and return its losses."""
        losses, logits = made
        self._answered = [(logits, given[1])]
        self._state.step += 1
        return losses
