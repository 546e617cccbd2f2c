"""Locally connected layers beside unfold and einsum, forward and backward.

    python benchmarks/run.py locally_connected --threads 2

The two layers of the preset cuda_convnet (6×6 places, 3×3 taps, 64 to 32 and 32 to 32 channels,
padding 1, ReLU between), batch 128. Both take turns in this process, after some turns that are not
counted, on the same images and filters; what they return is compared first. Also told is the limit:
the operations of a turn, and the bytes of the filters, which no place shares with another.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.hardware import float32_products, keep_freed_memory
from deepcnn.kernels.locally_connected import locally_connected2d
from tools import report

BATCH, SIDE, CHANNELS = 128, 6, ((64, 32), (32, 32))
WARM_UP = 10  # turns that are not counted
TAPS_INSIDE = 16 * 18  # of 18 × 18 rows and columns of taps: those above and below are left out


def main(arguments: list[str]) -> int:
    """Measure, print and store."""
    parser = report.parser("locally_connected", __doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args(arguments)
    out = report.new_file("locally_connected", options.out, options.remark)
    about = report.circumstances()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    figures = {
        str(dtype).removeprefix("torch."): measure(dtype, options.rounds)
        for dtype in (torch.float32, torch.bfloat16)
    }
    print(json.dumps({"figures": figures, "limit": limit()}, indent=2))
    result = {"what": "locally connected layers", **about, "threads": options.threads}
    report.store({**result, "figures": figures, "limit": limit()}, out, options.remark)
    return 0


def limit() -> dict[str, float]:
    """Return the least that a turn multiplies, and the bytes of the filters in float32."""
    filters = sum(i * o for i, o in CHANNELS)
    return {
        "GFLOP": 3 * 2 * BATCH * TAPS_INSIDE * filters / 1e9,
        "MB of filters": 4 * SIDE**2 * 9 * filters / 1e6,
    }


def measure(dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of both, and how many times faster ours is."""
    ways = {"deepcnn": ours(dtype), "unfold and einsum": by_unfold(dtype)}
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    with float32_products(torch.device("cpu")):
        found, expected = (turn().double() for turn in ways.values())
        apart = 1e-5 if dtype == torch.float32 else 0.05  # rounding to bf16 turns some ReLUs, too
        assert (found - expected).norm() < apart * expected.norm()
        for number in range(WARM_UP + rounds):
            for name, turn in ways.items():
                began = time.perf_counter()
                turn()
                if number >= WARM_UP:
                    milliseconds[name].append(1000 * (time.perf_counter() - began))
    medians = {name: statistics.median(each) for name, each in milliseconds.items()}
    ratio = medians["unfold and einsum"] / medians["deepcnn"]
    return {"milliseconds": medians, "ratio": ratio}


def problem(dtype: torch.dtype) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return images, the filters of each layer, and a derivative, the same every time."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    images = normal(BATCH, CHANNELS[0][0], SIDE, SIDE)
    filters = [0.04 * normal(3, SIDE, SIDE, outputs, 3, inputs) for inputs, outputs in CHANNELS]
    gradient = normal(BATCH, CHANNELS[1][1], SIDE, SIDE)
    last = torch.channels_last
    return images.contiguous(memory_format=last), filters, gradient.contiguous(memory_format=last)


def a_turn(
    layer: Callable[[Tensor, Tensor], Tensor], images: Tensor, filters: list[Tensor], g: Tensor
) -> Callable[[], Tensor]:
    """Return what computes both layers and all derivatives; it returns that towards the images."""
    leaves = [each.requires_grad_() for each in (images, *filters)]

    def turn() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        layer(layer(images, filters[0]).relu(), filters[1]).backward(g)
        assert images.grad is not None
        return images.grad

    return turn


def ours(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a turn of the kernel."""

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return locally_connected2d(x, weight, None, (1, 1))

    images, filters, gradient = problem(dtype)
    return a_turn(layer, images, filters, gradient)


def by_unfold(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a turn of torch's own functions, with the filters in the order that suits them."""

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        y = torch.einsum("nkp,pko->nop", F.unfold(x, 3, padding=1), weight)
        return y.reshape(BATCH, -1, SIDE, SIDE)

    images, filters, gradient = problem(dtype)
    turned = [
        each.permute(1, 2, 5, 0, 4, 3).reshape(SIDE**2, -1, each.shape[3]) for each in filters
    ]
    return a_turn(layer, images, turned, gradient)
