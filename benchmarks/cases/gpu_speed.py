r"""How fast a GPU trains: the tutorial whole, or runs to 94 and 96 % beside published programs.

    python benchmarks/run.py gpu_speed tutorial
    python benchmarks/run.py gpu_speed speedrun94_gpu --runs 30 \
        --peer airbench=…/airbench94_muon.py --peer hiverge=…/cifar10_speedrun.py
    python benchmarks/run.py gpu_speed speedrun96 --runs 10 --peer airbench=…/airbench96_faster.py
    python benchmarks/run.py gpu_speed cuda_convnet --runs 5 --views one --minutes 120

Each seed is trained in this process, after one run that is not counted; its `seconds` are those of
making the whitening filters, of training from before the first step to after the last, and of
scoring. What it takes to write the checkpoint in between is told apart, as `saving`: a peer writes
none. With `--views` it is scored over these views of the test images, too, which is not timed.
A peer's program runs as it is, but without pauses (`peers/published_program.py`), in the
folder `--peer-data` (it reads `cifar10/train.pt` and `test.pt` there, which are made where they are
missing), until it has printed so many results after its first, in which it compiles. Every result
is stored as it comes, and at the end of `--minutes` the program stops with what there is. The run
that is not counted is watched for 50 steps: `gaps` is the share of their time in which no kernel
ran, with the kernels that took most.
`--device cpu --set steps=20 …` tries it all without a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import deepcnn
from deepcnn.config import Config, from_dict, to_dict
from deepcnn.events import Advanced, Evaluated, Event, Listener, Saved, Started
from deepcnn.models.speednet import Speednet
from deepcnn.settings import Views
from tools import report
from tools.program import BENCHMARKS

PROFILED = 50  # steps
ALONE = BENCHMARKS / "peers" / "published_program.py"
RESULT = re.compile(r"\|\s*eval\s*\|.*\|\s*(?P<accuracy>[\d.]+)\s*\|\s*(?P<seconds>[\d.]+)\s*\|")


class Timer:
    """Listens to a training, from before its first step to its last score.

    `found`: the accuracy, and the seconds of `training`, of `saving` and of `scoring`, at the end
    of each of which the device has answered, and `seconds`, which leaves out the saving.
    """

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def hear(self, event: Event) -> None:
        """Take the time."""
        if isinstance(event, Started):
            self._began = time.perf_counter()
        elif isinstance(event, Advanced) and event.step == event.steps:
            _wait()
            self._trained = time.perf_counter()
        elif isinstance(event, Saved):
            self._saved = time.perf_counter()
        elif isinstance(event, Evaluated):
            training = self._trained - self._began
            scoring = time.perf_counter() - self._saved
            self.found = {
                "accuracy": event.correct / event.total,
                "seconds": training + scoring,
                "training": training,
                "saving": self._saved - self._trained,
                "scoring": scoring,
            }

    def score(self, views: str, device: str, run: Path) -> None:
        """Note the accuracy over other views, untimed."""
        evaluated = deepcnn.evaluate(run, views=views, device=device)
        self.found[f"accuracy, {views}"] = evaluated.correct / evaluated.total


class Profiler:
    """Listens to a training, and looks at `PROFILED` steps in its middle."""

    def __init__(self, first_step: int) -> None:
        self._first = first_step
        self.found: dict[str, Any] = {}
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, acc_events=True)

    def hear(self, event: Event) -> None:
        """Start and stop the profile."""
        if not isinstance(event, Advanced):
            return
        if event.step == self._first:
            _wait()
            self._profile.start()
            self._began = time.perf_counter()
        elif event.step == self._first + PROFILED:
            _wait()
            seconds = time.perf_counter() - self._began
            self._profile.stop()
            # With a GPU there are rows of its kernels, and of what launched them for as long.
            gpu = torch.cuda.is_available()
            rows = [
                (row.key, (row.self_device_time_total or row.self_cpu_time_total) / 1e6, row.count)
                for row in self._profile.key_averages()
                if not gpu or row.device_type == DeviceType.CUDA
            ]
            rows.sort(key=lambda row: -row[1])
            self.found = {
                "seconds a step": seconds / PROFILED,
                "gaps": 1 - sum(row[1] for row in rows) / seconds,
                "most": [
                    {"name": name, "seconds a step": s / PROFILED, "calls": calls}
                    for name, s, calls in rows[:12]
                ],
            }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(
    config: Config,
    seed: int,
    listener: Listener,
    look: Callable[[Path], None] | None = None,
) -> float:
    """Train once, in a folder that is then thrown away; return the seconds of whitening.

    `look` is shown the run before.
    """
    whitening = [0.0]
    initialize = Speednet.initialize_by_blocks

    def timed(model: Speednet, blocks: Iterable[torch.Tensor]) -> None:
        _wait()
        began = time.perf_counter()
        initialize(model, blocks)
        whitening.append(time.perf_counter() - began)

    with (
        tempfile.TemporaryDirectory() as folder,
        unittest.mock.patch.object(Speednet, "initialize_by_blocks", timed),
    ):
        run = Path(folder) / "run"
        deepcnn.train(dataclasses.replace(config, seed=seed), run_dir=run, emit=listener)
        if look is not None:
            look(run)
    return whitening[-1]


def run_peer(program: Path, data: Path, runs: int, deadline: float) -> list[dict[str, float]]:
    """Run a published program until it has printed `runs` results."""
    found: list[dict[str, float]] = []
    last = ""
    with subprocess.Popen(
        [sys.executable, "-u", str(ALONE), str(program.resolve())],
        cwd=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        alarm = threading.Timer(max(0.0, deadline - time.perf_counter()), process.kill)
        alarm.start()
        for line in process.stdout:  # ends when the process does
            last = line.strip() or last
            if match := RESULT.search(line):
                found.append({name: float(value) for name, value in match.groupdict().items()})
            if len(found) > runs:  # the first result is that of the run in which it compiles
                break
        alarm.cancel()
        process.kill()
    if not found:
        print(f"{program}: no result; its last line: {last}", file=sys.stderr)
    return found[1 : runs + 1]


def write_for_peers(folder: Path, data_dir: str | None) -> None:
    """Write CIFAR-10 as the published programs keep it, where it is missing."""
    (folder / "cifar10").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        path = folder / "cifar10" / f"{split}.pt"
        if not path.exists():
            arrays = deepcnn.load_dataset("cifar10", split, data_dir=data_dir)
            values = {
                "images": torch.from_numpy(arrays.images),
                "labels": torch.from_numpy(arrays.labels),
                "classes": list(arrays.classes),
            }
            torch.save(values, path)


def summary(results: list[dict[str, float]]) -> dict[str, float]:
    """Return mean and deviation of the accuracies, and the mean and median time."""
    accuracies = [result["accuracy"] for result in results]
    seconds = [result["seconds"] for result in results]
    others = {name for name in results[0] if name.startswith("accuracy, ")}
    return {
        "n": len(results),
        "mean accuracy": statistics.mean(accuracies),
        "deviation": deviation(accuracies),
        **{f"mean {name}": statistics.mean(r[name] for r in results) for name in others},
        **{f"deviation, {name}": deviation([r[name] for r in results]) for name in others},
        "mean seconds": statistics.mean(seconds),
        "median seconds": statistics.median(seconds),
    }


def deviation(values: list[float]) -> float:
    """Return the standard deviation, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def changed(config: Config, changes: list[str]) -> Config:
    """Return a configuration with settings changed: NAME=JSON, or GROUP.NAME=JSON."""
    values = to_dict(config)
    for change in changes:
        path, _, value = change.partition("=")
        group, _, name = path.rpartition(".")
        (values[group] if group else values)[name] = json.loads(value)
    return from_dict(values)


