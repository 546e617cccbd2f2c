"""What happens when a disk is full, read-only or broken at any call that writes.

    python benchmarks/run.py faults_of_writing --cases 300 --seed 0 --log FILE.jsonl

Each case runs a command in a child process in which one call, or all from one on, that opens,
writes, flushes, renames, makes or removes a file fails with ENOSPC, EDQUOT, EFBIG, EROFS or EIO; or
with a real limit on the size of files; or, as root, on a disk that is too small, or as a user who
may not write there. A training must end with 0 and the checkpoint, byte for byte, of one that
was never hurt; or with 1 or 4 and lines that name the file, no traceback, whole checkpoints only,
and go on from there to the same bytes. Other commands must end with 0, or with 1 and one line.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from deepcnn.errors import DeepcnnError
from deepcnn.runs import checkpoint, log
from faults import trials
from faults.failing import ERRORS, Failing
from faults.forks import Child, Ended

STEPS = 20
TRAIN = ["train", "tiny", "--steps", str(STEPS), "--save-every", "5", "--keep", "2"]
TRAIN += ["--evaluate-every", "10", "--summary-every", "5", "--log-every", "2", "--threads", "1"]
TRAIN += ["--validation-size", "64", "--keep-best", "--precision", "fp32", "--device", "cpu"]
TRAIN += ["--model.widths", "4", "4", "8", "8", "--batch-size", "8", "--run-dir", "on/run"]
RESUME = ["train", "--resume", "on/run"]
NOBODY = 65534
LAST = f"step-{STEPS:09d}.safetensors"

# What is tried beside trainings, on a run that is there: `run` in the folder `there`.
EXPORT = ["export", "there/run", "--to"]
OTHERS = {
    "report": ["report", "there/run", "-o", "on/report.html"],
    "predict": ["predict", "there/run", "--data", "synthetic", "--out", "on/answers.csv"],
    "export safetensors": [*EXPORT, "safetensors", "--out", "on/m/x.safetensors"],
    "export html": [*EXPORT, "html", "--out", "on/m/x.html"],
    "convert": ["data", "convert", "synthetic", "on/data", "--to", "npz"],
    "convert cifar": ["data", "convert", "synthetic", "on/data", "--to", "cifar"],
}


class Campaign:
    """Trains once in peace, and knows how each case is judged."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.there = scratch / "there"
        self.calls: dict[str, list[tuple[str, str]]] = {}
        self._number = 0
        ended, folder = self.run("peace", TRAIN)
        assert ended.status == 0, ended
        self.last = (folder / "on/run/checkpoints" / LAST).read_bytes()
        self.lines = kinds_of(folder / "on/run/log.jsonl")
        self.there.mkdir()
        shutil.copytree(folder / "on/run", self.there / "run")

    def folder(self) -> Path:
        """Make a folder for a case: `on` is where faults are, `there` has a run."""
        self._number += 1
        folder = self.scratch / f"case-{self._number}"
        (folder / "on").mkdir(parents=True)
        if self.there.exists():
            (folder / "there").symlink_to(self.there)
        return folder

    def run(
        self,
        name: str,
        arguments: list[str],
        prepare: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> tuple[Ended, Path]:
        """Run a command in a folder of its own, or in one that is there."""
        folder = folder or self.folder()
        ended = Child(folder, folder / f"said-{name}", arguments, prepare).wait()
        return ended, folder

    def count(self, name: str, arguments: list[str]) -> int:
        """Return how many calls of a command could fail."""
        if name not in self.calls:
            folder = self.folder()
            if name == "resume":
                self.half_way(folder)
            found = folder / "calls"
            failing = Failing(folder / "on")

            def prepare() -> None:
                failing.install()
                exiting = os._exit

                def leave(status: int) -> None:
                    found.write_text(json.dumps(failing.calls))
                    exiting(status)

                os._exit = leave  # type: ignore[assignment]

            ended, _ = self.run("count", arguments, prepare, folder)
            assert ended.status == 0, ended
            self.calls[name] = [(call, path) for call, path in json.loads(found.read_text())]
            shutil.rmtree(folder)
        return len(self.calls[name])

    def half_way(self, folder: Path) -> None:
        """Put a run that has half its steps into a folder."""
        half = self.scratch / "half"
        if not half.exists():
            _, made = self.run("half", [*TRAIN[:3], "10", *TRAIN[4:]])
            shutil.copytree(made / "on/run", half)
        shutil.copytree(half, folder / "on/run")

    def judge_training(self, ended: Ended, folder: Path, *, removes: bool = True) -> list[str]:
        """Return what is wrong with how a training ended and what it left.

        `removes`: it could remove files.
        """
        wrong = said_wrong(ended, (0, 1, 4))
        run = folder / "on/run"
        for path in checkpoint.paths(run / "checkpoints") + checkpoint.paths(
            run / "checkpoints/best"
        ):
            try:
                checkpoint.load(path)
            except DeepcnnError as error:
                wrong.append(f"damaged checkpoint: {error}")
        if ended.status == 0 and not self.is_last(run):
            wrong.append("status 0, and another last checkpoint")
        if ended.status == 4 and "No checkpoint of step" not in ended.out:
            wrong.append("status 4, and nothing said of it")
        begun = (run / "config.json").exists()
        again = [*RESUME, "--steps", str(STEPS)] if begun else TRAIN
        after, _ = self.run("again", again, folder=folder)
        if after.status != 0:
            wrong.append(f"does not go on: {after.status} {after.err[-300:]}")
        elif not self.is_last(run):
            wrong.append("goes on to another checkpoint")
        # Beside checkpoints only what could not be removed may be left.
        places = run if removes else run / "checkpoints"
        if left := [path.name for path in places.rglob("*.tmp")]:
            wrong.append(f"left over: {left}")
        return wrong

    def is_last(self, run: Path) -> bool:
        """Tell whether a run has the last checkpoint of the one in peace."""
        path = run / "checkpoints" / LAST
        return path.exists() and path.read_bytes() == self.last


def kinds_of(path: Path) -> Counter[str]:
    """Count the events of a log by their kind, without notes."""
    found: Counter[str] = Counter(event["event"] for event in log.read_log(path))
    for name in ("Noted", "Saved", "Reported"):  # which tell of what failed, or did not
        del found[name]
    return found


def said_wrong(ended: Ended, statuses: tuple[int, ...]) -> list[str]:
    """Return what is wrong with what a command said."""
    wrong = []
    if ended.status not in statuses:
        wrong.append(f"status {ended.status}: {ended.err[-500:]}")
    if "Traceback" in ended.err + ended.out or "Exception ignored" in ended.err:
        wrong.append(f"traceback: {ended.err[-1500:]}")
    if ended.status == 1:
        lines = [line for line in ended.err.splitlines() if line.startswith("deepcnn: ")]
        if len(lines) != 1:
            wrong.append(f"expected one line of error, found {lines}")
        elif "/" not in lines[0] or len(lines[0]) < 40 or "[Errno" in lines[0]:
            wrong.append(f"expected the file, what failed and what to do, found {lines[0]}")
    return wrong


# The cases


def patched(campaign: Campaign, draw: random.Random, error: str) -> dict[str, Any]:
    """Let a call of a training, or of going on with one, fail, or all from one on."""
    name, arguments = draw.choice([("train", TRAIN), ("train", TRAIN), ("resume", [*RESUME])])
    if name == "resume":
        arguments = [*arguments, "--steps", str(STEPS)]
    first = draw.randrange(campaign.count(name, arguments))
    count = draw.choice([1, 1, 1, 5, 20, 10**9])
    folder = campaign.folder()
    if name == "resume":
        campaign.half_way(folder)
    half = draw.random() < 0.5
    failing = Failing(folder / "on", error, first, count, half)
    ended, _ = campaign.run("hurt", arguments, failing.install, folder)
    call, path = campaign.calls[name][first]
    wrong = campaign.judge_training(ended, folder, removes=count == 1)
    if count == 1 and ended.status == 0 and name == "train" and not wrong:
        # `again` has added to the log; what a single failure delayed must be there in order
        found = kinds_of(folder / "on/run/log.jsonl")
        lacking = [kind for kind, many in campaign.lines.items() if found[kind] < many]
        if lacking:
            wrong.append(f"the log lacks {lacking}")
    what = {"call": call, "path": Path(path).name, "number": first, "fail": count, "half": half}
    return finish(folder, ended, wrong, {"what": f"patched {name}", "error": error, **what})


def other(campaign: Campaign, draw: random.Random, error: str) -> dict[str, Any]:
    """Let a call of another command fail, and all after it, or not."""
    name = draw.choice([*OTHERS])
    arguments = OTHERS[name]
    first = draw.randrange(campaign.count(name, arguments))
    count = draw.choice([1, 10**9])
    folder = campaign.folder()
    failing = Failing(folder / "on", error, first, count, draw.random() < 0.5)
    ended, _ = campaign.run("hurt", arguments, failing.install, folder)
    call, path = campaign.calls[name][first]
    what = {"call": call, "path": Path(path).name, "number": first, "fail": count}
    return finish(
        folder,
        ended,
        said_wrong(ended, (0, 1)),
        {"what": f"patched {name}", "error": error, **what},
    )


def limited(campaign: Campaign, draw: random.Random, error: str) -> dict[str, Any]:  # noqa: ARG001
    """Limit the size of files, as `ulimit -f`; EFBIG comes from the system itself."""
    size = int(10 ** draw.uniform(3.7, 5.7))  # more than what is printed
    name = draw.choice(["train", *OTHERS])

    def prepare() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    ended, folder = campaign.run("hurt", OTHERS.get(name, TRAIN), prepare)
    wrong = campaign.judge_training(ended, folder) if name == "train" else said_wrong(ended, (0, 1))
    return finish(folder, ended, wrong, {"what": f"files limited, {name}", "bytes": size})


def small_disk(campaign: Campaign, draw: random.Random, error: str) -> dict[str, Any]:  # noqa: ARG001
    """Work on a disk that is too small, which then is made larger, or becomes read-only."""
    size = int(10 ** draw.uniform(4, 6.3))
    name = draw.choice(["train", "train", *OTHERS])
    folder = campaign.folder()
    with mounted(folder / "on", size):
        ended, _ = campaign.run("hurt", OTHERS.get(name, TRAIN), folder=folder)
        wrong = []
        if name == "train":
            subprocess.run(["mount", "-o", "remount,size=100m", folder / "on"], check=True)
            wrong = campaign.judge_training(ended, folder)
        else:
            wrong = said_wrong(ended, (0, 1))
    return finish(folder, ended, wrong, {"what": f"disk too small, {name}", "bytes": size})


def read_only(campaign: Campaign, draw: random.Random, error: str) -> dict[str, Any]:  # noqa: ARG001
    """Work on a disk that is read-only, or as a user who may not write there."""
    name = draw.choice(["train", "resume", *OTHERS])
    how = draw.choice(["disk", "user"])
    folder = campaign.folder()
    arguments = RESUME if name == "resume" else OTHERS.get(name, TRAIN)
    if how == "user":
        if name == "resume":
            campaign.half_way(folder)
        ended, _ = campaign.run("hurt", arguments, partial(os.setuid, NOBODY), folder)
    else:
        with mounted(folder / "on", 10**7):
            if name == "resume":
                campaign.half_way(folder)
            subprocess.run(["mount", "-o", "remount,ro", folder / "on"], check=True)
            ended, _ = campaign.run("hurt", arguments, folder=folder)
    return finish(folder, ended, said_wrong(ended, (1,)), {"what": f"read-only {how}, {name}"})


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Mount a disk in memory of so many bytes on a folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def can_mount(folder: Path) -> bool:
    """Tell whether this process may mount a disk."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return done.returncode == 0


def finish(folder: Path, ended: Ended, wrong: list[str], about: dict[str, Any]) -> dict[str, Any]:
    """Return what is logged of a case; keep its folder where something is wrong."""
    if not wrong:
        shutil.rmtree(folder)
    lines = ended.err.strip().splitlines()
    said = (lines or [""])[-1].replace(str(folder), "")
    return {
        **about,
        "outcome": f"status {ended.status}",
        "said": said,
        "seconds": round(ended.seconds, 2),
        "ok": not wrong,
        **({"wrong": wrong} if wrong else {}),
    }


def cases(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each case."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.chmod(scratch, 0o755)  # noqa: PTH101 (other users go through)
        campaign = Campaign(Path(scratch).resolve())
        kinds = [patched] * 5 + [other] * 2 + [limited]
        if can_mount(campaign.scratch / "mount"):
            kinds += [small_disk, read_only]
        for number in range(count):
            case = kinds[number % len(kinds)]
            yield case(campaign, draw, ERRORS[number % len(ERRORS)])


def main(arguments: list[str]) -> int:
    """Try so many cases, log each, and tell how many failed."""
    found = trials.options_of(trials.parser_of("faults_of_writing", __doc__, 300), arguments)
    return trials.report(cases(found.cases, found.seed), found.log)
