"""The graph of a training step, for visualizers: inputs, network, losses, gradients, update.

The network's part is found by calling the network. The rest is the same for each network. It has a
node for each thing that a reader knows by name; autograd's operations are one node for each
gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepcnn.events import Node
from deepcnn.inputs.transform import Transform
from deepcnn.learning.objective import names as names_of_losses
from deepcnn.learning.state import TrainState
from deepcnn.models.calls import CallRecorder

TOTAL = "losses/total_loss"


def trace_step(
    state: TrainState,
    transform: Transform,
    device: torch.device,
    *,
    towers: Sequence[torch.device] = (),
    processes: int = 1,
) -> tuple[Node, ...]:
    """Return the nodes of a training step, in the order of computation.

    `device`: of the state. If there are `towers`, each has its own nodes, whose names begin with
    `tower_0/` and so on, as in the reference. Several `processes` sum in nodes called
    `sum_over_processes`. -1 stands for the size of a batch, or of a tower's part of it.
    """
    model = state.model
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    nodes = [
        Node(_path(name), "variable", (), tuple(tensor.shape), str(device))
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    ]
    nodes.append(Node("learning_rate", "schedule", (), (), str(device)))
    gradients: list[tuple[str, ...]] = [()] * len(shapes)
    for prefix, where in _replicas(device, towers):
        replica = _forward(model, transform, prefix, str(where), copies=bool(prefix))
        replica += _losses(model, prefix, str(where), logits=replica[-1].name)
        for i, (name, shape) in enumerate(shapes.items()):
            path = f"{prefix}gradients/{_path(name)}"
            inputs = (prefix + TOTAL, prefix + _path(name))
            replica.append(Node(path, "gradient", inputs, shape, str(where)))
            gradients[i] += (path,)
        nodes += replica
    for (name, shape), of_towers in zip(shapes.items(), gradients, strict=True):
        nodes += _update(state, name, shape, str(device), of_towers, processes)
    return tuple(nodes)


def trace(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """Return the operations of `model` on images of `shape` (channels, height, width).

    A node has the name of the module that it belongs to, so a visualizer can fold the graph into
    the layers that a reader knows. Sizes that differ between a batch of 2 and one of 3 are the
    batch's. (torch.export would tell the same, but importing it alone takes a second.)
    """
    # In float64 layers do what the literature says, and not what is faster in float32.
    plain = copy.deepcopy(model).to("cpu", torch.float64).eval()
    two, three = (_Recorder(plain).run(torch.zeros(n, *shape).double()) for n in (2, 3))
    return tuple(
        Node(
            name=a.name,
            operation=a.operation,
            inputs=a.inputs,
            shape=tuple(m if m == n else -1 for m, n in zip(a.shape, b.shape, strict=True)),
        )
        for a, b in zip(two, three, strict=True)
    )


def _replicas(
    device: torch.device, towers: Sequence[torch.device]
) -> list[tuple[str, torch.device]]:
    """Return how the names of each replica's nodes begin, and where it computes."""
    if not towers:
        return [("", device)]
    return [(f"tower_{i}/", where) for i, where in enumerate(towers)]


def _forward(
    model: nn.Module, transform: Transform, prefix: str, where: str, *, copies: bool
) -> list[Node]:
    """Return the nodes of a replica's inputs and of its network, the logits last.

    `copies`: the replica computes with copies of the variables.
    """
    nodes = _inputs(transform, prefix, where)
    distorted = nodes[-1].name
    for node in trace(model, transform.shape):
        if node.operation == "input":
            continue
        if node.operation == "variable":
            if copies:
                of = (node.name,)
                nodes.append(Node(prefix + node.name, "copy", of, node.shape, where))
            continue
        inputs = tuple(distorted if name == "images" else prefix + name for name in node.inputs)
        nodes.append(Node(prefix + node.name, node.operation, inputs, node.shape, where))
    return nodes


