"""What can compute an exported network, and which of these `auto` takes."""

from __future__ import annotations

import importlib.util
from typing import Literal, NamedTuple

OnnxRuntime = Literal["onnxruntime", "openvino"]


class Row(NamedTuple):
    """What is fastest, the fastest first, in a precision and from so many images on, all in all."""

    precision: Literal["fp32", "bf16"]
    images: int
    runtimes: tuple[OnnxRuntime, ...]


# ONNX Runtime starts sooner; OpenVINO answers sooner, and alone computes in bf16. The figures are
# in docs/after_training.md; `deepcnn bench` measures them anew.
AUTO = (
    Row("fp32", 1, ("onnxruntime", "openvino")),
    Row("fp32", 2000, ("openvino", "onnxruntime")),
    Row("bf16", 1, ("openvino",)),
)


def is_installed(runtime: OnnxRuntime) -> bool:
    """Tell whether the package of a runtime is here, without importing it."""
    return importlib.util.find_spec(runtime) is not None


def choose(precision: str, images: int | None) -> OnnxRuntime:
    """Return the fastest of what is installed; where nothing is, the fastest.

    `images`: how many are going to be asked about, None for many.
    """
    fitting = [
        row
        for row in AUTO
        if row.precision == precision and (images is None or row.images <= images)
    ]
    order = fitting[-1].runtimes
    return next((runtime for runtime in order if is_installed(runtime)), order[0])
