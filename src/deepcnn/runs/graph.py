"""The graph of a network, for visualizers: what it calls, found by calling it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepcnn.events import Node


def trace(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """Return the operations of `model` on images of `shape` (channels, height, width).

    A node bears the name of the module that it belongs to, so that a visualizer can fold the
    graph into the layers that a reader knows. Sizes that differ between a batch of 2 and one of 3
    are the batch's. (torch.export tells the same, but its import alone takes a second.)
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


class _Recorder(TorchFunctionMode):
    """Takes down every function of torch that returns a tensor, and which module calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._modules: list[str] = []  # those whose forward runs
        self._names: dict[int, str] = {}  # of the node that made a tensor, by its identity
        self._tensors: list[Tensor] = []  # kept, so that no other gets the identity of one
        self._nodes: dict[str, Node] = {}

    def run(self, images: Tensor) -> list[Node]:
        """Call the network, and return its nodes in the order of computation."""
        variables = [*self._model.named_parameters(), *self._model.named_buffers()]
        for name, tensor in variables:
            self._add(name.replace(".", "/"), "variable", (), tensor)
        self._add("images", "input", (), images)
        hooks = []
        for name, module in self._model.named_modules():
            hooks.append(module.register_forward_pre_hook(partial(self._enter, name)))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            with torch.no_grad(), self:
                self._model(images)
        finally:
            for hook in hooks:
                hook.remove()
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
            module = self._modules[-1].replace(".", "/")
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

    def _enter(self, name: str, *_: Any) -> None:
        self._modules.append(name)

    def _leave(self, *_: Any) -> None:
        self._modules.pop()
