"""What can compute an exported network, and which of these `auto` takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from deepcnn.inference.extras import is_installed

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
    Row("fp32", 2500, ("openvino", "onnxruntime")),
    Row("bf16", 1, ("openvino",)),
)


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


def described() -> str:
    """Return what `auto` takes, in words."""
    found: dict[str, list[str]] = {}
    for row in AUTO:
        more = f"from {row.images:,} images on " if row.images > 1 else ""
        found.setdefault(row.precision, []).append(more + row.runtimes[0])
    onnx = "; ".join(f"in {precision} {', '.join(taken)}" for precision, taken in found.items())
    return f"auto takes torch for a run. For an ONNX file it takes {onnx}"
