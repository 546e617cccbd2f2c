"""The speed of prediction with trained networks, for a batch and for one image."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepcnn.data.open import open_dataset
from deepcnn.hardware import keep_freed_memory
from deepcnn.inference.prepared import for_inference
from deepcnn.inference.trained import Trained, newest
from deepcnn.runs.run import Run
from tools.comparison import Case

PRESETS = {"tutorial": ("--steps", "300"), "quick": ()}  # with options of their training
BATCH = 256
CALLS = {BATCH: 20, 1: 500}  # as many as the peers


def train_all(folder: Path) -> None:
    """Train the network of each preset."""
    for preset, options in PRESETS.items():
        command = [sys.executable, "-m", "deepcnn", "train", preset, *options]
        command += ["--run-dir", str(folder / preset)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def prepared(folder: Path) -> dict[str, Any]:
    """Return the speed of networks prepared by deepcnn, and how often their answer is torch's."""
    return predict(folder, for_inference)


def prepared_in_bf16(folder: Path) -> dict[str, Any]:
    """Return the same for networks that multiply in bf16."""
    return predict(folder, partial(for_inference, dtype=torch.bfloat16))


def plain(folder: Path) -> dict[str, Any]:
    """Return the speed of the networks as they are, in evaluation mode."""
    return predict(folder, lambda model: model)


@torch.no_grad()
def predict(folder: Path, prepare: Callable[[nn.Module], nn.Module]) -> dict[str, Any]:
    """Return the speed of what `prepare` makes of each preset's network."""
    keep_freed_memory()
    found: dict[str, Any] = {}
    agreement = {}
    for preset in PRESETS:
        model, images = load(folder / preset)
        network = prepare(model)
        seconds = {count: median_seconds(network, images[:count], CALLS[count]) for count in CALLS}
        found[f"{preset}: images/s, batch {BATCH}"] = round(BATCH / seconds[BATCH])
        found[f"{preset}: ms, batch 1"] = round(1000 * seconds[1], 3)
        agreeing = sum(
            int((network(some).argmax(1) == model(some).argmax(1)).sum())
            for some in images.split(BATCH)
        )
        agreement[preset] = f"{agreeing} of {len(images)}"
    seeds = [Run.open(folder / preset).config().seed for preset in PRESETS]
    return found | {"agreement with torch": agreement, "seeds": seeds}


def load(path: Path) -> tuple[nn.Module, Tensor]:
    """Return the network of a run, and the test set as its input [N, C, H, W]."""
    run = Run.open(path)
    trained = Trained.load(run, newest(run)[0])
    arrays = open_dataset(trained.config).split("test").load()
    transform = trained.trained_on.transform
    return trained.model.eval(), transform.evaluate(torch.from_numpy(arrays.images)).contiguous()


def median_seconds(network: nn.Module, images: Tensor, calls: int) -> float:
    """Return the median time of some calls, after a tenth as many to warm up."""
    for _ in range(calls // 10):
        network(images)
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


CASE = Case(
    what="logits of trained networks: a batch of 256, and one image",
    unit="images/s, ms",
    contenders={"deepcnn": prepared, "deepcnn, bf16": prepared_in_bf16, "torch": plain},
    denominator="onnxruntime",
    lower_is_better=tuple(f"{preset}: ms, batch 1" for preset in PRESETS),
    peers=("tensorflow", "onnxruntime"),
    prepare=train_all,
)