def _inputs(transform: Transform, prefix: str, where: str) -> list[Node]:
    """Return the nodes of the distorted inputs, the network's input last."""
    height, width, channels = transform.image_shape
    crop = (-1, channels, transform.crop_height, transform.crop_width)
    scope = f"{prefix}inputs/"
    nodes = [
        Node(f"{scope}images", "input", (), (-1, height, width, channels), where),
        Node(f"{scope}labels", "input", (), (-1,), where),
    ]
    one = torch.zeros(1, dtype=torch.int64)
    drawn = transform.draw(0, index=one, epoch=one, position=one).made()
    chosen = [f"{scope}choices/{name}" for name in drawn]
    nodes += [Node(path, "hash", (), (-1,), where) for path in chosen]
    path = f"{scope}distorted"
    nodes.append(Node(path, "distort", (f"{scope}images", *chosen), crop, where))
    return nodes


def _losses(model: nn.Module, prefix: str, where: str, *, logits: str) -> list[Node]:
    """Return the nodes of all losses, the total last."""
    *parts, total = (f"{prefix}losses/{_path(name)}" for name in names_of_losses(model))
    nodes = []
    for path in parts:
        layer, slash, _ = path.removeprefix(f"{prefix}losses/").rpartition("/weight_loss")
        inputs = (f"{prefix}{layer}/weight",) if slash else (logits, f"{prefix}inputs/labels")
        kind = "l2_loss" if slash else "softmax_cross_entropy"
        nodes.append(Node(path, kind, inputs, (), where))
    return [*nodes, Node(total, "sum", tuple(parts), (), where)]


def _update(
    state: TrainState,
    name: str,
    shape: tuple[int, ...],
    where: str,
    gradients: tuple[str, ...],
    processes: int,
) -> list[Node]:
    """Return the nodes from a variable's gradients to its update and its moving average."""
    path = _path(name)
    nodes = []
    (source, *more) = gradients
    if more:
        nodes.append(Node(f"mean_of_gradients/{path}", "mean", gradients, shape, where))
        source = nodes[-1].name
    if processes > 1:
        nodes.append(Node(f"sum_over_processes/{path}", "all_reduce", (source,), shape, where))
        source = nodes[-1].name
    used = [source, path, "learning_rate"]
    kinds = (kind for optimizer in state.optimizers for kind in optimizer.tensors.items())
    for kind, tensors in kinds:  # the optimizers' own memory, as momenta
        if name in tensors:
            used.append(f"{kind}/{path}")
            nodes.append(Node(used[-1], "variable", (), shape, where))
    nodes.append(Node(f"update/{path}", "assign", tuple(used), shape, where))
    if state.averages is not None and name in state.averages.tensors:
        inputs = (f"update/{path}",)
        nodes.append(Node(f"moving_average/{path}", "moving_average", inputs, shape, where))
    return nodes


def _path(name: str) -> str:
    return name.replace(".", "/")


class _Recorder(CallRecorder):
    """Records every function of torch that returns a tensor, and which module calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._names: dict[int, str] = {}  # of the node that made a tensor, by its identity
        self._tensors: list[Tensor] = []  # kept, so that no other gets the identity of one
        self._nodes: dict[str, Node] = {}

    def run(self, images: Tensor) -> list[Node]:
        """Call the network, and return its nodes in the order of computation."""
        variables = [*self.model.named_parameters(), *self.model.named_buffers()]
        for name, tensor in variables:
            self._add(_path(name), "variable", (), tensor)
        self._add("images", "input", (), images)
        self.call(images)
        used = {name for node in self._nodes.values() for name in node.inputs}
        return [n for n in self._nodes.values() if n.operation != "variable" or n.name in used]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            operation = getattr(func, "__name__", "call").strip("_")
            module = _path(self.layers[-1])
            given = [*args, *kwargs.values()]
            flat = [
                x
                for value in given
                for x in (value if isinstance(value, list | tuple) else [value])
            ]
            sources = (self._names.get(id(x)) for x in flat if isinstance(x, Tensor))
            inputs = tuple(name for name in sources if name is not None)
            self._add(f"{module}/{operation}".lstrip("/"), operation, inputs, result)
        return result

    def _add(self, name: str, operation: str, inputs: tuple[str, ...], tensor: Tensor) -> None:
        original, copy_number = name, 1
        while name in self._nodes:
            copy_number += 1
            name = f"{original}_{copy_number}"
        self._nodes[name] = Node(name, operation, inputs, tuple(tensor.shape))
        self._names[id(tensor)] = name
        self._tensors.append(tensor)
