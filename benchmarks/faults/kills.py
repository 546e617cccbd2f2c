"""What happens when a training is killed at any of its calls that change files.

    python benchmarks/run.py faults_of_kills

Small trainings over all feeds, in fp32 and bf16, with towers and in two processes, begun and
replacing another run, kill themselves (SIGKILL) right before one of these calls, or in the middle
of a write; some again when they go on. A user then resumes what is a run, and repeats the command
where it is none. In the end all files must be those of a training in peace: each checkpoint by its
SHA-256, and no file more. What is being replaced must be whole or no run at all. The same holds of
`data convert`, of an export and of written answers. Needs Linux.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcnn.runs.run import CONFIG
from faults.calls import Call
from faults.small import make_data, make_old
from faults.subjects import Subject, run_until, settled, subjects, unlogged
from faults.trials import in_child, options, report, scratch

FEW = 16  # of the calls that write pictures for TensorBoard one in so many
TWICE = 0.2  # share of the cases that are killed again as they go on


@dataclass
class Killer:
    """Kills this process before its `at`-th call, or in the middle of it where that is a write."""

    at: int
    inside: bool
    said: Path
    count: int = 0

    def __call__(self, call: Call) -> None:
        """Count, and note what is hit: the parent reads it."""
        self.count += 1
        if self.count == self.at:
            if self.inside:
                call.begin()
            self.said.write_text(f"{call.kind} {call.to or call.path}")
            os.kill(os.getpid(), signal.SIGKILL)


def in_peace(subject: Subject, folder: Path) -> None:
    """Do it once without a kill, and note its calls and its end."""
    subject.prepare(folder)
    told = folder.with_name("told")
    told.write_text("")

    def tell(call: Call) -> None:
        handle = os.open(told, os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{call.kind} {call.to or call.path}\n".encode())
        os.close(handle)

    found = run_until(subject, subject.first, folder, tell)
    if "found" not in found:
        raise RuntimeError(f"{subject.name}: {found}")
    subject.calls = tuple(told.read_text().splitlines())
    subject.tree = settled(folder)
    shutil.rmtree(folder)


def killed(subject: Subject, folder: Path, kills: list[tuple[int, bool]]) -> dict[str, Any]:
    """Kill it so often, let it end, and judge: `ok` and, where it is not, the `problem`."""
    subject.prepare(folder)
    before = settled(folder)
    hit, work = [], subject.first
    for at, inside in kills:
        struck = folder.with_name("struck")
        struck.unlink(missing_ok=True)
        ended = run_until(subject, work, folder, Killer(at, inside, struck))
        if ended["signal"] == signal.SIGKILL and struck.exists():
            hit.append(struck.read_text().replace(f"{folder}/", ""))
        elif "found" not in ended:
            return verdict(subject, hit, f"ended by itself: {ended}")
        if subject.overwrites and (problem := half_replaced(folder, before)):
            return verdict(subject, hit, problem)
        work = subject.again
    ended = run_until(subject, work, folder, None)
    found = settled(folder)
    if "found" not in ended:
        return verdict(subject, hit, f"does not go on: {ended}")
    different = sorted(
        k for k in found.keys() | subject.tree if found.get(k) != subject.tree.get(k)
    )
    if different:
        return verdict(subject, hit, f"other files: {different}")
    return verdict(subject, hit, unlogged(folder))


def verdict(subject: Subject, hit: list[str], problem: str) -> dict[str, Any]:
    """Return a case as it is logged."""
    return {"what": subject.name, "killed": hit, "ok": not problem, "problem": problem}


def half_replaced(folder: Path, before: dict[str, str]) -> str:
    """Return what is wrong where the old run is there, but not all of it."""
    found = settled(folder)
    if found.get(f"run/{CONFIG}") != before[f"run/{CONFIG}"]:
        return ""
    lost = sorted(name for name in before if found.get(name) != before[name])
    return f"the old run is there without {lost}" if lost else ""


def choose(found: list[Subject], cases: int, seed: int) -> list[tuple[int, list[tuple[int, bool]]]]:
    """Return which subject is killed when: every call of each once, before any a second time.

    In the middle of a write one is killed as often as before it.
    """
    chance = random.Random(seed)
    moments = [
        (i, at, inside)
        for i, subject in enumerate(found)
        for at, call in enumerate(subject.calls, 1)
        if "/summaries/" not in call or at % FEW == 0  # they are many, and all alike
        for inside in ([False, True] if call.startswith("write") else [False])
    ]
    chosen: list[tuple[int, list[tuple[int, bool]]]] = []
    while len(chosen) < cases:
        chance.shuffle(moments)
        for i, at, inside in moments[: cases - len(chosen)]:
            again = [(chance.randrange(1, 40), False)] if chance.random() < TWICE else []
            chosen.append((i, [(at, inside), *again]))
    return chosen


def cases(count: int, seed: int, only: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Try so many, of all subjects or some, and yield what came of each."""
    with scratch() as folder:
        data = make_data(folder / "data")
        done = in_child(lambda: make_old(data, folder / "old"), folder / "said")
        if "found" not in done:
            raise RuntimeError(str(done))
        found = [subject for subject in subjects(data) if only is None or subject.name in only]
        for i, subject in enumerate(found):
            in_peace(subject, folder / f"peace-{i}" / "work")
        for number, (i, kills) in enumerate(choose(found, count, seed)):
            place = folder / f"case-{number}"
            yield killed(found[i], place / "work", kills)
            shutil.rmtree(place)


def main(arguments: list[str]) -> int:
    """Try, log and say how many failed."""
    found = options("faults_of_kills", __doc__, 320, arguments)
    counted = Counted(cases(found.cases, found.seed, found.only))
    status = report(counted, found.log)
    print(f"{counted.kills:,} kills, {counted.inside_a_save:,} of them inside a save")
    return status


class Counted:
    """Counts the kills of the cases that pass through it."""

    def __init__(self, cases: Iterator[dict[str, Any]]) -> None:
        self._cases, self.kills, self.inside_a_save = cases, 0, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for case in self._cases:
            self.kills += len(case["killed"])
            self.inside_a_save += sum("checkpoints/" in call for call in case["killed"])
            yield case
