"""What the campaigns hurt, how it is done again, and what must be there in the end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deepcnn.runs.log import events, read_log
from faults import outputs
from faults.calls import Call, watch
from faults.small import TRAININGS, Training, be_one_of, free_port
from faults.trials import end_of, start, tree

CHANGING = {"log.jsonl", "environment.json", "lock"}  # times, and what names the machine


@dataclass
class Subject:
    """What is killed: a training, or another command, in a folder of its own.

    `prepare` fills the folder; `first` does the work in a process, `again` what a user does after a
    kill; `calls`: those of the first process that change files; `tree`: what is there in the end.
    """

    name: str
    prepare: Callable[[Path], object]
    first: Callable[[Path], object]
    again: Callable[[Path], object]
    processes: int = 1
    is_training: bool = False
    overwrites: bool = False
    calls: tuple[str, ...] = ()
    tree: dict[str, str] | None = None


def run_until(
    subject: Subject,
    work: Callable[[Path], object],
    folder: Path,
    tell: Callable[[Call], None] | None,
) -> dict[str, Any]:
    """Do the work in one process or several, of which the first tells of its calls; see `end_of`.

    Where the first is killed the others are killed too, as torchrun does.
    """
    port = free_port() if subject.processes > 1 else 0

    def one(rank: int) -> object:
        if subject.processes > 1:
            be_one_of(subject.processes, rank, port)
        if tell is not None and rank == 0:
            watch(folder, tell)
        return work(folder)

    said = [folder.with_name(f"said-{rank}") for rank in range(subject.processes)]
    children = [start(partial(one, rank), said[rank]) for rank in range(subject.processes)]
    first = end_of(children[0], said[0])
    for child, path in zip(children[1:], said[1:], strict=True):
        if first["signal"]:
            os.kill(child, signal.SIGKILL)
        end_of(child, path)
    return first


def settled(folder: Path) -> dict[str, str]:
    """Return what is compared of a folder: not times, nor how many files of summaries there are."""
    found = {}
    for name, content in tree(folder).items():
        if "/summaries/" not in name:
            found[name] = "any" if Path(name).name in CHANGING else content
    return found


def unlogged(folder: Path) -> str:
    """Return what is wrong with the log of a run: it must end with the training's end."""
    log = folder / "run" / "log.jsonl"
    if log.exists() and not events(read_log(log), "Finished"):
        return "the log does not tell of the end"
    return ""


def subjects(data: Path) -> Iterator[Subject]:
    """Yield all that is killed."""

    def of(training: Training) -> Subject:
        def prepare(folder: Path) -> None:
            folder.mkdir(parents=True)
            if training.overwrite:
                shutil.copytree(data.with_name("old"), folder / "run")

        return Subject(
            training.name,
            prepare,
            lambda folder: training.begin(data, folder / "run"),
            lambda folder: training.go_on(data, folder / "run"),
            processes=training.processes,
            is_training=True,
            overwrites=training.overwrite,
        )

    yield from map(of, TRAININGS)
    for name, work in outputs.of(data, data.with_name("old")).items():
        yield Subject(name, lambda folder: folder.mkdir(parents=True), work, work)
