"""One device in each of several processes, whose states stay equal.

DistributedDataParallel averages the gradients while the backward pass still runs.
"""

from __future__ import annotations

import socket
import warnings

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from deepcnn.devices import Part, Place
from deepcnn.engines.engine import Engine, Job
from deepcnn.events import Placed
from deepcnn.learning.state import TrainState
from deepcnn.models.sync_norm import synchronize_batch_norm
from deepcnn.team.processes import Processes, total


class Distributed(Engine):
    """One device in each of several processes, whose states stay equal."""

    def __init__(self, team: Processes, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        self._team = team
        self._part = Part(team.index, team.count, place.device)
        team.spread(state.tensors().values())  # machines of other kinds may begin with other bits
        if job.sync_batch_norm:
            synchronize_batch_norm(state.model, total)
        self._network: DistributedDataParallel | None = None
        self._learning: list[bool] = []

    @override
    def _step(self) -> Tensor:
        self.images, labels = self._job.load(self._state.step, self._part)
        network = self._wrapped(self.images)
        with self._place.autocast():
            logits = network(self.images)
        self._answered = [(logits.detach(), labels)]
        loss, losses = self._losses(self._state.model, logits, labels, self._part)
        summing = dist.all_reduce(losses, async_op=True)
        torch.autograd.backward(loss)  # meanwhile gradients are exchanged, layer by layer
        assert summing is not None
        summing.wait()
        return self._update(losses.div_(self._part.count))

    @override
    def correct(self) -> Tensor:
        return total(super().correct())

    @override
    def settle(self) -> None:
        # the statistics of batch normalization are those of the process that writes
        own = dict(self._state.model.named_parameters())
        self._team.spread(
            t for name, t in self._state.model.state_dict().items() if name not in own
        )

    @override
    def close(self) -> None:
        # It holds the processes' group, and what lets go of that last may wait for ever: a thread
        # of the group wants Python's lock to drop a tensor.
        self._network = None

    @override
    def placed(self) -> Placed:
        places = self._team.gather(f"{self._place.device} of {socket.gethostname()}")
        columns = tuple(f"rank {i}" for i in range(len(places)))
        return self._table(columns, tuple(places), tuple(places))

    def _wrapped(self, images: Tensor) -> DistributedDataParallel:
        """Return the network with its gradients averaged; made again if other parameters learn.

        After its first step, DistributedDataParallel puts the gradients into other buckets. In
        another bucket, three numbers or more are summed in another order. A process that goes on
        from a checkpoint must use the same buckets as one that was not interrupted. So there is
        first a rehearsal with one image.
        """
        model = self._state.model
        learning = [parameter.requires_grad for parameter in model.parameters()]
        if self._network is None or learning != self._learning:
            self._network, self._learning = None, learning  # the old one lets go of the parameters
            with warnings.catch_warnings():
                # The option that takes its place is newer than torch 2.11.
                warnings.filterwarnings(
                    "ignore", "`broadcast_buffers` is deprecated", FutureWarning
                )
                self._network = DistributedDataParallel(
                    model, broadcast_buffers=False, gradient_as_bucket_view=True
                )
            model.eval()  # statistics of batch normalization stay what they are
            torch.autograd.backward(self._network(images[:1]).sum())
            model.train()
            for parameter in model.parameters():
                parameter.grad = None
        return self._network
