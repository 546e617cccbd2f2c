"""Write what the network of a run answers for the first test images of CIFAR-10.

`run.py same_bits` runs it from two sources, and compares what they write: worker answers RUN OUT

The network has, first, the weights that the seed gives, then those of the last checkpoint. Both
are prepared for prediction in fp32 and in bf16. OUT is a safetensors file with float32
[512, classes] for each of these, and for batches of several sizes, which take different ways
through the prepared networks.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import deepcnn

IMAGES = 512
BATCHES = (1, 7, 15, 256)
# Where a name is, and where it was; the first place that has it counts.
FOR_INFERENCE = ("deepcnn.inference.prepared:for_inference", "deepcnn.inference:for_inference")
TRANSFORM = ("deepcnn.inputs.transform:Transform", "deepcnn.data.augment:Inputs")


def main(arguments: list[str]) -> int:
    """Read the run, and write the answers."""
    run, out = map(Path, arguments)
    torch.set_num_threads(1)
    config, about = (
        json.loads((run / f"{name}.json").read_text()) for name in ("config", "inputs")
    )
    transform = named(TRANSFORM).from_dict(about["inputs"])
    images = prepare(transform, "test", IMAGES)
    networks = {
        "seed": from_seed(config, transform, len(about["classes"])),
        "trained": trained(config, transform, len(about["classes"]), run),
    }
    answers = {}
    for name, network in networks.items():
        for dtype in (torch.float32, torch.bfloat16):
            prepared = named(FOR_INFERENCE)(network, dtype)
            for size in BATCHES:
                answer = torch.cat([prepared(some) for some in torch.split(images, size)])
                answers[f"{name}, {dtype}, batches of {size}"] = answer
    save_file(answers, out)
    return 0


def named(places: tuple[str, ...]) -> Any:
    """Return what has one of these names, `module:name`; end the program where nothing has."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    sys.exit(f"expected one of {', '.join(places)}, found none")


def prepare(transform: Any, split: Any, count: int) -> Tensor:
    """Return the first images of a split as a network's input [count, C, H, W]."""
    images = deepcnn.load_dataset("cifar10", split).images[:count]
    prepared: Tensor = transform.evaluate(torch.from_numpy(images))
    return prepared


def build(config: dict[str, Any], transform: Any, classes: int) -> nn.Module:
    """Return the network of a configuration as its seed makes it, before it has seen images."""
    model: nn.Module = deepcnn.build_model(
        config["model"]["name"],
        shape=transform.shape,
        classes=classes,
        widths=tuple(config["model"]["widths"]),
        seed=config["seed"],
    )
    return model


def from_seed(config: dict[str, Any], transform: Any, classes: int) -> nn.Module:
    """Return the network as a training begins with it."""
    model = build(config, transform, classes)
    initialize = getattr(model, "initialize", None)  # some weights may be made from images
    if initialize is not None:
        initialize(prepare(transform, "train", 5000))
    return model


def trained(config: dict[str, Any], transform: Any, classes: int, run: Path) -> nn.Module:
    """Return the network of the last checkpoint, with the moving averages where there are any."""
    model = build(config, transform, classes)
    tensors = load_file(max((run / "checkpoints").glob("step-*.safetensors")))
    weights = {
        name.removeprefix(prefix): tensor
        for prefix in ("model.", "average.")
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(weights)
    return model
