"""The graph of a network, for visualizers, from torch.export."""

from __future__ import annotations

import torch
from torch import nn

from deepcnn.events import Node


def trace(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """Return the operations of `model` on images of `shape` (channels, height, width).

    A node bears the name of the module that it belongs to, so that a visualizer can fold the
    graph into the layers that a reader knows.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        program = torch.export.export(
            model,
            (torch.zeros(2, *shape, device=device),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    finally:
        model.train(was_training)
    signature = program.graph_signature
    variables = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names: dict[torch.fx.Node, str] = {}
    taken: set[str] = set()
    nodes = []
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        name = original = _name(node, variables)
        copy = 1
        while name in taken:
            copy += 1
            name = f"{original}_{copy}"
        names[node] = name
        taken.add(name)
        if node.name in variables:
            operation = "variable"
        elif node.op == "placeholder":
            operation = "input"
        else:
            operation = str(node.target).removeprefix("aten.").split(".")[0]
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, torch.Tensor) else ()
        nodes.append(
            Node(
                name=name,
                operation=operation,
                inputs=tuple(names[source] for source in node.all_input_nodes),
                shape=tuple(size if isinstance(size, int) else -1 for size in sizes),
            )
        )
    return tuple(nodes)


def _name(node: torch.fx.Node, variables: dict[str, str]) -> str:
    if node.name in variables:
        return variables[node.name].replace(".", "/")
    stack = node.meta.get("nn_module_stack") or {}
    module = next((path for path, _ in reversed(stack.values()) if path), "")
    own = node.name.rstrip("_0123456789")
    return f"{module.replace('.', '/')}/{own}" if module else own
