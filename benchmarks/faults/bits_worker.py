"""Trains a small network many times, and writes the digests of all that is computed.

python benchmarks/run.py worker bits "NETWORK PRECISION THREADS" STEPS TIMES

It prints a line of JSON for each training: a digest by what it is of, in the order of time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch
from torch import Tensor

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.devices import use_threads
from deepcnn.learning import objective
from deepcnn.settings import ModelConfig
from deepcnn.team.team import Team
from deepcnn.training.session import FromPython, Session


def config_of(network: str, precision: str, steps: int) -> Config:
    """Return the settings of a training."""
    changes = {"precision": precision, "device": "cpu", "steps": steps}
    if network == "tiny":
        return replace(presets.tiny(), **changes)
    model = ModelConfig("speednet", widths=(16, 24, 32))
    return replace(presets.quick(), **changes, data="synthetic", model=model, batch_size=64)


def train(kind: str, steps: int) -> dict[str, str]:
    """Train, in this process; return the bits of all that was computed."""
    network, precision, threads = kind.split()
    use_threads(int(threads))
    found: dict[str, str] = {}
    config = config_of(network, precision, steps)
    with Session.open(Team(), config, FromPython(), lambda _: None) as session:
        for name, tensor in session.state.tensors().items():
            found[f"begin, {name}"] = digest(tensor)
        session.rehearse()
        state = session.state
        state.model.train()
        for step in range(steps):
            session.fix_settled(step)
            losses = session.engine.step()
            found[f"step {step}, images"] = digest(session.engine.images)
            for name, loss in zip(objective.names(state.model), losses, strict=True):
                found[f"step {step}, {name}"] = digest(loss)
            for name, parameter in reversed([*state.model.named_parameters()]):
                if parameter.grad is not None:
                    found[f"step {step}, gradient of {name}"] = digest(parameter.grad)
            state.forget_gradients()
        session.engine.settle()
        for name, tensor in state.tensors().items():
            found[f"end, {name}"] = digest(tensor)
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
