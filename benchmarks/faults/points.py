"""The moments of a training at which a process may be hit, and which trainings suffer which."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PER_JOB = 5  # faults that a training suffers


@dataclass(frozen=True)
class Point:
    """A moment: before or after a call of `target` for which `only` holds.

    `mode`: "own": whoever calls dies there. "writer": only rank 0 comes there; another process dies
    while rank 0 is held there. "inside": the call waits for the other process, which is held
    outside. "gradient": when the gradient of the call's result is known.
    """

    kind: Literal["meeting", "start", "step", "save", "evaluation", "end"]
    target: str
    after: bool = False
    only: Callable[..., bool] = lambda *_, **__: True
    mode: Literal["own", "writer", "inside", "gradient"] = "own"
    calls: tuple[int, ...] = (3, 12)


@dataclass(frozen=True)
class Fault:
    """A signal that a process gives itself; `patient`: torchrun ends the one that is stopped."""

    point: str
    rank: int
    signal: Literal["SIGKILL", "SIGSTOP"]
    call: int
    patient: bool = False


def _is_checkpoint(path: Path, *others: Path, **_: Any) -> bool:
    return Path((path, *others)[-1]).name.startswith("step-")


def _is_loss(*arguments: Any, **_: Any) -> bool:
    return len(arguments) == 1 and arguments[0].ndim == 1 and arguments[0].is_floating_point()


def _is_flag(*arguments: Any, **_: Any) -> bool:
    return len(arguments) == 2


def _is_score(_: Any, values: Any) -> bool:
    return len(values) == 3


def _in_training(layer: Any, *_: Any) -> bool:
    return bool(layer.training)


TEAM = "deepcnn.team.processes:"
ENGINE = "deepcnn.engines.engine:Engine."
TOGETHER = "deepcnn.engines.distributed:Distributed."
RUN = "deepcnn.runs.run:Run."
CHECKPOINT = "deepcnn.runs.checkpoint:"
SUM = TEAM + "Processes.sum"
ALL_REDUCE = "torch.distributed:all_reduce"
CONVOLUTION = "deepcnn.models.layers:SameConv2d.forward"
POINTS = {
    "before the meeting": Point("meeting", "deepcnn.training.start:join", calls=(1,)),
    "in the meeting": Point("meeting", TEAM + "common_name", calls=(1,)),
    "before signs of life": Point("meeting", TEAM + "exchange_signs", calls=(1,)),
    "looking for the run": Point("start", RUN + "of_job", mode="writer", calls=(1,)),
    "reading data": Point("start", "deepcnn.training.session:open_material", calls=(1,)),
    "creating the run": Point("start", RUN + "begin", mode="writer", calls=(1,)),
    "run without config.json": Point(
        "start",
        RUN + "write",
        only=lambda _, name, *__: name == "config.json",
        mode="writer",
        calls=(1,),
    ),
    "loading a checkpoint": Point("start", CHECKPOINT + "load", mode="writer", calls=(1,)),
    "spreading the state": Point("start", TOGETHER + "__init__", calls=(1,)),
    "rehearsal": Point("step", TOGETHER + "_wrapped", calls=(1,)),
    "forward": Point("step", CONVOLUTION, only=_in_training),
    "after forward": Point("step", ENGINE + "_losses"),
    "loss sum, not begun": Point("step", ALL_REDUCE, only=_is_loss),
    "loss sum, begun": Point("step", ALL_REDUCE, after=True, only=_is_loss),
    "backward": Point("step", CONVOLUTION, after=True, only=_in_training, mode="gradient"),
    "gradient sum": Point("step", "torch.autograd:backward", mode="inside"),
    "update": Point("step", ENGINE + "_update"),
    "between steps": Point("step", "deepcnn.learning.averages:LossAverages.update", after=True),
    "stop flag, not begun": Point("step", ALL_REDUCE, only=_is_flag),
    "stop flag, begun": Point("step", ALL_REDUCE, after=True, only=_is_flag),
    "settling": Point("save", TOGETHER + "settle", calls=(1, 2)),
    "before a save": Point("save", CHECKPOINT + "save", mode="writer", calls=(1, 2)),
    "before the rename": Point(
        "save", "pathlib:Path.replace", only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after the rename": Point(
        "save", "pathlib:Path.replace", after=True, only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "before pruning": Point(
        "save", "pathlib:Path.unlink", only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after pruning": Point(
        "save", "pathlib:Path.unlink", after=True, only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after a save": Point(
        "save",
        TEAM + "Processes.once",
        after=True,
        only=lambda _, make: make.__name__ == "save",
        calls=(1, 2),
    ),
    "between blocks": Point("evaluation", "deepcnn.learning.objective:count_correct", calls=(2, 3)),
    "score sum, not begun": Point("evaluation", SUM, only=_is_score, calls=(1, 1)),
    "score sum": Point("evaluation", SUM, only=_is_score, mode="inside", calls=(1, 1)),
    "parting": Point("end", SUM, only=lambda _, values: len(values) == 1, calls=(1, 1)),
}
STOPPED_AT = ("forward", "backward", "gradient sum", "before the rename", "between blocks")
STOPPED_AT += ("score sum",)


def plans() -> list[list[Fault]]:
    """Return the faults of each training: all points, ranks and calls by SIGKILL, some stopped."""
    kills = [
        Fault(name, rank, "SIGKILL", call)
        for name, point in POINTS.items()
        for rank in (0, 1)
        for call in point.calls
    ]
    random.Random(0).shuffle(kills)
    # Some points are there only before the run exists, others only after it has begun or ended.
    first = ("creating the run", "run without config.json", "before the meeting")
    last = ("loading a checkpoint", "parting")
    heads = [f for f in kills if f.point in first]
    tails = sorted((f for f in kills if f.point in last), key=lambda f: last.index(f.point))
    rest = [f for f in kills if f.point not in first + last]
    count = -(-len(kills) // PER_JOB)
    jobs: list[list[Fault]] = [[] for _ in range(count)]
    for i, fault in enumerate(heads):
        jobs[i % count].append(fault)
    ends: list[list[Fault]] = [[] for _ in range(count)]
    for i, fault in enumerate(tails):
        ends[-1 - i % count].append(fault)
    for fault in rest:
        shortest = min(range(count), key=lambda i: len(jobs[i]) + len(ends[i]))
        jobs[shortest].append(fault)
    stops = [
        Fault(name, rank, "SIGSTOP", POINTS[name].calls[-1], patient=i == 0)
        for i, name in enumerate(STOPPED_AT)
        for rank in (0, 1)
    ]
    return [stops[i::4] for i in range(4)] + [j + e for j, e in zip(jobs, ends, strict=True)]
