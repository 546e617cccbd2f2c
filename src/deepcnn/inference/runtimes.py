"""The runtimes that can compute an exported network, and the choice of `auto`."""

from __future__ import annotations

from typing import Literal

from deepcnn.inference.extras import is_installed

OnnxRuntime = Literal["onnxruntime", "openvino"]

# What `auto` takes by precision, for one image as for many: the first that is installed. In fp32
# ONNX Runtime starts sooner and answers about one image sooner, and about many as fast; in bf16
# OpenVINO alone computes. The figures are in docs/figures.md; `deepcnn bench` measures them anew.
AUTO: dict[str, tuple[OnnxRuntime, ...]] = {
    "fp32": ("onnxruntime", "openvino"),
    "bf16": ("openvino",),
}


def choose(precision: str) -> OnnxRuntime:
    """Return the fastest runtime that is installed; if none is, the fastest of all."""
    order = AUTO[precision]
    return next((runtime for runtime in order if is_installed(runtime)), order[0])


def described() -> str:
    """Return the choice of `auto`, in words."""
    taken = ", ".join(f"{order[0]} in {precision}" for precision, order in AUTO.items())
    return f"auto takes torch for a run, and for an ONNX file {taken}"
