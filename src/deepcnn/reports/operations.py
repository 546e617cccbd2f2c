"""The operations that the engine of a page knows, read from calls of torch's functions.

A call is bound to the names of its arguments. It becomes one operation of the engine, or none if it
does not change the numbers. Every call that cannot be read in this way is an UnknownOperationError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

KNOWN = (
    *("conv2d", "linear", "relu", "leaky_relu", "silu", "gelu", "sigmoid", "tanh", "max_pool2d"),
    *(
        "avg_pool2d",
        "global pooling",
        "locally connected",
        "batch_norm",
        "local_response_norm",
        "flatten",
        "add",
        "mul",
    ),
)
# Functions that look at a tensor, and whose answers are the same for all images.
HARMLESS = frozenset(
    {"__get__", "size", "dim", "ndimension", "stride", "is_contiguous", "numel", "__len__"}
    | {"is_floating_point", "is_complex", "get_device", "element_size", "data_ptr", "__repr__"}
)
_SAME = frozenset(
    {
        "contiguous",
        "clone",
        "detach",
        "float",
        "double",
        "to",
        "type_as",
        "identity",
        "requires_grad_",
    }
)
_FLAT = frozenset({"flatten", "view", "reshape", "squeeze"})


class UnknownOperationError(Exception):
    """An operation that the engine does not know; the argument is its name."""


class Value(NamedTuple):
    """A value of a program: its number and its shape, [height, width, channels] or [n].

    `kind`: "image" with channels first, as in torch; "pixels" with channels last; or "vector".
    """

    number: int
    kind: Literal["image", "pixels", "vector"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """An operation that was read: like `program.Operation`, with torch's tensors."""

    name: str
    takes: tuple[Value, ...]
    out: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)


