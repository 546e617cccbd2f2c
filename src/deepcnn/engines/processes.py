"""Several processes, on one machine or many, started by torchrun or as it would.

The only module, with `launch`, that knows torch.distributed. DistributedDataParallel averages the
gradients, by NCCL where every process has a GPU of its own, else by gloo.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # public all the same
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from deepcnn.devices import Part, Place, Precision
from deepcnn.engines.signs import ADVICE, Peer, Signs
from deepcnn.engines.single import Engine, Job
from deepcnn.engines.team import Team
from deepcnn.errors import ConfigError, DeepcnnError, TrainingError
from deepcnn.events import Listener, Placed, ignore
from deepcnn.models.layers import synchronize_batch_norm
from deepcnn.state import TrainState

T = TypeVar("T")

_CPU = torch.device("cpu")
_MEETING_SECONDS = 0.02  # from one look into the store to the next


class Processes(Team):
    """The processes of one job, of which this is one; `meet` makes it."""

    plans = False
    _meetings = 0  # of this process so far, as of all the others

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self.index, self.count = dist.get_rank(), dist.get_world_size()
        self.writes = self.index == 0
        self._asked: tuple[Tensor, dist.Work] | None = None

    @classmethod
    @contextmanager
    def meet(cls) -> Iterator[Processes]:
        """Meet the others, and part from them in the end.

        An error that is another process's fault becomes a TrainingError that names it.
        """
        own_gpu = dist.is_nccl_available() and _local_count() <= torch.cuda.device_count()
        try:
            store, rank, size = next(iter(rendezvous("env://")))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if own_gpu else "gloo",
                store=PrefixStore(_common_name(store, rank, size), store),
                rank=rank,
                world_size=size,
            )
            signs = _exchange_signs()
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
            team.sum(torch.zeros(1))  # nobody leaves before all are done
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
        """Let the process that writes do something; all get the result or the error."""
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
        return _total(values)

    def any(self, flag: bool) -> bool:
        """Tell whether any process said so at the call before this one.

        One call late, so that nobody has to wait for the answer.
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

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the process that writes."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def listener(self, emit: Listener) -> Listener:
        """Return `emit` where this process speaks to the user."""
        return emit if self.writes else ignore

    def job(self) -> str | None:
        """Return torchrun's name for the job, or its process, and which training of it this is.

        A program may train several times; when it is started again, it does so in the same order.
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
            threads = max(1, _cores() // _local_count())
        place = super().place(device, precision, threads)
        if place.device.type == "cuda":
            torch.cuda.set_device(place.device)
        return place

    def check(
        self,
        place: Place,  # noqa: ARG002 (towers' matter)
        *,
        batch_size: int,
        towers: int,
        sync_batch_norm: bool,  # noqa: ARG002
        steps_per_plan: int,
    ) -> None:
        """Raise ConfigError for what these processes cannot do together."""
        if towers:
            raise ConfigError(
                f"towers: {self.count} processes were started, each of which has one device; leave "
                "out --towers"
            )
        if steps_per_plan > 1:
            raise ConfigError(
                f"steps_per_plan: {self.count} processes were started, and only one process alone "
                f"plans ahead; expected 1, found {steps_per_plan}"
            )
        if self.count > batch_size:
            raise ConfigError(
                f"batch_size: expected at least one example for each of {self.count} processes, "
                f"found {batch_size}"
            )

    def engine(self, state: TrainState, place: Place, job: Job, *, towers: int) -> Engine:
        """Make the engine."""
        assert not towers, "check refuses them"
        return Distributed(self, state, place, job)


class Distributed(Engine):
    """One device in each of several processes, whose states stay equal."""

    def __init__(self, team: Processes, state: TrainState, place: Place, job: Job) -> None:
        super().__init__(state, place, job)
        self._team = team
        self._part = Part(team.index, team.count, place.device)
        team.spread(state.tensors().values())  # machines of other kinds may begin with other bits
        if job.sync_batch_norm:
            synchronize_batch_norm(state.model, _total)
        self._network: DistributedDataParallel | None = None
        self._learning: list[bool] = []

    def step(self) -> Tensor:
        """Make one step; see `Engine.step`."""
        self.images, labels = self._job.load(self._state.step, self._part)
        network = self._wrapped(self.images)
        with self._place.autocast():
            logits = network(self.images)
        total, losses = self._losses(self._state.model, logits, labels, self._part)
        summing = dist.all_reduce(losses, async_op=True)
        torch.autograd.backward(total)  # meanwhile gradients are exchanged, layer by layer
        assert summing is not None
        summing.wait()
        return self._update(losses.div_(self._part.count))

    def settle(self) -> None:
        """Take over the statistics of batch normalization of the process that writes."""
        own = dict(self._state.model.named_parameters())
        self._team.spread(
            t for name, t in self._state.model.state_dict().items() if name not in own
        )

    def placed(self) -> Placed:
        """Tell what lies where, in every process."""
        places: list[str] = [""] * self._part.count
        dist.all_gather_object(places, f"{self._place.device} of {socket.gethostname()}")
        columns = tuple(f"rank {i}" for i in range(len(places)))
        return self._table(columns, tuple(places), tuple(places))

    def _wrapped(self, images: Tensor) -> DistributedDataParallel:
        """Return the network with its gradients averaged; anew where other parameters learn.

        After its first step DistributedDataParallel puts the gradients into other buckets, and in
        another bucket three numbers or more are summed in another order. A process that goes on
        from a checkpoint must not differ in that, so a rehearsal with one image comes before.
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


