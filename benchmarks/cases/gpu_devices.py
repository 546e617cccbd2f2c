"""The same numbers on a GPU, whichever engine computes them.

    python benchmarks/run.py gpu_devices        # --device cpu tries it without one

Trains a small network without batch normalization for 100 steps in fp32, at a rate at which
rounding does not grow: on one device, on one that plans many steps and replays recorded ones, on
that one resumed in the middle, in two towers on it, in two towers of which one computes on the
processor, in one process of a group (NCCL on a GPU), in two processes that share the device (gloo),
and on the processor alone. Prints and stores by how much the parameters of each differ from those
of one device, against their own size, after every tenth step: a rounding that grows can be told
from a ReLU or a maximum that one rounding has turned. Also how fast each was, and whether resuming
gave the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import unittest.mock
from pathlib import Path
from typing import Any

import torch

import deepcnn
from deepcnn.engines import choose
from deepcnn.runs import checkpoint
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run
from tools import report

STEPS, EVERY = 100, 10
RATE = 0.005  # at that of the preset a ReLU that flips is soon a difference of percents
LARGEST = 1e-5  # difference, as a share of the largest parameter of its kind


def in_this_process(device: str, run: Path, *, towers: int = 0, steps_per_plan: int = 1) -> None:
    """Train on one device or in towers on it."""
    config = deepcnn.presets.tiny()
    config = dataclasses.replace(
        config,
        steps=STEPS,
        save_every=EVERY,
        keep=STEPS // EVERY,
        device=device,
        precision="fp32",
        towers=towers,
        steps_per_plan=steps_per_plan,
        deterministic=True,  # else cuDNN may choose other functions in each process
        optimizer=dataclasses.replace(config.optimizer, learning_rate=RATE, momentum=0.0),
    )
    deepcnn.train(config, run_dir=run)


def resumed(device: str, run: Path) -> None:
    """Train with plans, lose the last checkpoints, and go on within a plan."""
    in_this_process(device, run, steps_per_plan=30)
    for lost in checkpoint.paths(run / "checkpoints")[-2:]:
        lost.unlink()
    deepcnn.resume(run)


def in_mixed_towers(device: str, run: Path) -> None:
    """Train in two towers, the first of them on the processor."""
    mixed = (torch.device("cpu"), torch.device(device))
    with unittest.mock.patch.object(choose, "devices_of_towers", return_value=mixed):
        in_this_process(device, run, towers=2)


def in_processes(device: str, run: Path, *, processes: int) -> None:
    """Train in processes of a group."""
    command = [sys.executable, "-m", "deepcnn", "train", "tiny", "--steps", str(STEPS)]
    command += ["--device", device, "--precision", "fp32", "--run-dir", str(run)]
    command += ["--deterministic", "--save-every", str(EVERY), "--keep", str(STEPS // EVERY)]
    command += ["--optimizer.learning-rate", str(RATE), "--optimizer.momentum", "0"]
    subprocess.run([*command, "--devices", str(processes)], check=True, capture_output=True)


ENGINES = {
    "one device": in_this_process,
    "one device, planned": lambda device, run: in_this_process(device, run, steps_per_plan=30),
    "one device, planned, resumed": resumed,
    "two towers": lambda device, run: in_this_process(device, run, towers=2),
    "two towers, one on the processor": in_mixed_towers,
    "one process": lambda device, run: in_processes(device, run, processes=1),
    "two processes": lambda device, run: in_processes(device, run, processes=2),
    "the processor": lambda device, run: in_this_process("cpu", run),  # noqa: ARG005
}


def difference(tensors: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of parameters, as a share of the largest of their kind."""
    return max(
        float((tensors[name] - t).abs().max() / t.abs().max().clamp_min(1e-12))
        for name, t in reference.items()
        if name.startswith("model.")
    )


def compare(device: str) -> tuple[dict[str, dict[str, Any]], bool]:
    """Train with every engine.

    Returns what was found of each, and whether resuming gave the same bits.
    """
    found: dict[str, dict[str, Any]] = {}
    saved: dict[str, list[dict[str, torch.Tensor]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, train in ENGINES.items():
            run = Run(Path(folder) / name.replace(" ", "-"))
            train(device, run.path)
            saved[name] = [checkpoint.load(path)[1] for path in checkpoint.paths(run.checkpoints)]
            assert len(saved[name]) == STEPS // EVERY
            by_step = [
                difference(tensors, reference)
                for tensors, reference in zip(saved[name], saved["one device"], strict=True)
            ]
            found[name] = {
                "largest difference": by_step[-1],
                f"after every {EVERY} steps": by_step,
                "images/s": statistics.median(
                    event["examples_per_second"] for event in events(read_log(run.log), "Stepped")
                ),
            }
    whole, resumed_last = (saved[f"one device, planned{how}"][-1] for how in ("", ", resumed"))
    return found, all(torch.equal(tensor, resumed_last[name]) for name, tensor in whole.items())


def main(arguments: list[str]) -> int:
    """Train, compare, print and store; fail where the numbers differ too much."""
    parser = report.parser("gpu_devices", __doc__)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    out = report.new_file("gpu_devices", options.out, options.remark)
    about = report.circumstances(options.device)
    found, same_bits = compare(options.device)
    result = {
        "what": f"{STEPS} steps of the preset tiny in fp32, against one device",
        **about,
        "found": found,
        "resumed with the same bits": same_bits,
    }
    print(json.dumps(result, indent=2))
    report.store(result, out, options.remark)
    if any(engine["largest difference"] > LARGEST for engine in found.values()):
        sys.exit("the numbers differ")
    if not same_bits:
        sys.exit("resuming gave other bits")
    return 0