class Call(NamedTuple):
    """A call of torch's function `name`, and its result for two images.

    An argument that comes from the images is replaced by its `Value`.
    """

    name: str
    given: list[Any]
    named: dict[str, Any]
    result: Tensor

    def bound(self, names: str) -> dict[str, Any]:
        """Return the given arguments by name."""
        return dict(zip(names.split(), self.given, strict=False)) | self.named

    @property
    def value(self) -> Value:
        """The first argument, which comes from the images."""
        if not self.given or not isinstance(self.given[0], Value):
            raise UnknownOperationError(self.name)
        return self.given[0]

    @property
    def image(self) -> Value:
        """The same, if it is an image with channels first."""
        if self.value.kind != "image":
            raise UnknownOperationError(f"{self.name} of what is no image")
        return self.value

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the result."""
        return self.result.shape[2], self.result.shape[3], self.result.shape[1]


def read(call: Call) -> Found | Value:
    """Return what a call computes.

    Raises UnknownOperationError for calls that the engine does not know.
    """
    name = call.name.strip("_")
    if call.name.startswith("__i") and name[1:] in _ARITHMETIC:
        name = name[1:]  # x += y
    if name in _SAME:
        return call.value
    if name in _FLAT:
        return _flattened(call)
    if name in _ARITHMETIC:
        return _arithmetic(name, call)
    if name[:1] == "r" and name[1:] in _ARITHMETIC:  # the image is on the right
        return _arithmetic(name[1:], call._replace(given=[*reversed(call.given[:2])]))
    reader = _READERS.get(name)
    if reader is None:
        raise UnknownOperationError(name)
    return reader(call)


def activation(name: str, value: Value, **settings: Any) -> Found:
    """Return a function that is applied to each number by itself."""
    return Found(name, (value,), value.shape, settings)


def convolution(
    value: Value,
    size: tuple[int, int, int],
    *,
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Found:
    """Return a convolution by a weight [out, in / groups, kh, kw] and perhaps a bias.

    `size`: rows, columns and channels of the result. `padding`: rows of zeros above, and columns of
    zeros on the left.
    """
    known = {"weight": weight.permute(2, 3, 1, 0)} | ({} if bias is None else {"bias": bias})
    settings: dict[str, Any] = {"kernel": tuple(weight.shape[2:]), "pad": padding}
    settings |= {} if stride == (1, 1) else {"stride": stride}
    settings |= {} if dilation == (1, 1) else {"dilation": dilation}
    settings |= {} if groups == 1 else {"groups": groups}
    return Found("conv", (value,), size, settings, known)


def locally_connected(
    value: Value, *, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
) -> Found:
    """Return a locally connected layer by a weight [kh, H, W, out, kw, in] and a bias [H, W, out].

    `padding`: rows of zeros above and columns on the left.
    """
    kh, height, width, outputs, kw, _ = weight.shape
    known = {"weight": weight.permute(1, 2, 0, 4, 5, 3)} | ({} if bias is None else {"bias": bias})
    settings = {"kernel": (kh, kw), "pad": padding}
    return Found("local", (value,), (height, width, outputs), settings, known)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _conv2d(call: Call) -> Found:
    known = call.bound("input weight bias stride padding dilation groups")
    weight, dilation = known["weight"], _pair(known.get("dilation", 1))
    padding = known.get("padding", 0)
    if padding == "same":  # the smaller half goes before the image
        rows, columns = weight.shape[2:]
        padding = (dilation[0] * (rows - 1) // 2, dilation[1] * (columns - 1) // 2)
    return convolution(
        call.image,
        call.size,
        weight=weight,
        bias=known.get("bias"),
        padding=(0, 0) if padding == "valid" else _pair(padding),
        stride=_pair(known.get("stride", 1)),
        dilation=dilation,
        groups=known.get("groups", 1),
    )


def _linear(call: Call) -> Found:
    known = call.bound("input weight bias")
    bias = known.get("bias")
    if call.value.kind != "vector":
        raise UnknownOperationError("linear of what is not flattened")
    constants = {"weight": known["weight"].t()} | ({} if bias is None else {"bias": bias})
    return Found("linear", (call.value,), (call.result.shape[1],), {}, constants)


def _max_pool(call: Call) -> Found:
    known = call.bound("input kernel_size stride padding dilation ceil_mode")
    if _pair(known.get("dilation", 1)) != (1, 1):
        raise UnknownOperationError("max_pool2d with gaps")
    return _pool("maxpool", call, known)


def _avg_pool(call: Call) -> Found:
    known = call.bound(
        "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
    )
    if _pair(known.get("padding", 0)) != (0, 0) or known.get("ceil_mode", False):
        raise UnknownOperationError("avg_pool2d over the edge")
    if known.get("divisor_override") is not None:
        raise UnknownOperationError("avg_pool2d with its own divisor")
    return _pool("avgpool", call, known)


def _pool(operation: str, call: Call, known: dict[str, Any]) -> Found:
    kernel = _pair(known["kernel_size"])
    stride = _pair(known.get("stride") or kernel)
    settings = {"kernel": kernel, "stride": stride, "pad": _pair(known.get("padding", 0))}
    return Found(operation, (call.image,), call.size, settings)


def _adaptive(operation: str) -> Callable[[Call], Found]:
    def reader(call: Call) -> Found:
        if call.result.ndim != 4 or call.result.shape[2:] != (1, 1):
            raise UnknownOperationError(f"{call.name} to more than one pixel")
        return _whole(operation, call.image, keep=True)

    return reader


def _reduced(operation: str) -> Callable[[Call], Found]:
    """Read a reduction over all pixels, and over nothing else."""

    def reader(call: Call) -> Found:
        known, kind = call.bound("input dim keepdim"), call.value.kind
        found, keep = known.get("dim"), bool(known.get("keepdim"))
        dims = {dim % 4 for dim in ((found,) if isinstance(found, int) else found or ())}
        pixels = {"image": {2, 3}, "pixels": {1, 2}}.get(kind)
        if dims != pixels or (keep and kind != "image"):
            raise UnknownOperationError(f"{call.name} over other than all pixels")
        return _whole(operation, call.value, keep=keep)

    return reader


def _whole(operation: str, value: Value, *, keep: bool) -> Found:
    """Return a pooling over all pixels; `keep`: the result is an image of one pixel, no vector."""
    kernel, channels = value.shape[:2], value.shape[2]
    settings = {"kernel": kernel, "stride": kernel, "pad": (0, 0)}
    return Found(operation, (value,), (1, 1, channels) if keep else (channels,), settings)


def _batch_norm(call: Call) -> Found:
    known = call.bound("input running_mean running_var weight bias training momentum eps")
    mean, variance = known.get("running_mean"), known.get("running_var")
    if mean is None or variance is None or known.get("training"):
        raise UnknownOperationError("batch_norm by the batch's own statistics")
    scale = (variance + known.get("eps", 1e-5)).rsqrt()
    if known.get("weight") is not None:
        scale = scale * known["weight"]
    shift = -mean * scale
    if known.get("bias") is not None:
        shift = shift + known["bias"]
    return _affine(call.value, scale, shift)


def _affine(value: Value, scale: Tensor, shift: Tensor) -> Found:
    return Found("affine", (value,), value.shape, {}, {"scale": scale, "shift": shift})


def _response_norm(call: Call) -> Found:
    known = call.bound("input size alpha beta k")
    size = known["size"]
    settings = {
        "before": size // 2,
        "after": (size - 1) // 2,
        "start": known.get("k", 1.0),
        "alpha": known.get("alpha", 1e-4) / size,
        "beta": known.get("beta", 0.75),
    }
    return Found("lrn", (call.image,), call.value.shape, settings)


def _simple(operation: str) -> Callable[[Call], Found]:
    return lambda call: activation(operation, call.value)


def _leaky(call: Call) -> Found:
    slope = call.bound("input negative_slope inplace").get("negative_slope", 0.01)
    return activation("leaky", call.value, slope=slope)


def _gelu(call: Call) -> Found:
    if call.named.get("approximate", "none") != "none":
        raise UnknownOperationError("gelu by another formula")
    return activation("gelu", call.value)


def _dropout(call: Call) -> Value:
    if call.bound("input p training inplace").get("training", True):
        raise UnknownOperationError(f"{call.name} that is always on")
    return call.value


def _permuted(call: Call) -> Value:
    value, given = call.value, call.given
    dims = given[1] if len(given) == 2 and not isinstance(given[1], int) else given[1:]
    order = tuple(dim % 4 for dim in (call.named.get("dims") or dims))
    if value.kind == "image" and order == (0, 2, 3, 1):
        return value._replace(kind="pixels")
    if value.kind == "pixels" and order == (0, 3, 1, 2):
        return value._replace(kind="image")
    raise UnknownOperationError(f"{call.name} into another order")


def _flattened(call: Call) -> Found | Value:
    """Read a call that makes a vector of each image."""
    value = call.value
    count = math.prod(value.shape)
    if call.result.shape != (2, count):
        raise UnknownOperationError(f"{call.name} to {list(call.result.shape)}")
    if value.kind == "vector":
        return value
    # The engine keeps channels last, and with one pixel there is but one order.
    in_order = value.kind == "pixels" or value.shape[:2] == (1, 1)
    return Found("flat" if in_order else "flatten", (value,), (count,))


def _arithmetic(name: str, call: Call) -> Found:
    if call.named.get("alpha", 1) != 1 or call.named.get("rounding_mode") or len(call.given) < 2:
        raise UnknownOperationError(call.name)
    one, other = call.given[:2]
    if isinstance(one, Value) and isinstance(other, Value):
        if name != "add" or one.shape != other.shape or one.kind != other.kind:
            raise UnknownOperationError(f"{name} of two values")
        return Found("add", (one, other), one.shape)
    if not isinstance(one, Value):
        if name not in ("add", "mul"):  # these may change places
            raise UnknownOperationError(f"{name} with the image on the right")
        one, other = other, one
    number = _of_channels(call, one, other)
    none, unit = torch.zeros_like(number), torch.ones_like(number)
    if name in ("add", "sub"):
        return _affine(one, unit, number if name == "add" else -number)
    return _affine(one, number if name == "mul" else 1 / number, none)


def _of_channels(call: Call, value: Value, number: Any) -> Tensor:
    """Return a number, or one for each channel, as a tensor [channels]."""
    channels = value.shape[-1]
    constant = torch.as_tensor(number, dtype=torch.float64)
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    if value.kind == "image":
        fits = constant.ndim >= 3 and constant.shape[-3:] == (channels, 1, 1)
    else:
        fits = constant.shape[-1] == channels
    if not fits or constant.numel() != channels:
        raise UnknownOperationError(f"{call.name} with a constant of another shape")
    return constant.reshape(channels)


_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "truediv"})
_READERS: dict[str, Callable[[Call], Found | Value]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive("avgpool"),
    "adaptive_max_pool2d": _adaptive("maxpool"),
    "amax": _reduced("maxpool"),
    "mean": _reduced("avgpool"),
    "batch_norm": _batch_norm,
    "local_response_norm": _response_norm,
    "relu": _simple("relu"),
    "silu": _simple("silu"),
    "sigmoid": _simple("sigmoid"),
    "tanh": _simple("tanh"),
    "leaky_relu": _leaky,
    "gelu": _gelu,
    "dropout": _dropout,
    "dropout2d": _dropout,
    "feature_dropout": _dropout,
    "permute": _permuted,
}
