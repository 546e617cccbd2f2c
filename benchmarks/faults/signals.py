"""What happens when a training is told to stop at any time, or nobody reads what it prints.

    python benchmarks/run.py faults_of_signals --cases 200 --seed 0 --log FILE.jsonl

Each case trains in a child process and sends it SIGTERM, SIGINT, SIGHUP or SIGUSR1 at a random
time, while it reads its data, makes steps, scores or ends; or closes the pipe that it prints to.
Some get a second one. It must end within ten seconds, without a traceback, with the signal's exit
status, or with 0 after SIGUSR1 or where it was done already; what it says was saved must be saved.
Going on must lead to the last checkpoint of a training that was never stopped, byte for byte, and
each evaluation that is due must be in the log.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.open import load_dataset
from deepcnn.runs import checkpoint, log
from faults import trials
from faults.forks import Child, Ended

STEPS, EVERY = 40, 10
LIMIT = 10.0  # seconds from the signal to the end
TRAIN = ["train", "tiny", "--steps", str(STEPS), "--save-every", "15", "--keep", "2"]
TRAIN += ["--evaluate-every", str(EVERY), "--summary-every", "20", "--log-every", "2"]
TRAIN += ["--threads", "1", "--precision", "fp32", "--device", "cpu", "--inputs.views", "ten"]
TRAIN += ["--batch-size", "16", "--run-dir", "run"]
TRAIN += ["--data", "../pictures", "--evaluate-on", "train", "test"]
LAST = f"step-{STEPS:09d}.safetensors"
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")


class Campaign:
    """Trains once in peace, and knows how each case is judged."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self._number = scratch, 0
        for split, count in (("train", 300), ("test", 100)):
            pictures(scratch / "pictures" / split, load_dataset("synthetic", split), count)
        folder = self.folder()
        ended = Child(folder, folder / "said", TRAIN).wait()
        assert ended.status == 0, ended
        self.seconds = ended.seconds
        self.last = (folder / "run/checkpoints" / LAST).read_bytes()

    def folder(self) -> Path:
        """Make a folder for a case."""
        self._number += 1
        folder = self.scratch / f"case-{self._number}"
        folder.mkdir()
        return folder

    def judge(self, folder: Path, ended: Ended) -> list[str]:
        """Return what is wrong with what a training left, and with how it goes on."""
        wrong, run = [], folder / "run"
        if "Traceback" in ended.err + ended.out or "Exception ignored" in ended.err:
            wrong.append(f"traceback: {ended.err[-1500:]}")
        told = re.search(r"Stopped and saved at step (\d+)", ended.out)
        saved = [checkpoint.step_of(path) for path in checkpoint.paths(run / "checkpoints")]
        if told is not None and int(told[1]) not in (0, *saved):
            wrong.append(f"said to be saved: {told[1]}, is saved: {saved}")
        again = ["train", "--resume", "run"] if (run / "config.json").exists() else TRAIN
        after = Child(folder, folder / "said-again", again).wait()
        path = run / "checkpoints" / LAST
        if after.status != 0:
            wrong.append(f"does not go on: {after.status} {after.err[-300:]}")
        elif not path.exists() or path.read_bytes() != self.last:
            wrong.append("goes on to another checkpoint")
        else:
            scored = {
                event["step"] for event in log.events(log.read_log(run / "log.jsonl"), "Evaluated")
            }
            if lacking := {*range(EVERY, STEPS + 1, EVERY)} - scored:
                wrong.append(f"never scored at {sorted(lacking)}")
        return wrong


def pictures(folder: Path, arrays: Arrays, count: int) -> None:
    """Write the first so many images as pictures, in a folder for each class."""
    for number in range(count):
        name = folder / arrays.classes[arrays.labels[number]]
        name.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays.images[number]).save(name / f"{number}.png")


def moment_of(folder: Path) -> str:
    """Tell what a training is doing, by its log."""
    path = folder / "run/log.jsonl"
    try:
        events = log.read_log(path)
    except Exception:
        return "reading"
    if not events:
        return "reading"
    last = events[-1]
    return f"after {last['event']} {last.get('step', '')}".strip()


def signalled(campaign: Campaign, draw: random.Random, name: str) -> dict[str, Any]:
    """Send a signal at a random time, and in some cases a second one a moment later."""
    folder = campaign.folder()
    delay, twice = draw.uniform(0.0, 1.05 * campaign.seconds), draw.random() < 0.2
    between = draw.uniform(0.0, 0.1)
    number = getattr(signal, name)
    child = Child(folder, folder / "said", TRAIN)
    time.sleep(delay)
    moment = moment_of(folder)
    began = time.monotonic()
    os.kill(child.pid, number)  # a child that has ended waits for us, and takes it
    if twice:
        time.sleep(between)
        os.kill(child.pid, number)
    ended = child.wait()
    seconds = time.monotonic() - began
    wrong = []
    status = 0 if name == "SIGUSR1" else 128 + number
    done = (folder / "run/checkpoints" / LAST).exists() and ended.status == 0
    allowed = {status, 128 + number} if twice else {status}
    if ended.status not in allowed and not done:
        wrong.append(f"status {ended.status} instead of {status}: {ended.err[-500:]}")
    if seconds > LIMIT:
        wrong.append(f"{seconds:.1f} s")
    wrong += campaign.judge(folder, ended)
    about = {"what": name + (" twice" if twice else ""), "after": round(delay, 3), "moment": moment}
    return finish(folder, ended, wrong, about | {"seconds": round(seconds, 2)})


def closed(campaign: Campaign, draw: random.Random, name: str) -> dict[str, Any]:  # noqa: ARG001
    """Read some lines of what it prints, and then no more, as `head` does."""
    folder = campaign.folder()
    lines = draw.randrange(1, 30)
    reading, writing = os.pipe()
    # The child must not hold the end itself that is read from.
    child = Child(folder, folder / "said", TRAIN, lambda: os.close(reading), output=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        for _ in range(lines):
            pipe.readline()
    began = time.monotonic()
    ended = child.wait()
    seconds = time.monotonic() - began
    wrong = []
    done = (folder / "run/checkpoints" / LAST).exists() and ended.status == 0
    if ended.status != 141 and not done:
        wrong.append(f"status {ended.status} instead of 141: {ended.err[-500:]}")
    if ended.err:
        wrong.append(f"not quiet: {ended.err[-500:]}")
    if seconds > LIMIT:
        wrong.append(f"{seconds:.1f} s")
    wrong += campaign.judge(folder, ended)
    about = {"what": "closed pipe", "after": f"{lines} lines", "seconds": round(seconds, 2)}
    return finish(folder, ended, wrong, about)


def finish(folder: Path, ended: Ended, wrong: list[str], about: dict[str, Any]) -> dict[str, Any]:
    """Return what is logged of a case; keep its folder where something is wrong."""
    if not wrong:
        shutil.rmtree(folder)
    result = {**about, "outcome": f"status {ended.status}", "ok": not wrong}
    return result | ({"wrong": wrong} if wrong else {})


def cases(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each case."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign(Path(scratch).resolve())
        for number in range(count):
            case = closed if number % 10 == 9 else signalled
            yield case(campaign, draw, NAMES[number % len(NAMES)])


def main(arguments: list[str]) -> int:
    """Try so many cases, log each, and tell how many failed."""
    found = trials.options_of(trials.parser_of("faults_of_signals", __doc__, 200), arguments)
    return trials.report(cases(found.cases, found.seed), found.log)