class Results:
    """What was found, by program, stored as it comes."""

    def __init__(self, about: dict[str, Any], out: Path, remark: str) -> None:
        self._out, self._remark = out, remark
        self.result: dict[str, Any] = {**about, "results": {}, "summaries": {}, "profile": {}}

    def add(self, name: str, results: list[dict[str, float]]) -> None:
        """Store the results of a program, so far."""
        self.result["results"][name] = results
        if results:
            self.result["summaries"][name] = summary(results)
        report.store(self.result, self._out, self._remark)

    def conclude(self) -> None:
        """Print the summaries, and store each peer's time by ours."""
        summaries = self.result["summaries"]
        for name, figures in summaries.items():
            print(name, {key: round(value, 4) for key, value in figures.items()})
        means = {name: figures["mean seconds"] for name, figures in summaries.items()}
        for name, seconds in means.items():
            if name != "deepcnn":
                summaries[name]["ratio"] = seconds / means["deepcnn"]
                print(f"{name} takes {seconds / means['deepcnn']:.2f} times our time")
        report.store(self.result, self._out, self._remark)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = report.parser("gpu_speed", __doc__, "gpu_PRESET")
    parser.add_argument("preset", choices=sorted(deepcnn.presets.PRESETS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM")
    parser.add_argument("--peer-data", type=Path, default=Path("peer_data"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", dest="changes")
    parser.add_argument("--views", choices=get_args(Views))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    return parser.parse_args(arguments)


def watch(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Make the run that is not counted; return what took the time of some steps of it."""
    steps = min(config.steps, 200) if options.runs == 1 else config.steps
    profiler = Profiler(max(1, steps // 2 - PROFILED))
    train(dataclasses.replace(config, steps=steps), options.first_seed, profiler.hear)
    return profiler.found


def main(arguments: list[str]) -> int:
    """Train, run the peers, profile, print and store."""
    options = parse(arguments)
    out = report.new_file(f"gpu_{options.preset}", options.out, options.remark)
    deadline = time.perf_counter() + 60 * options.minutes
    config = dataclasses.replace(
        deepcnn.presets.PRESETS[options.preset](),
        device=options.device,
        log_every=100,
        save_every=10**6,
    )
    config = changed(config, options.changes)
    peers = [peer.partition("=")[::2] for peer in options.peer]
    if peers:
        write_for_peers(options.peer_data, config.data_dir)
    about = {
        "what": f"{options.preset} on {options.device}",
        **report.circumstances(options.device, config.precision),
        "config": to_dict(config),
    }
    results = Results(about, out, options.remark)
    results.result["profile"] = watch(config, options)
    ours: list[dict[str, float]] = []
    for seed in range(options.first_seed, options.first_seed + options.runs):
        if time.perf_counter() > deadline:
            break
        timer = Timer()
        look = partial(timer.score, options.views, options.device) if options.views else None
        whitening = train(config, seed, timer.hear, look)
        timer.found["seconds"] += whitening
        ours.append({"seed": seed, **timer.found, "whitening": whitening})
        results.add("deepcnn", ours)
    for name, program in peers:
        results.add(name, run_peer(Path(program), options.peer_data, options.runs, deadline))
    results.conclude()
    return 0
