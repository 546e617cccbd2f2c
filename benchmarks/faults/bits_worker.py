"""Trains a small network many times, and writes the digests of all that is computed.

python benchmarks/run.py worker bits "NETWORK PRECISION THREADS" STEPS TIMES

It prints a line of JSON for each training: a digest by what it is of, in the order of time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.devices import use_threads
from deepcnn.engines.engine import Engine, Moment
from deepcnn.learning import objective
from deepcnn.settings import ModelConfig


def config_of(network: str, precision: str, steps: int) -> Config:
    """Return the settings of a training."""
    changes = {"precision": precision, "device": "cpu", "steps": steps}
    if network == "tiny":
        return replace(presets.tiny(), **changes)
    model = ModelConfig("speednet", widths=(16, 24, 32))
    return replace(presets.quick(), **changes, data="synthetic", model=model, batch_size=64)


def train(kind: str, steps: int) -> dict[str, str]:
    """Train in this process as a user does; return the bits of all that was computed."""
    network, precision, threads = kind.split()
    use_threads(int(threads))
    found: dict[str, str] = {}
    apply = Engine._apply

    def seen(self: Engine, losses: Tensor, moment: Moment) -> None:
        """Take the bits of all that an update is made of, before it is made."""
        step, model = int(moment.step), self.model
        found[f"step {step}, images"] = digest(self.images)
        for name, loss in zip(objective.names(model), losses, strict=True):
            found[f"step {step}, {name}"] = digest(loss)
        for name, parameter in reversed([*model.named_parameters()]):
            if parameter.grad is not None:
                found[f"step {step}, gradient of {name}"] = digest(parameter.grad)
        apply(self, losses, moment)

    with tempfile.TemporaryDirectory() as folder, patch.object(Engine, "_apply", seen):
        run = deepcnn.train(config_of(network, precision, steps), run_dir=f"{folder}/run").run
        last = max((run / "checkpoints").glob("step-*.safetensors"))
        found |= {f"end, {name}": digest(tensor) for name, tensor in load_file(last).items()}
    return found


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes."""
    values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(values.numpy()).hexdigest()


def main(arguments: list[str]) -> int:
    """Train so many times, one after another."""
    kind, steps, times = arguments
    for _ in range(int(times)):
        print(json.dumps(train(kind, int(steps))), flush=True)
    return 0
