"""What a power cut at any moment of a training leaves, and whether it goes on from there.

    python benchmarks/run.py faults_of_power

The calls by which small trainings change files are traced with their data, also of trainings that
were killed and go on. After each call the disk may hold many things (`disk.py` has the rules): each
of them, or so many at random, is written into a folder, where a user then resumes what is a run and
repeats the command where it is none. It must go on from the newest checkpoint whose writing was
over, or from a later one, and end with the very files of a training in peace. The same holds of
`data convert`, of an export and of written answers. Needs Linux.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcnn.runs import checkpoint
from faults import disk
from faults.calls import Call
from faults.disk import Disk, Tree
from faults.kills import Killer
from faults.small import make_data, make_old
from faults.subjects import Subject, run_until, settled, subjects, unlogged
from faults.trials import in_child, options, report, scratch

MOST = 12  # states after one call; of more so many are drawn
TRACED = ("preloaded", "judged, summaries", "overwrite", "overwrite, judged")
KILLED_BEFORE = 3  # traces of each training that goes on after a kill


@dataclass
class State:
    """What a disk may hold: after which call, and the step of the newest checkpoint then."""

    subject: Subject
    after: str
    tree: Tree
    saved: int


def trace(subject: Subject, folder: Path, kill_at: int | None) -> list[Call]:
    """Do the work and return its calls; with `kill_at` it is killed there and goes on first."""
    told = folder.with_name("told")
    told.write_bytes(b"")

    def tell(call: Call) -> None:
        with told.open("ab") as file:
            pickle.dump(call, file)

    work = subject.first
    if kill_at is not None:
        killer = Killer(kill_at, False, folder.with_name("struck"))

        def tell_and_kill(call: Call) -> None:
            if killer.count + 1 < kill_at:  # the last one is not made
                tell(call)
            killer(call)

        run_until(subject, work, folder, tell_and_kill)
        work = subject.again
    ended = run_until(subject, work, folder, tell)
    if "found" not in ended:
        raise RuntimeError(f"{subject.name}: {ended}")
    calls = []
    with told.open("rb") as file:
        while file.peek(1):
            calls.append(pickle.load(file))
    return calls


def states(
    subject: Subject, place: Path, chance: random.Random, kill_at: int | None
) -> Iterator[State]:
    """Yield what a power cut may leave at any moment of a training, each once."""
    folder = place / "work"
    subject.prepare(folder)
    start = Disk(folder)
    calls = trace(subject, folder, kill_at)
    if subject.tree is None:
        subject.tree = settled(folder)
    seen: set[bytes] = set()
    saved = 0
    for number in range(len(calls) + 1):
        if number:
            start.do(calls[number - 1])
            saved = max(saved, _saved_by(calls[:number]))
        for tree in start.after_a_cut(MOST, chance):
            digest = hashlib.sha256(pickle.dumps(sorted(tree.items()))).digest()
            if digest not in seen:
                seen.add(digest)
                yield State(subject, _last(calls[:number]).replace(f"{folder}/", ""), tree, saved)
    shutil.rmtree(place)


def _last(calls: list[Call]) -> str:
    return f"{calls[-1].kind} {calls[-1].to or calls[-1].path}" if calls else "the beginning"


def _saved_by(calls: list[Call]) -> int:
    """Return the step of the checkpoint whose name the last call brings to the disk, or 0."""
    *before, last = calls
    if last.kind != "fsync" or not last.path.endswith("/run/checkpoints"):
        return 0
    names = [call.to for call in before if call.kind == "rename"]
    steps = [checkpoint.step_of(Path(name)) for name in names if f"{last.path}/step" in name]
    return max(steps, default=0)


def tried(state: State, place: Path) -> dict[str, Any]:
    """Let a user go on from what a power cut left; return a case as it is logged."""
    folder, subject = place / "work", state.subject
    disk.write(state.tree, folder)
    ended = run_until(subject, subject.again, folder, None)
    found, expected = settled(folder), subject.tree or {}
    different = sorted(k for k in found.keys() | expected if found.get(k) != expected.get(k))
    problem = ""
    if "found" not in ended:
        problem = f"does not go on: {ended}"
    elif isinstance(ended["found"], int) and ended["found"] < state.saved:
        problem = f"went on from step {ended['found']}, though {state.saved} was saved"
    elif different:
        problem = f"other files: {different}"
    else:
        problem = unlogged(folder)
    shutil.rmtree(place)
    return {"what": subject.name, "after": state.after, "ok": not problem, "problem": problem}


def cases(count: int, seed: int, only: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Try so many states, of all that were found, and yield what came of each."""
    chance = random.Random(seed)
    with scratch() as folder:
        data = make_data(folder / "data")
        done = in_child(lambda: make_old(data, folder / "old"), folder / "said")
        if "found" not in done:
            raise RuntimeError(str(done))
        found: list[State] = []
        for subject in subjects(data):
            if subject.name in (only or TRACED) or (not only and not subject.is_training):
                kills = [chance.randrange(5, 60) for _ in range(KILLED_BEFORE)]
                for kill_at in [None, *(kills if subject.is_training else [])]:
                    found += states(subject, folder / "trace", chance, kill_at)
        chosen = chance.sample(found, min(count, len(found)))
        print(f"{len(found):,} states after a power cut, of which {len(chosen):,} are tried")
        for number, state in enumerate(chosen):
            yield tried(state, folder / f"case-{number}")


def main(arguments: list[str]) -> int:
    """Try, log and say how many failed."""
    found = options("faults_of_power", __doc__, 500, arguments)
    return report(cases(found.cases, found.seed, found.only), found.log)
