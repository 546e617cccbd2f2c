"""What a visualizer shows about a step: activations, histograms and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn.events import (
    Histogram,
    Summarized,
)
from deepcnn.hardware import is_on_processor
from deepcnn.models.layers import LateReLU

BUCKETS = 64
IMAGES = 3  # how many input images a summary shows
EXAMPLES = 128  # at most, whose activations are counted: the reference's whole batch


@contextmanager
def capture(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the output of each layer with weights of its own, while the context lasts.

    Normalization layers are left out. The result maps a layer's name to its last output for the
    first EXAMPLES of a batch; for a `LateReLU` this is after its `activation`.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
            if not isinstance(output, Tensor):  # somebody's own layer may give out several
                return
            activation = module.activation if isinstance(module, LateReLU) else None
            some = output.detach().to_dense()[:EXAMPLES]
            found[name] = some if activation is None else activation(some)

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and not isinstance(module, nn.BatchNorm2d)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def summarize(
    step: int, *, images: Tensor, activations: dict[str, Tensor], variables: nn.Module | None = None
) -> Summarized:
    """Make the summary of a step.

    `images`: float [B, C, H, W], the network's input. The first few are shown, each scaled from its
    darkest to its brightest value. `activations`: from `capture`. `variables`: the model whose
    parameters and gradients are shown, or None.
    """
    scalars = {
        f"sparsity/{name}": 1 - _count_nonzero(values) / values.numel()
        for name, values in activations.items()
    }
    histograms = {f"activations/{name}": histogram(values) for name, values in activations.items()}
    for name, parameter in variables.named_parameters() if variables is not None else ():
        histograms[f"variables/{name}"] = histogram(parameter)
        if parameter.grad is not None:
            histograms[f"gradients/{name}"] = histogram(parameter.grad)
    shown = {f"images/{i}": _picture(image) for i, image in enumerate(images[:IMAGES])}
    return Summarized(step, scalars, histograms, shown)


def histogram(values: Tensor) -> Histogram:
    """Count `values` into BUCKETS buckets between the smallest and the largest finite value."""
    flat, times = _distinct(_in_order_of_memory(values.detach()).flatten())
    low, high = _bounds(flat)
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = flat.isfinite()
        flat, times = flat[finite], None if times is None else times[finite]
        low, high = _bounds(flat)
    if low == high:  # a bucket needs a width
        low, high = low - 0.5, high + 0.5
    width = (high - low) / BUCKETS
    fits = 1e-30 < width < 1e36  # far from where float32 ends
    buckets = (flat if fits else flat.double()).sub(low).div_(width).clamp_max_(BUCKETS - 1)
    # torch.histc takes twice as long, and loses what spans more than float32's largest number
    counts = torch.bincount(buckets.to(torch.uint8), times, minlength=BUCKETS)
    each = flat if times is None else flat * times
    return Histogram(
        edges=np.linspace(low, high, BUCKETS + 1),
        counts=counts.double().cpu().numpy(),
        total=each.sum().item(),
        squares=torch.dot(each, flat).item(),
    )


def _distinct(flat: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the values as float32 and None; or each value once, and how often, as float64.

    bf16 has only 65,536 values. Counting them takes one pass over millions of activations, and all
    that follows takes next to no time.
    """
    if flat.dtype != torch.bfloat16 or not is_on_processor(flat):
        return flat.float(), None
    bits = flat.view(torch.int16)
    if flat.numel() and bits.amin() < 0:  # after a ReLU it is not
        bits = bits.int().bitwise_and_(0xFFFF)
    counts = torch.bincount(bits)
    found = counts.nonzero().squeeze(1)
    return found.to(torch.int16).view(torch.bfloat16).double(), counts[found].double()


def _count_nonzero(values: Tensor) -> int:
    """Count values other than 0 and -0, by their bits: for floats torch takes much longer."""
    bits = values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
    return int(torch.count_nonzero(bits << 1))


def _bounds(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value, or zeros if there is none."""
    low, high = (bound.item() for bound in values.aminmax()) if values.numel() else (0.0, 0.0)
    return low, high


def _in_order_of_memory(values: Tensor) -> Tensor:
    """Permute the axes so that the largest stride comes first; a dense tensor is then flat."""
    return values.permute(sorted(range(values.ndim), key=values.stride, reverse=True))


def _picture(image: Tensor) -> NDArray[np.uint8]:
    values = image.float().permute(1, 2, 0).cpu().numpy()
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / max(high - low, 1e-6))
    return np.asarray(np.rint(scaled), np.uint8)
