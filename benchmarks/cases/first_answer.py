"""The time from the start of a process to its answer about one picture."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import deepcnn
from deepcnn.data.formats.decoding import encode
from deepcnn.inference.speed import Runtime, seconds_to_answer
from tools.comparison import Case

PRESET = "quick"
OPTIONS = ("--steps", "20")  # the time does not depend on what it has learned
STARTS = 5
METRICS = ("s to the answer", "s to the end", "s importing torch")
IMPORT = """
import time
from deepcnn.cli.importing import importing
began = time.perf_counter()
with importing():
    import torch
print(time.perf_counter() - began)
"""


def prepare(folder: Path) -> None:
    """Train a network, export it, and write a picture."""
    for arguments in (
        ("train", PRESET, *OPTIONS, "--run-dir", str(folder / "run"), "--no-report"),
        ("export", str(folder / "run"), "-o", str(folder / "model.onnx")),
    ):
        command = [sys.executable, "-m", "deepcnn", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    image = deepcnn.load_dataset("cifar10", "test").images[0]
    (folder / "picture.png").write_bytes(encode(image))


def answering(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """Return the medians of some processes, and for torch how long its import took in others."""
    path = folder / ("run" if runtime == "torch" else "model.onnx")
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(STARTS):
        answered, ended = seconds_to_answer(path, folder / "picture.png", runtime)
        found["s to the answer"].append(answered)
        found["s to the end"].append(ended)
        if runtime == "torch":
            done = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True)
            found["s importing torch"].append(float(done.stdout))
    medians = {name: round(statistics.median(all_), 3) for name, all_ in found.items() if all_}
    if runtime == "torch":
        medians["share importing torch"] = round(
            medians["s importing torch"] / medians["s to the answer"], 3
        )
    return medians | {"seeds": [0]}


RUNTIMES: tuple[Runtime, ...] = ("torch", "onnxruntime", "openvino")
CASE = Case(
    what="from the start of a process to its answer about one picture, whole processes",
    unit="s",
    contenders={runtime: partial(answering, runtime) for runtime in RUNTIMES},
    denominator="torch",
    higher_is_better=False,
    prepare=prepare,
)
