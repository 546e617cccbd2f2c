"""The graph that looks again at images, but only at those that were unsure at a first look.

A traced network does the same with every image. So the two looks are traced separately, and joined
here: the unsure images are gathered, looked at again and scattered back. This is a branch of an
`If`, which is skipped if no image is unsure, since not every runtime computes a convolution of zero
images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import deepcnn
from deepcnn.inference.extras import needed
from deepcnn.inference.onnx_file import IMAGES, LOGITS, PROBABILITIES

FIRST, AGAIN = "first", "again"  # what the outputs of both looks are called
UNSURE, COUNT, ANY = "unsure", "unsure_count", "any_unsure"  # their places, how many, whether any


def joined(first: Any, again: Any, *, classes: int, margin: float, temperature: float) -> Any:
    """Return the ONNX model that chooses which images are looked at again.

    `first`, `again`: models that map `IMAGES` to mean logits, float32 [N, classes], named `FIRST`
    and `AGAIN`. Weights with the same name and value are stored once. An image is looked at again
    if its two largest logits differ by less than `margin`. Then its logits are the mean of both
    looks.
    """
    onnx = needed("onnx", "export")
    node = onnx.helper.make_node
    again_nodes, more = _renamed(first, again)
    constants = {
        "margin": np.float32(margin),
        "temperature": np.float32(temperature),
        "half": np.float32(0.5),
        "two": np.array([min(2, classes)]),
        "largest": np.int64(0),
        "second": np.int64(-1),
        "axis": np.array([1]),
        "none": np.int64(0),
    }
    answering = [
        node("If", [ANY], [LOGITS], **_branches(again_nodes, classes)),
        node("Div", [LOGITS, "temperature"], ["scaled"]),
        node("Softmax", ["scaled"], [PROBABILITIES], axis=1),
    ]
    nodes = [*first.graph.node, *_choosing(), *answering]
    graph = _graph("network", nodes, [PROBABILITIES, LOGITS], classes)
    graph.input.extend(first.graph.input)
    graph.initializer.extend([*first.graph.initializer, *more, *_tensors(constants)])
    model = onnx.helper.make_model(
        graph,
        opset_imports=first.opset_import,
        ir_version=first.ir_version,
        producer_name="deepcnn",
        producer_version=deepcnn.__version__,
    )
    onnx.checker.check_model(model)
    return model


def _choosing() -> list[Any]:
    """Return the nodes that find the places of the unsure images, `UNSURE`, int64 [k, 1]."""
    node = needed("onnx", "export").helper.make_node
    return [
        node("TopK", [FIRST, "two"], ["top", "top_places"], axis=1),
        node("Gather", ["top", "largest"], ["top_largest"], axis=1),
        node("Gather", ["top", "second"], ["top_second"], axis=1),
        node("Sub", ["top_largest", "top_second"], ["margins"]),
        node("Less", ["margins", "margin"], ["is_unsure"]),
        node("NonZero", ["is_unsure"], ["unsure_row"]),
        node("Transpose", ["unsure_row"], [UNSURE], perm=[1, 0]),
        node("Size", [UNSURE], [COUNT]),
        node("Greater", [COUNT, "none"], [ANY]),
    ]


def _branches(again: list[Any], classes: int) -> dict[str, Any]:
    """Return the branches of the `If`; `again`: the nodes of the second look."""
    node = needed("onnx", "export").helper.make_node
    looking = [
        node("Squeeze", [UNSURE, "axis"], ["places"]),
        node("Gather", [IMAGES, "places"], [f"{AGAIN}/{IMAGES}"], axis=0),
        *again,
        node("Gather", [FIRST, "places"], ["first_of_unsure"], axis=0),
        node("Add", ["first_of_unsure", f"{AGAIN}/{AGAIN}"], ["sums"]),
        node("Mul", ["sums", "half"], ["means"]),
        node("ScatterND", [FIRST, UNSURE, "means"], ["of_both"]),
    ]
    sure = [node("Identity", [FIRST], ["of_one"])]
    return {
        "then_branch": _graph("looking again", looking, ["of_both"], classes),
        "else_branch": _graph("sure", sure, ["of_one"], classes),
    }


def _renamed(first: Any, again: Any) -> tuple[list[Any], list[Any]]:
    """Return the nodes of the second look under new names, and the tensors that it adds."""
    shared = {tensor.name: tensor for tensor in first.graph.initializer}
    names = {IMAGES: f"{AGAIN}/{IMAGES}", "": ""}  # an input that is left out has no name
    more = []
    for tensor in again.graph.initializer:
        if tensor == shared.get(tensor.name):
            names[tensor.name] = tensor.name
        else:
            more.append(_copy(tensor, name=f"{AGAIN}/{tensor.name}"))
    nodes = []
    for each in again.graph.node:
        node = _copy(each, name=f"{AGAIN}/{each.name}")
        for values in (node.input, node.output):
            values[:] = [names.get(value, f"{AGAIN}/{value}") for value in values]
        nodes.append(node)
    return nodes, more


def _copy(message: Any, name: str) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.name = name
    return copy


def _graph(name: str, nodes: list[Any], outputs: Iterable[str], classes: int) -> Any:
    onnx = needed("onnx", "export")
    value = onnx.helper.make_tensor_value_info
    kinds = [value(each, onnx.TensorProto.FLOAT, ["N", classes]) for each in outputs]
    return onnx.helper.make_graph(nodes, name, [], kinds)


def _tensors(values: dict[str, Any]) -> list[Any]:
    onnx = needed("onnx", "export")
    return [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
