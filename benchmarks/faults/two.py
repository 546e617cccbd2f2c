"""What happens when two processes train in one directory, or its lock is no plain file.

    python benchmarks/run.py faults_of_two

Two of: a start, a start with --overwrite, a resumption, each with a seed of its own, begin in the
same directory, at once or one while the other works or ends. Each must end well or with an error
that says who is there; in the end there is one whole run, which one of them made alone, from its
settings to its last checkpoint, and nobody's finished run is gone without --overwrite. The lock is
also a folder, a link (to nowhere, itself, a file or a device elsewhere), a pipe, or what a killed
process left. Needs Linux.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import LOCK, Run
from deepcnn.training.start import resume
from faults.small import Training, make_data
from faults.trials import end_of, in_child, options, report, scratch, start, tree

ONE = 0.15  # seconds that a training takes, about
REFUSALS = (
    "another process is training this run",
    "holds a run already",
    "another process replaced this run",
    "the run that was here was being replaced",
    "expected the directory of a run, with a config.json",
    "another process is replacing it just now",
)
PAIRS = [
    ("start", "start"),
    ("start", "overwrite"),
    ("overwrite", "overwrite"),
    ("resume", "resume"),
    ("resume", "overwrite"),
    ("overwrite", "resume"),
    ("resume", "start"),
]
HALF = 4  # steps of the run that is there where one is resumed, or replaced
STEPS = 6


class Place:
    """Trainings by seed, in peace and together."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, make_data(folder / "data")
        self.last = {seed: self._in_peace(seed) for seed in (0, 1, 2)}
        in_child(lambda: self.begin(folder / "half", 0, steps=HALF), folder / "said")

    def begin(self, run: Path, seed: int, *, overwrite: bool = False, steps: int = STEPS) -> int:
        """Begin a training."""
        training = replace(Training("contender"), overwrite=overwrite)
        return training.begin(self.data, run, seed=seed, steps=steps)

    def work(self, what: str, run: Path, seed: int) -> Callable[[], object]:
        """Return what a contender does."""
        if what == "resume":
            return lambda: str(resume(run, changes=lambda c: replace(c, steps=STEPS)).run)
        return lambda: self.begin(run, seed, overwrite=what == "overwrite")

    def _in_peace(self, seed: int) -> str:
        run = self.folder / f"peace-{seed}"
        found = in_child(lambda: self.begin(run, seed), self.folder / "said")
        if "found" not in found:
            raise RuntimeError(str(found))
        return last(run)


def last(run: Path) -> str:
    """Return the SHA-256 of the checkpoint of the last step."""
    return tree(run).get(f"checkpoints/step-{STEPS:09d}.safetensors", "none")


def together(place: Place, pair: tuple[str, str], delay: float, number: int) -> dict[str, Any]:
    """Let two work in one directory, the second so many seconds after the first; judge."""
    case = place.folder / f"case-{number}"
    case.mkdir()
    run = case / "run"
    if "resume" in pair:
        shutil.copytree(place.folder / "half", run)
    said = [case / "said-0", case / "said-1"]
    children = [start(place.work(pair[0], run, 1), said[0])]
    time.sleep(delay)
    children.append(start(place.work(pair[1], run, 2), said[1]))
    ends = [end_of(child, path) for child, path in zip(children, said, strict=True)]
    problem = judged(place, pair, ends, run)
    shutil.rmtree(case)
    told = [end.get("error", "done").replace(f"{case}/", "") for end in ends]
    about = {"what": " and ".join(pair), "delay": round(delay, 3), "ended": told}
    return {**about, "ok": not problem, "problem": problem}


