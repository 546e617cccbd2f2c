"""A network as a short list of operations, which the engine inside a page can follow.

The list is found by calling the network once and recording its calls of torch. So this works for
any network whose operations are known. Values are numbered: 0 is the image, and each operation
makes the next value. An image is stored as rows, columns, channels; flattened, it is a vector.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from deepcnn.errors import ConfigError
from deepcnn.models.calls import CallRecorder
from deepcnn.models.layers import LocallyConnected2d, LocallyConnectedReLU, SameConv2d
from deepcnn.models.response_norm import LocalResponseNorm, ReLUResponseNorm
from deepcnn.reports import operations
from deepcnn.reports.operations import UnknownOperationError, Value

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Operation:
    """One operation: its name, the values that it takes, its settings and its constants.

    `out`: the shape of the result, [height, width, channels] or [n]. `constants`: float64, in the
    layout that the engine reads: filters [kh, kw, in / groups, out]; for a locally connected layer
    [height, width, kh, kw, in, out]; matrices [in, out].
    """

    name: str
    takes: tuple[int, ...]
    out: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Floats] = field(default_factory=dict)


def trace(model: nn.Module, shape: tuple[int, int, int]) -> list[Operation]:
    """Return what a network does to an image of `shape` (channels, height, width).

    Raises ConfigError for an operation that the engine of a page does not know, which it names, and
    if the network does not compute in float64.
    """
    # In float64 layers do what the literature says, and not what is faster in float32.
    plain = copy.deepcopy(model).to("cpu", torch.float64).eval().requires_grad_(False)
    recorder = _Recorder(plain)
    try:
        return fold(recorder.run(shape))
    except UnknownOperationError as error:
        raise ConfigError(
            f"the operation {error.args[0]!r}{recorder.where()} is not one that the engine of a "
            f"page knows; it knows {', '.join(operations.KNOWN)}"
        ) from error
    except Exception as error:  # whatever somebody's own network does with float64 raises
        what = " ".join(str(error).split())[:200]
        raise ConfigError(f"it does not run in float64 ({type(error).__name__}: {what})") from error


class _Recorder(CallRecorder):
    """Records each function of torch that computes with values from the images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._inside = 0  # layers that are one operation, whose inner ones do not count
        self._values: dict[int, Value] = {}  # what a tensor is, by its identity
        self._tensors: list[Tensor] = []  # kept, so that no other gets the identity of one
        self._operations: list[Operation] = []

    def where(self) -> str:
        """Return the layer in which the network is at the moment."""
        names = [name for name in self.layers if name]
        return f" (in {names[-1]})" if names else ""

    def run(self, shape: tuple[int, int, int]) -> list[Operation]:
        channels, height, width = shape
        # Two, so that the batch is not taken for a side of 1; different, so that none is constant.
        values = torch.linspace(-1, 1, 2 * channels * height * width, dtype=torch.float64)
        images = values.reshape(2, *shape)
        self._know(images, Value(0, "image", (height, width, channels)))
        logits = self.call(images)
        last = self._values.get(id(logits))
        if last is None or last.kind != "vector":
            raise UnknownOperationError("an output that does not come of the image")
        return _until(self._operations, last.number)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [self._known(value) for value in args]
        named = {name: self._known(value) for name, value in kwargs.items()}
        result = func(*args, **kwargs)
        flat = [x for v in (*given, *named.values()) for x in (v if type(v) is list else [v])]
        if not self._inside and any(isinstance(value, Value) for value in flat):
            name = getattr(func, "__name__", "call")
            if isinstance(result, Tensor):
                call = operations.Call(name, given, named, result)
                self._take_down(operations.read(call), result)
            elif name not in operations.HARMLESS:
                raise UnknownOperationError(name)
        return result

    def _known(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._values.get(id(value), value)
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            return [self._known(each) for each in value]
        return value

    def _know(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._tensors.append(tensor)

    def _take_down(self, found: operations.Found | Value, result: Tensor) -> None:
        if isinstance(found, Value):  # the same numbers in the same order
            self._know(result, found)
            return
        constants = {
            name: tensor.detach().double().numpy() for name, tensor in found.constants.items()
        }
        takes = tuple(value.number for value in found.takes)
        self._operations.append(
            Operation(found.name, takes, found.out, dict(found.settings), constants)
        )
        number = len(self._operations)
        is_image = len(found.out) == 3
        self._know(result, Value(number, "image" if is_image else "vector", found.out))

    @override
    def entered(self, module: nn.Module) -> None:
        self._inside += is_one(module)

    @override
    def left(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if is_one(module):
            self._inside -= 1
            value = self._values.get(id(given[0]))
            if not self._inside and value is not None:
                self._layer(module, value, result)

    def _layer(self, module: nn.Module, value: Value, result: Tensor) -> None:
        if isinstance(module, SameConv2d):
            half = module.kernel_size[0] // 2
            size = (result.shape[2], result.shape[3], result.shape[1])
            found = operations.convolution(
                value, size, weight=module.weight, bias=module.bias, padding=(half, half)
            )
            self._take_down(found, result)
            return
        if isinstance(module, LocallyConnected2d):
            self._locally_connected(module, value, result)
            return
        assert isinstance(module, LocalResponseNorm)
        if isinstance(module, ReLUResponseNorm):
            middle = torch.empty(0)
            self._take_down(operations.activation("relu", value), middle)
            value = self._values[id(middle)]
        radius = module.radius
        norm = {"before": radius, "after": radius, "start": module.bias, "alpha": module.alpha}
        found = operations.Found("lrn", (value,), value.shape, {**norm, "beta": 0.75})
        self._take_down(found, result)

    def _locally_connected(self, module: LocallyConnected2d, value: Value, result: Tensor) -> None:
        middle = torch.empty(0) if isinstance(module, LocallyConnectedReLU) else result
        found = operations.locally_connected(
            value, weight=module.weight, bias=module.bias, padding=module.padding
        )
        self._take_down(found, middle)
        if middle is not result:
            self._take_down(operations.activation("relu", self._values[id(middle)]), result)


def is_one(module: nn.Module) -> bool:
    """Tell whether a layer is a single operation, in whatever way it is computed."""
    return isinstance(module, SameConv2d | LocallyConnected2d | LocalResponseNorm)


def _until(found: list[Operation], last: int) -> list[Operation]:
    """Return the operations that the value `last` needs, with new numbers."""
    needed, waiting = set(), [last]
    while waiting:
        number = waiting.pop()
        if number and number not in needed:
            needed.add(number)
            waiting += found[number - 1].takes
    numbers = {0: 0} | {old: new for new, old in enumerate(sorted(needed), 1)}
    return [
        dataclasses.replace(found[old - 1], takes=tuple(numbers[t] for t in found[old - 1].takes))
        for old in sorted(needed)
    ]


def fold(program: list[Operation]) -> list[Operation]:
    """Put scales and shifts of channels into the convolution or the matrix before them.

    This also works through a max pooling if no scale is negative, since the two can then be
    exchanged.
    """
    program = list(program)
    uses = [0] * (len(program) + 1)
    for operation in program:
        for number in operation.takes:
            uses[number] += 1
    for place, operation in enumerate(program):
        if operation.name != "affine":
            continue
        target = operation.takes[0] - 1
        positive = bool((operation.constants["scale"] >= 0).all())
        path = [target]
        while target >= 0 and program[target].name == "maxpool" and positive:
            target = program[target].takes[0] - 1
            path.append(target)
        is_linear = target >= 0 and program[target].name in ("conv", "linear")
        if is_linear and all(uses[index + 1] == 1 for index in path):
            program[target] = _scaled(program[target], operation)
            program[place] = dataclasses.replace(operation, name="same", constants={})
    return _without_same(program)


def _scaled(operation: Operation, affine: Operation) -> Operation:
    scale, shift = affine.constants["scale"], affine.constants["shift"]
    constants = operation.constants
    bias = constants.get("bias", np.zeros(len(scale)))
    return dataclasses.replace(
        operation,
        constants={"weight": constants["weight"] * scale, "bias": bias * scale + shift},
    )


def _without_same(program: list[Operation]) -> list[Operation]:
    stands_for = {0: 0}
    kept: list[Operation] = []
    for number, operation in enumerate(program, 1):
        takes = tuple(stands_for[each] for each in operation.takes)
        if operation.name == "same":
            stands_for[number] = takes[0]
        else:
            kept.append(dataclasses.replace(operation, takes=takes))
            stands_for[number] = len(kept)
    return kept
