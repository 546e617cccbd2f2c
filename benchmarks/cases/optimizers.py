"""How long an update of each method takes, beside torch's own for all parameters at once.

    python benchmarks/run.py optimizers
    python benchmarks/run.py optimizers --device cuda --threads 16

The parameters are those of presets, with random gradients. Ours and torch's (`foreach=True`) take
turns, and the median over the rounds is taken of each.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deepcnn import presets
from deepcnn.hardware import keep_freed_memory
from deepcnn.learning.adam import Adam
from deepcnn.learning.optimizers import SGD
from deepcnn.learning.rmsprop import RMSProp
from deepcnn.models.build import build_model
from tools import report

RATE = 1e-3
METHODS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sgd": (
        functools.partial(SGD, momentum=0.9),
        functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    ),
    "adam": (Adam, torch.optim.Adam),
    "adamw": (functools.partial(Adam, weight_decay=1e-5, decoupled=True), torch.optim.AdamW),
    "rmsprop": (RMSProp, torch.optim.RMSprop),
    "rmsprop, momentum": (
        functools.partial(RMSProp, momentum=0.9),
        functools.partial(torch.optim.RMSprop, momentum=0.9),
    ),
}
PRESETS = ("tutorial", "speedrun94")
UPDATES = 5  # in a round


def main(arguments: list[str]) -> int:
    """Measure, print the milliseconds and store them."""
    parser = report.parser("optimizers", __doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    out = report.new_file("optimizers", options.out, options.remark)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    about = report.circumstances()
    found = measure(torch.device(options.device), options.rounds)
    for name, (ours, theirs) in found.items():
        print(f"{ours:8.3f} ms  {theirs:8.3f} ms of torch  {ours / theirs:6.1%}  {name}")
    what = "milliseconds of an update: ours, and torch's with foreach"
    settings = {"device": options.device, "threads": options.threads, "rounds": options.rounds}
    report.store({"what": what, **about, **settings, "milliseconds": found}, out, options.remark)
    return 0


def measure(device: torch.device, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the milliseconds of an update of each method with each preset: ours, and torch's."""
    found = {}
    for preset in PRESETS:
        for method, (make, make_torchs) in METHODS.items():
            optimizer = make(parameters(preset, device), learning_rate=RATE)
            factor, gate = torch.ones((), device=device), torch.tensor(True, device=device)
            moved(optimizer, device)
            oracle = make_torchs(parameters(preset, device).values(), lr=RATE, foreach=True)
            updates = (functools.partial(optimizer.step, factor, gate), oracle.step)
            taken = [[seconds(update, device) for update in updates] for _ in range(rounds + 1)]
            ours, theirs = (1e3 * statistics.median(each) for each in zip(*taken[1:], strict=True))
            found[f"{preset}: {method}"] = round(ours, 4), round(theirs, 4)
    return found


def parameters(preset: str, device: torch.device) -> dict[str, nn.Parameter]:
    """Return the parameters of a preset's network, each with a gradient."""
    config = presets.PRESETS[preset]()
    model = build_model(config.model.name, widths=config.model.widths).to(device)
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in found.values():
        parameter.grad = torch.randn_like(parameter) / 1000
    return found


def moved(optimizer: Any, device: torch.device) -> None:
    """Move to a device what an optimizer made on the processor."""
    if optimizer.updates is not None:
        optimizer.updates = optimizer.updates.to(device)


def seconds(update: Callable[..., Any], device: torch.device) -> float:
    """Return how long an update takes, until the device has made it."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    wait()
    began = time.perf_counter()
    for _ in range(UPDATES):
        update()
    wait()
    return (time.perf_counter() - began) / UPDATES