def judged(place: Place, pair: tuple[str, str], ends: list[dict[str, Any]], run: Path) -> str:
    """Return what is wrong with how two ended, and with what they left."""
    refused = [end for end in ends if "found" not in end]
    for end in refused:
        if not any(text in end.get("error", "") for text in REFUSALS):
            return f"ended otherwise: {end}"
    if len(refused) == 2:
        return "both were refused"
    if pair == ("start", "start") and not refused:
        return "a finished run was deleted unasked"
    seed = Run(run).config().seed
    if last(run) != place.last[seed]:
        return f"the last checkpoint is not that of seed {seed} alone"
    if len(events(read_log(run / "log.jsonl"), "Finished")) < 1:
        return "the log does not tell of the end"
    left = [name for name in tree(run) if name.endswith((".tmp", ".replaced"))]
    if left:
        return f"left over: {left}"
    won = [w for w, end in zip(pair, ends, strict=True) if "found" in end]
    seeds = {"resume": {0, 1, 2}, "start": {1, 2}, "overwrite": {1, 2}}
    if seed not in set().union(*(seeds[what] for what in won)):
        return f"seed {seed} is there, and {won} ended well"
    return ""


LOCKS: dict[str, Callable[[Path, Path], object]] = {
    "a folder": lambda lock, _: lock.mkdir(),
    "a link to nowhere": lambda lock, other: lock.symlink_to(other.with_name("nowhere")),
    "a link to itself": lambda lock, _: lock.symlink_to(lock),
    "a link to a file": lambda lock, other: lock.symlink_to(other),
    "a link to a folder": lambda lock, other: lock.symlink_to(other.parent),
    "a link to a device": lambda lock, _: lock.symlink_to("/dev/null"),
    "a pipe": lambda lock, _: os.mkfifo(lock),
}


def locked_out(place: Place, lock: str, what: str, number: int) -> dict[str, Any]:
    """Train where the lock is no plain file: one clear error, and nothing is changed."""
    case = place.folder / f"case-{number}"
    run, other = case / "run", case / "elsewhere" / "file"
    other.parent.mkdir(parents=True)
    other.write_text("precious")
    if what != "start":
        shutil.copytree(place.folder / "half", run)
        (run / LOCK).unlink()
    else:
        run.mkdir()
    LOCKS[lock](run / LOCK, other)
    before = tree(case)
    end = in_child(place.work(what, run, 1), place.folder / "said")
    error = end.get("error", "nothing")
    problem = ""
    if end.get("kind") != "RunError" or f"{run / LOCK}: expected a plain file" not in error:
        problem = f"ended otherwise: {end}"
    elif tree(case) != before:
        problem = "something was changed"
    shutil.rmtree(case)
    about = {"what": f"{what}, the lock is {lock}", "ended": [error.replace(f"{case}/", "")]}
    return {**about, "ok": not problem, "problem": problem}


def left_lock(place: Place, content: str, number: int) -> dict[str, Any]:
    """Go on where a process that is gone left its lock, with anything in it."""
    run = place.folder / f"case-{number}"
    shutil.copytree(place.folder / "half", run)
    (run / LOCK).write_text(content)
    end = in_child(place.work("resume", run, 1), place.folder / "said")
    problem = "" if "found" in end and last(run) == place.last[0] else f"ended otherwise: {end}"
    shutil.rmtree(run)
    return {
        "what": "resume, a stale lock",
        "ended": [f"{len(content)} bytes in it"],
        "ok": not problem,
        "problem": problem,
    }


def cases(count: int, seed: int, only: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Try so many pairs, then all locks, and yield what came of each; `only` some pairs, alone."""
    chance = random.Random(seed)
    pairs = [pair for pair in PAIRS if only is None or " and ".join(pair) in only]
    with scratch() as folder:
        place = Place(folder)
        for number in range(count):
            # A third at once, a third meanwhile, a third around the end of the first.
            delay = chance.choice([0, chance.uniform(0, ONE), chance.uniform(ONE / 2, 2 * ONE)])
            yield together(place, pairs[number % len(pairs)], delay, number)
        if only is not None:
            return
        for lock in LOCKS:
            for what in ("start", "overwrite", "resume"):
                yield locked_out(place, lock, what, count)
        for content in ("", "4194303", "x" * 5000):
            yield left_lock(place, content, count)


def main(arguments: list[str]) -> int:
    """Try, log and say how many failed."""
    found = options("faults_of_two", __doc__, 210, arguments)
    return report(cases(found.cases, found.seed, found.only), found.log)
