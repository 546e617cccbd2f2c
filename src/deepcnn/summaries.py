"""Listeners that keep what happened: JSON lines, and TensorBoard."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn.devices import is_on_processor
from deepcnn.events import (
    Advanced,
    Evaluated,
    Event,
    Fetching,
    Histogram,
    Node,
    Reading,
    Stepped,
    Summarized,
    Traced,
)

BUCKETS = 64
FOR_PICTURES = (Summarized, Traced)  # events that are drawn, not written as text
IMAGES = 3  # how many input images a summary shows
EXAMPLES = 128  # at most, whose activations are counted: the reference's whole batch


class JsonLog:
    """Appends every event of note to a file, an object a line, with its name and the time.

    A line that a killed process left unfinished is cut off first.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with path.open("r+b") as file:
                    file.truncate(whole)
        self._file = path.open("a", buffering=1)

    def __call__(self, event: Event) -> None:
        """Write the event, unless it is about progress or for pictures."""
        if not isinstance(event, (Advanced, Fetching, Reading, *FOR_PICTURES)):
            self._file.write(to_json(event) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def to_json(event: Event) -> str:
    """Return an event as a JSON object in one line; NaN becomes null."""
    values = {
        "event": type(event).__name__,
        "time": datetime.datetime.now().isoformat(),
        **dataclasses.asdict(event),
    }
    return json.dumps(_finite(values), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


class TensorBoard:
    """Writes scalars, histograms, images and the graph as TensorBoard's event files.

    `first_step`: what an earlier process wrote for this and later steps is dropped from view.
    """

    def __init__(self, directory: Path, *, first_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._writer = SummaryWriter(str(directory), purge_step=first_step or None)

    def __call__(self, event: Event) -> None:
        """Write what the event has to show."""
        match event:
            case Stepped():
                for name, value in event.losses.items():
                    self._writer.add_scalar(f"loss/{name}", value, event.step)
                for name, value in event.averages.items():
                    self._writer.add_scalar(f"loss_averaged/{name}", value, event.step)
                self._writer.add_scalar("learning_rate", event.learning_rate, event.step)
                self._writer.add_scalar(
                    "examples_per_second", event.examples_per_second, event.step
                )
            case Evaluated():
                kind = event.split + ("" if event.averaged else "_raw_parameters")
                self._writer.add_scalar(f"accuracy/{kind}", event.accuracy, event.step)
                self._writer.add_scalar(f"cross_entropy/{kind}", event.loss, event.step)
            case Summarized():
                for tag, value in event.scalars.items():
                    self._writer.add_scalar(tag, value, event.step)
                for tag, histogram in event.histograms.items():
                    self._add_histogram(tag, histogram, event.step)
                for tag, image in event.images.items():
                    self._writer.add_image(tag, image, event.step, dataformats="HWC")
                self._writer.flush()
            case Traced():
                self._add_graph(event)

    def _add_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        self._writer.add_histogram_raw(
            tag,
            min=float(histogram.edges[0]),
            max=float(histogram.edges[-1]),
            num=int(histogram.counts.sum()),
            sum=histogram.total,
            sum_squares=histogram.squares,
            bucket_limits=histogram.edges[1:].tolist(),
            bucket_counts=histogram.counts.tolist(),
            global_step=step,
        )

    def _add_graph(self, event: Traced) -> None:
        from tensorboard.compat.proto.attr_value_pb2 import AttrValue
        from tensorboard.compat.proto.event_pb2 import Event as FileEvent
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.compat.proto.node_def_pb2 import NodeDef
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        def proto(node: Node) -> NodeDef:
            shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in node.shape])
            shapes = AttrValue(list=AttrValue.ListValue(shape=[shape]))
            return NodeDef(
                name=node.name,
                op=node.operation,
                input=node.inputs,
                attr={"_output_shapes": shapes},
            )

        graph = GraphDef(node=[proto(node) for node in event.nodes])
        writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]  # its public method takes TorchScript graphs only
        writer.add_event(FileEvent(graph_def=graph.SerializeToString()))

    def close(self) -> None:
        """Write what is left, and close the files."""
        self._writer.close()


@contextmanager
def capture(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, while the context lasts, what each layer with weights of its own gives out.

    Normalization layers are left out. The result maps the layer's name to its last output for the
    first EXAMPLES of a batch, after the `activation` that the layer may name.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
            activation = getattr(module, "activation", None)
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

    `images`: float [B, C, H, W], the network's input, of which the first few are shown, each from
    its darkest to its brightest value; `activations`: from `capture`; `variables`: the model whose
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
    """Return the values as float32 and None, or each once and how often, as float64.

    Of bf16 there are only 65,536; to count them takes one pass over millions of activations, and
    all that follows next to nothing.
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
    """Count what is neither 0 nor -0, by the bits: torch takes several times as long for floats."""
    bits = values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
    return int(torch.count_nonzero(bits << 1))


def _bounds(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value, or zeros where there is none."""
    low, high = (bound.item() for bound in values.aminmax()) if values.numel() else (0.0, 0.0)
    return low, high


def _in_order_of_memory(values: Tensor) -> Tensor:
    """Permute the axes so that the largest stride comes first: what is dense is flat as it is."""
    return values.permute(sorted(range(values.ndim), key=values.stride, reverse=True))


def _picture(image: Tensor) -> NDArray[np.uint8]:
    values = image.float().permute(1, 2, 0).cpu().numpy()
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / max(high - low, 1e-6))
    return np.asarray(np.rint(scaled), np.uint8)