def _total(values: Tensor) -> Tensor:
    """Sum over all processes. No method, since networks that hold it are copied."""
    total = values.clone()
    dist.all_reduce(total)
    return total


def _common_name(store: Store, rank: int, size: int) -> str:
    """Agree on a name that no processes before these have used in the store.

    torchrun keeps its store when it starts processes again, with the addresses of those before; it
    has no count of the starts that is the same on all machines. So each process leaves a word that
    is new, and the first one shows all that it has seen until everybody has found its own there.
    """
    own = secrets.token_hex(8)
    store.set(f"deepcnn/word {rank}", own)
    if rank:
        seen: list[str] = []
        while len(seen) != size or seen[rank] != own:
            time.sleep(_MEETING_SECONDS)
            seen = json.loads(store.get("deepcnn/seen"))
        store.set(f"deepcnn/{seen[0]} {rank}", "found")
        return f"deepcnn/{seen[0]}"
    answers = [f"deepcnn/{own} {other}" for other in range(1, size)]
    while True:
        seen = [store.get(f"deepcnn/word {other}").decode() for other in range(size)]
        store.set("deepcnn/seen", json.dumps(seen))
        if not answers or store.check(answers):
            return f"deepcnn/{own}"
        time.sleep(_MEETING_SECONDS)


def _exchange_signs() -> Signs:
    """Tell all processes where each listens for signs of life, and begin with them."""
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:  # the address by which the machine that all others know is reached
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            towards.connect((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
            host = towards.getsockname()[0]
        own.bind(("", 0))
    except OSError:  # no IPv4 there: then without signs, and with the library's own time-outs
        host = ""
    rank = dist.get_rank()
    name = f"rank {rank} (machine {socket.gethostname()}, process {os.getpid()})"
    about = (rank, name, (host, own.getsockname()[1] if host else 0), secrets.token_hex(8))
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, about)
    peers = [Peer(r, n, address) for r, n, address, _ in everyone if r != rank and address[0]]
    token = everyone[0][3]
    parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return Signs(own, rank, peers, token, parent)


def _local_count() -> int:
    """Return how many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _identity_of(process: int) -> str | None:
    """Return what no other process, before or after, is called; None where nobody tells."""
    try:
        started = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return None
    return f"{boot}-{process}-{started}"
