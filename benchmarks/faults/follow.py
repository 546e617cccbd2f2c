"""Follows a run that saves every 50 ms and keeps one checkpoint, from several processes at once.

    python benchmarks/run.py follow --seconds 300 --followers 3

What trains is a stand-in that holds the run's lock and saves weights that are a function of the
step. A link that leads nowhere lies there all the while, under the name of a later step. Every
follower must score ever later steps, none twice, and the last one; no read may fail or be partial:
the loss of steps that are drawn by chance is computed again. The link must be told of once.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcnn import presets
from deepcnn.events import Evaluated, Event, Noted
from deepcnn.inference.evaluation import Scorer
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import Owner
from deepcnn.runs.run import CONFIG, Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.training.start import train
from faults.notes import note, read, wait_for
from tools import program

EVERY = 0.05  # seconds from one checkpoint to the next
STEPS = 1_000_000  # that the run is to have, more than are made
EXAMPLES = 64
CHECKED = 20  # steps of each follower whose loss is computed again
PATIENCE = 120.0  # seconds for followers to begin, and to end

Start = Callable[..., Any]  # of a Thread or a Process


def begin(path: Path) -> dict[str, Tensor]:
    """Make a run without a whole checkpoint, and return tensors to save."""
    config = dataclasses.replace(
        presets.tiny(),
        steps=1,
        summary_every=0,
        device="cpu",
        precision="fp32",
        threads=1,
        model=dataclasses.replace(presets.tiny().model, widths=(4, 4, 8, 8)),
    )
    train(config, run_dir=path)
    run = Run(path)
    (only,) = checkpoint.paths(run.checkpoints)
    tensors = checkpoint.load(only).tensors
    only.unlink()
    run.write(CONFIG, run.read(CONFIG) | {"steps": STEPS})
    (run.checkpoints / f"step-{STEPS - 1:09d}.safetensors").symlink_to("gone")
    return tensors


def at(step: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a step, a function of it alone."""
    return {n: t + step * 1e-5 if t.is_floating_point() else t for n, t in tensors.items()}


def save(run: Run, step: int, tensors: dict[str, Tensor]) -> None:
    """Save a step, keeping no other."""
    owner = Owner.of(run.config(), TrainedOn.read(run))
    checkpoint.save(run.checkpoints, step, at(step, tensors), keep=1, owner=owner)


def follow(path: str, told: str) -> None:
    """Follow the run until its training ends, and note what was seen."""
    heard: list[Event] = []
    seen: list[tuple[int, float]] = []
    error = None
    try:
        scorer = Scorer(path, "test", examples=EXAMPLES, device="cpu", threads=1, emit=heard.append)
        Path(told).with_suffix(".ready").touch()
        for event in scorer.follow(EVERY):
            if isinstance(event, Evaluated):
                seen.append((event.step, event.loss))
    except Exception as raised:  # whatever it is
        error = f"{type(raised).__name__}: {raised}"
    notes = [event.text for event in heard if isinstance(event, Noted)]
    note(Path(told), {"seen": seen, "notes": notes, "error": error})


def campaign(folder: Path, seconds: float, followers: int, start: Start) -> list[dict[str, Any]]:
    """Save and follow for so many seconds; return what is told of each follower."""
    path = folder / "run"
    tensors = begin(path)
    run = Run(path)
    told = [folder / f"follower-{i}.json" for i in range(followers)]
    with run.lock():
        running = [start(target=follow, args=(str(path), str(each))) for each in told]
        for each in running:
            each.start()
        wait_for(lambda: all(t.with_suffix(".ready").exists() for t in told), PATIENCE)
        step, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            step += 1
            save(run, step, tensors)
            time.sleep(max(0.0, began + step * EVERY - time.monotonic()))
    for each in running:
        each.join(PATIENCE)
    return [judged(read(each), step, path, tensors) for each in told]


def judged(told: dict[str, Any] | None, last: int, path: Path, tensors: Any) -> dict[str, Any]:
    """Tell what is not as it should be of a follower; `last`: the step that was saved last."""
    if told is None:
        return {"scored": 0, "saved": last, "problems": ["it did not end"], "ok": False}
    steps = [step for step, _ in told["seen"]]
    problems = [told["error"]] if told["error"] else []
    if steps != sorted(set(steps)):
        problems.append("steps that do not rise")
    if steps[-1:] != [last]:
        problems.append(f"expected to end with step {last}, found {steps[-1:]}")
    if len(told["notes"]) != 1:
        problems.append(f"expected one note of the link, found {told['notes']}")
    some = random.Random(0).sample(told["seen"], min(CHECKED, len(steps)))
    for step, loss in some:
        if (expected := loss_at(path, step, tensors)) != loss:
            problems.append(f"step {step}: expected loss {expected}, found {loss}")
    return {"scored": len(steps), "saved": last, "problems": problems, "ok": not problems}


def loss_at(path: Path, step: int, tensors: dict[str, Tensor]) -> float:
    """Return the loss of a step, saved and scored alone."""
    run = Run(path)
    save(run, step, tensors)
    scorer = Scorer(path, "test", examples=EXAMPLES, device="cpu", threads=1)
    loss = scorer.once(step).loss
    (run.checkpoints / f"step-{step:09d}.safetensors").unlink()
    return loss


def main(arguments: list[str]) -> int:
    """Save and follow, write a line for each follower, and print a summary."""
    parser = program.parser("follow", __doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--followers", type=int, default=3)
    parser.add_argument("--log", type=Path, help="a file for a JSON line of each follower")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = multiprocessing.get_context("spawn").Process
    with tempfile.TemporaryDirectory() as scratch:
        found = campaign(Path(scratch), options.seconds, options.followers, start)
    if options.log:
        options.log.write_text("".join(f"{json.dumps(each)}\n" for each in found))
    for each in found:
        print(json.dumps(each))
    failed = sum(not each["ok"] for each in found)
    scored = sum(each["scored"] for each in found)
    print(json.dumps({"cases": len(found), "failed": failed, "scored": scored}))
    return 1 if failed else 0
