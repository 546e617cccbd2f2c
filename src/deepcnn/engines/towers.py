"""Towers: several devices in one process, with the parameters and the update on the CPU.

This works as in TensorFlow's program for several GPUs. Each tower has a replica of the network on
its device, and computes the gradients of its part of the batch. The gradients are averaged on the
CPU. One update follows there, and the towers get the new parameters. Inputs are prepared ahead of
time. If there are several towers, each has a thread of its own. If there are fewer devices than
towers, towers share them.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.devices import Part, Place
from deepcnn.engines.engine import Engine, Job
from deepcnn.events import Placed
from deepcnn.inputs.prefetch import Prefetch
from deepcnn.learning.state import TrainState
from deepcnn.models.sync_norm import synchronize_batch_norm

LOADED_AHEAD = 2  # inputs that wait for each tower, as in the reference

PartsOfBatch = list[tuple[Tensor, Tensor]]  # images and labels of each tower


class Towers(Engine):
    """Several devices in one process: `devices`, one for each tower."""

    def __init__(
        self, state: TrainState, place: Place, job: Job, devices: tuple[torch.device, ...]
    ) -> None:
        super().__init__(state, Place(torch.device("cpu"), place.precision), job)
        self._computes_on, self.towers = devices[0], devices
        count = len(devices)
        self._exchange = Exchange(state.model, count)
        self._meeting = Meeting(count)
        threads = max(1, torch.get_num_threads() // count)
        self._towers = [
            _Tower(state.model, Part(i, count, device), self._exchange, threads)
            for i, device in enumerate(devices)
        ]
        if job.sync_batch_norm:
            for i, tower in enumerate(self._towers):
                synchronize_batch_norm(tower.model, self._meeting.sum_for(i))
        self._inputs: Prefetch[PartsOfBatch] | None = None

    @property
    @override
    def model(self) -> nn.Module:
        return self._towers[0].model

    @override
    def _step(self) -> Tensor:
        if self._inputs is None:
            self._inputs = Prefetch(
                self._load(self._state.step), ahead=LOADED_AHEAD, name="inputs of the towers"
            )
        inputs = next(self._inputs)
        self.images = inputs[0][0]
        running = [
            tower.thread.submit(self._compute, tower, images, labels)
            for tower, (images, labels) in zip(self._towers, inputs, strict=True)
        ]
        wait(running)
        errors = [error for future in running if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
            raise error  # not that of a tower that only waited for another one
        losses, logits = zip(*(future.result() for future in running), strict=True)
        self._answered = list(zip(logits, (labels for _, labels in inputs), strict=True))
        return self._update(torch.stack(losses).mean(0))

    @override
    def settle(self) -> None:
        # the statistics of batch normalization are those of the first tower
        theirs = self.model.state_dict()
        with torch.no_grad():
            for name, mine in self._state.model.state_dict().items():
                if name not in self._exchange.parameters:
                    mine.copy_(theirs[name])

    @override
    def close(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        for tower in self._towers:
            tower.thread.shutdown()

    @override
    def placed(self) -> Placed:
        devices = tuple(str(tower.part.device) for tower in self._towers)
        columns = ("state", *(f"tower {i}" for i in range(len(devices))))
        return self._table(columns, ("cpu", *devices), ("cpu", *("" for _ in devices)))

    def _load(self, first_step: int) -> Iterator[PartsOfBatch]:
        torch.set_num_threads(1)  # of this loading thread: enough to stay ahead of the towers
        for step in itertools.count(first_step):
            yield [self._job.load(step, tower.part) for tower in self._towers]

    def _compute(self, tower: _Tower, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Go forward and backward in a tower's thread; return its losses, on the CPU, and logits.

        The logits stay on the tower's device.
        """
        try:
            tower.refresh()
            with Place(tower.part.device, self._place.precision).autocast():
                logits = tower.model(images)
            total, losses = self._losses(tower.model, logits, labels, tower.part)
            torch.autograd.backward(total)
            return losses.cpu(), logits.detach()
        except BaseException:
            self._meeting.cancel()
            raise


class _Here(Executor):
    """Computes submitted work at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Tower:
    """A replica with parameters of its own, and the thread that computes with it.

    A single tower computes in the thread that makes the updates. Two threads would each start as
    many threads as the processor has cores. With more threads than cores, OpenMP lets them sleep
    between any two pieces of work.
    """

    def __init__(self, model: nn.Module, part: Part, exchange: Exchange, threads: int) -> None:
        self.part = part
        self.model = copy.deepcopy(model).to(part.device).train()
        # Threads of the processor are a setting of each thread that starts them.
        self.thread: Executor = (
            _Here()
            if part.count == 1
            else ThreadPoolExecutor(1, f"tower {part.index}", torch.set_num_threads, (threads,))
        )
        self._pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(True)  # else it would not take a hook; `refresh` corrects it
            receive = exchange.receiver(name, part.index)
            parameter.register_post_accumulate_grad_hook(receive)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the parameters, and the choice of those that learn."""
        for mine, fresh in self._pairs:
            mine.copy_(fresh, non_blocking=True)
            mine.requires_grad_(fresh.requires_grad)


class Exchange:
    """Averages gradients on the CPU, each as soon as all towers have it.

    So averages are made while the towers still go backward through earlier layers. The sum is
    always in the order of the towers, whichever comes first, so it is the same every time.
    """

    def __init__(self, model: nn.Module, towers: int) -> None:
        self.parameters = dict(model.named_parameters())
        self._towers = towers
        self._arrived: dict[str, dict[int, Tensor]] = {}
        self._lock = threading.Lock()

    def receiver(self, name: str, tower: int) -> Callable[[Tensor], None]:
        """Return the hook that takes the gradient of a tower's parameter."""

        def receive(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = parameter.grad.to("cpu"), None
            with self._lock:
                arrived = self._arrived.setdefault(name, {})
                arrived[tower] = gradient
                if len(arrived) < self._towers:
                    return
                del self._arrived[name]
            total = arrived[0]
            for i in range(1, self._towers):
                total = total.add_(arrived[i])
            self.parameters[name].grad = total.div_(self._towers)

        return receive


class Meeting:
    """Sums tensors of the towers' threads; each thread waits for the others."""

    def __init__(self, towers: int) -> None:
        self._values: list[Tensor] = [torch.empty(0)] * towers
        self._barrier = threading.Barrier(towers)

    def sum_for(self, tower: int) -> Callable[[Tensor], Tensor]:
        """Return the function with which a tower's thread takes part in a sum."""

        def total(values: Tensor) -> Tensor:
            self._values[tower] = values
            self._barrier.wait()
            result = self._values[0].to(values.device, copy=True)
            for other in self._values[1:]:
                result += other.to(values.device)
            self._barrier.wait()  # before anyone brings the next values
            return result

        return total

    def cancel(self) -> None:
        """Let all waiting threads fail, since one of them will not come."""
        self._barrier.abort()
