"""Several processes, on one machine or many, started by torchrun or in the same way.

They communicate by NCCL if every process has a GPU of its own, else by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public all the same
from torch.distributed.rendezvous import rendezvous

from deepcnn.devices import Place, Precision
from deepcnn.errors import DeepcnnError, TrainingError
from deepcnn.events import Listener, ignore
from deepcnn.machine import cores
from deepcnn.team.rendezvous import common_name, exchange_signs
from deepcnn.team.signs import ADVICE, Signs
from deepcnn.team.team import Team

T = TypeVar("T")

_CPU = torch.device("cpu")


class Processes(Team):
    """The processes of one job, of which this is one; `meet` makes it."""

    distributed = True
    _meetings = 0  # of this process so far, as of all the others
    _farewell: Tensor

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self.index, self.count = dist.get_rank(), dist.get_world_size()
        self.writes = self.index == 0
        self._asked: tuple[Tensor, dist.Work] | None = None

    @classmethod
    @contextmanager
    def meet(cls) -> Iterator[Processes]:
        """Meet the other processes, and leave them at the end.

        An error that another process caused becomes a TrainingError that names this process.
        """
        own_gpu = dist.is_nccl_available() and _local_count() <= torch.cuda.device_count()
        try:
            store, rank, size = next(iter(rendezvous("env://")))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if own_gpu else "gloo",
                store=PrefixStore(common_name(store, rank, size), store),
                rank=rank,
                world_size=size,
            )
            signs = exchange_signs()
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"rank {os.environ['RANK']}: could not meet the other processes by way of "
                f"{os.environ.get('MASTER_ADDR')}, port {os.environ.get('MASTER_PORT')}: {error}. "
                "See what they say; start them all again."
            ) from error
        cls._meetings += 1
        team = cls(signs)
        try:
            yield team
            if team._asked is not None:  # no operation may be under way when the group ends
                team._asked[1].wait()
            # Nobody leaves before all are done. A thread of gloo lets go of the tensor a little
            # after the answer has come. Were it the last to hold it, it would need Python, which
            # may be ending by then, and the process would abort. So it is held until the end.
            cls._farewell = torch.zeros(1)
            dist.all_reduce(cls._farewell)
        except DeepcnnError as error:
            if not team.writes and not error.told:
                error.told = signs.reason_of(0) == str(error)
            signs.leave(str(error))
            dist.destroy_process_group()
            raise
        except RuntimeError as error:  # what a broken connection raises, among others
            blamed = signs.whom_to_blame()
            signs.leave(blamed or f"{type(error).__name__}: {error}")
            if blamed is None:
                raise
            raise TrainingError(f"rank {team.index}: {blamed}. {ADVICE}") from error
        except BaseException as error:
            signs.leave(type(error).__name__)
            raise
        signs.leave()
        dist.destroy_process_group()

    def once(self, make: Callable[[], T]) -> T:
        """Let only the writing process do something; all get the result or the error."""
        answer: list[Any] = [None, None]
        if self.writes:
            try:
                answer[0] = make()
            except DeepcnnError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, device=_CPU)
        if answer[1] is not None:
            answer[1].told = not self.writes
            raise answer[1]
        result: T = answer[0]
        return result

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes of tensors on the CPU."""
        return total(values)

    def any(self, flag: bool) -> bool:
        """Tell whether any process said so at the previous call.

        It is one call late, so that nobody has to wait for the answer.
        """
        flags = torch.tensor(int(flag))
        before = self._asked
        work = dist.all_reduce(flags, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        self._asked = flags, work
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])

    def gather(self, value: T) -> list[T]:
        """Return what each process brings, by rank."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the writing process."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def listener(self, emit: Listener) -> Listener:
        """Return `emit` if this process speaks to the user."""
        return emit if self.writes else ignore

    def job(self) -> str | None:
        """Return torchrun's name for the job, or its process, and this training's number in it.

        A program may train several times. When it is started again, it trains in the same order.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        name = os.environ["TORCHELASTIC_RUN_ID"]
        launcher = name if name not in ("", "none") else _identity_of(os.getppid())
        return launcher and f"{launcher} {self._meetings}"

    def place(
        self, device: str, precision: Literal["auto"] | Precision, threads: int | None
    ) -> Place:
        """Choose this process's share of the machine: a GPU, or its part of the processor."""
        gpus = torch.cuda.device_count()
        if device in ("auto", "cuda") and gpus:
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}"
        elif device == "auto":
            device = "cpu"  # gloo knows no other
        if threads is None and os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's default
            threads = max(1, cores() // _local_count())
        place = super().place(device, precision, threads)
        if place.device.type == "cuda":
            torch.cuda.set_device(place.device)
        return place


def total(values: Tensor) -> Tensor:
    """Sum over all processes. This is not a method, since networks that hold it are copied."""
    total = values.clone()
    dist.all_reduce(total)
    return total


def _local_count() -> int:
    """Return how many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _identity_of(process: int) -> str | None:
    """Return a name that no other process has, before or after; None if none can be found."""
    try:
        started = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return None
    return f"{boot}-{process}-{started}"
