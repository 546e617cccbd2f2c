"""Programs with their weights as text, and the proof that they give the network's answers."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn.errors import ConfigError
from deepcnn.inference.calibration import probabilities
from deepcnn.inputs.transform import Transform
from deepcnn.kernels.locally_connected import plain_locally_connected2d
from deepcnn.reports.program import Operation

SHORT = "weight"  # the constants that are kept in 16 bits; the others, which are few, in fp32
STEPS = 2**15 - 1  # from 0 to the largest weight of a filter
LIMIT = 0.01  # by which a probability may differ
TRIED = 32  # images


def rounded(program: list[Operation]) -> list[Operation]:
    """Return a program with its constants as the page will have them."""
    found = []
    for operation in program:
        constants = {name: _kept(name, values) for name, values in operation.constants.items()}
        found.append(dataclasses.replace(operation, constants=constants))
    return found


def _kept(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if name != SHORT:
        return values.astype(np.float32).astype(np.float64)
    whole, scales = _in_steps(values)
    return whole.astype(np.float64) * scales


def _in_steps(values: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return weights [..., out] as integers, and the factors for each output.

    These 16 bits are more precise than fp16, most of whose bits distinguish small weights.
    """
    largest = np.abs(values).max(axis=tuple(range(values.ndim - 1)), initial=0.0)
    scales = np.where(largest > 0, largest / STEPS, 1.0).astype(np.float32)
    return np.rint(values / scales).clip(-STEPS, STEPS).astype(np.int16), scales


def packed(program: list[Operation]) -> tuple[list[dict[str, Any]], str]:
    """Return the operations, in a form for JSON, and all their constants in base64.

    A constant is given by its beginning, in bytes, and its number of values. The values are
    float32, or int16; then there is also the place of the scales, a float32 for each output.
    """
    operations: list[dict[str, Any]] = []
    parts: list[bytes] = []

    def put(content: bytes) -> int:
        at = sum(map(len, parts))
        parts.append(content + bytes(-len(content) % 4))
        return at

    for operation in program:
        constants = {}
        for name, values in operation.constants.items():
            about = constants[name] = {"count": int(values.size)}
            if name == SHORT:
                whole, scales = _in_steps(values)
                about["at"] = put(whole.astype("<i2").tobytes())
                about["scales"] = put(scales.astype("<f4").tobytes())
            else:
                about["at"] = put(values.astype("<f4").tobytes())
        operations.append(
            {"op": operation.name, "of": operation.takes, "out": operation.out}
            | operation.settings
            | constants
        )
    return operations, base64.b64encode(b"".join(parts)).decode()


def prove(
    program: list[Operation], model: nn.Module, transform: Transform, temperature: float
) -> float:
    """Return the largest difference of a probability between the program and the network.

    It is measured over images of noise, of gradients, and of both. Raises ConfigError if it is
    above `LIMIT`: then the network computes something else for other images.
    """
    images = transform.evaluate(torch.from_numpy(trial_images(transform.image_shape)))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        theirs = model.eval()(images.to(device)).float().cpu().numpy()
    ours = follow(program, images).numpy()
    difference = np.abs(probabilities(ours, temperature) - probabilities(theirs, temperature))
    largest = float(difference.max())
    if not largest <= LIMIT:
        raise ConfigError(
            "what it computes depends on more than its operations: followed one by one, they "
            f"give other probabilities than the network, by up to {largest:.3g}"
        )
    return largest


def trial_images(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return `TRIED` images uint8 [N, H, W, C] of many kinds, always the same."""
    height, width, channels = shape
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(TRIED, height, width, channels))
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[:, None]
    slopes = generator.normal(size=(3, TRIED, 1, 1, channels))
    smooth = slopes[0] * down + slopes[1] * across + slopes[2]
    share = np.linspace(0, 1, TRIED)[:, None, None, None]
    contrast = generator.uniform(10, 80, (TRIED, 1, 1, 1))
    values = 128 + contrast * (share * noise + (1 - share) * smooth)
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def follow(program: list[Operation], images: Tensor) -> Tensor:
    """Return the logits of a program for images float32 [N, C, H, W], as the engine does it."""
    values = [images]
    for operation in program:
        constants = {name: torch.from_numpy(v).float() for name, v in operation.constants.items()}
        taken = [values[number] for number in operation.takes]
        values.append(_done(operation, taken, constants))
    return values[-1]


def _done(operation: Operation, taken: list[Tensor], constants: dict[str, Tensor]) -> Tensor:
    x, name, settings = taken[0], operation.name, operation.settings
    match name:
        case "conv":
            return _convolved(operation, x, constants)
        case "local":
            weight = constants["weight"].permute(2, 0, 1, 5, 3, 4)
            return plain_locally_connected2d(x, weight, constants.get("bias"), settings["pad"])
        case "linear":
            return F.linear(x, constants["weight"].t(), constants.get("bias"))
        case "maxpool" | "avgpool":
            return _pooled(operation, x)
        case "affine":
            shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
            return x * constants["scale"].reshape(shape) + constants["shift"].reshape(shape)
        case "lrn":
            room = (0, 0, 0, 0, settings["before"], settings["after"])
            squares = F.pad(x.square(), room)
            window = squares.unfold(1, settings["before"] + settings["after"] + 1, 1).sum(4)
            power: Tensor = (settings["start"] + settings["alpha"] * window) ** -settings["beta"]
            return x * power
        case "flat":
            return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).flatten(1)
        case "flatten":
            return x.flatten(1)
        case "add":
            return x + taken[1]
        case "leaky":
            return F.leaky_relu(x, settings["slope"])
    return _ALONE[name](x)


_ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def _convolved(operation: Operation, x: Tensor, constants: dict[str, Tensor]) -> Tensor:
    settings = operation.settings
    weight, pad = constants["weight"].permute(3, 2, 0, 1), settings["pad"]
    dilation = settings.get("dilation", (1, 1))
    # As many zeros after the image as the result's size needs.
    under, right = (
        (size - 1) * stride + (taps - 1) * gap + 1 - first - side
        for size, stride, taps, gap, first, side in zip(
            operation.out,
            settings.get("stride", (1, 1)),
            settings["kernel"],
            dilation,
            pad,
            x.shape[2:],
            strict=False,
        )
    )
    padded = F.pad(x, (pad[1], right, pad[0], under))
    return F.conv2d(
        padded,
        weight,
        constants.get("bias"),
        stride=settings.get("stride", 1),
        dilation=dilation,
        groups=settings.get("groups", 1),
    )


def _pooled(operation: Operation, x: Tensor) -> Tensor:
    """Pool windows that may reach over the edge; nothing counts there."""
    settings = operation.settings
    (rows, columns), (down, across) = settings["kernel"], settings["stride"]
    top, left = settings["pad"]
    height, width = operation.out[:2] if len(operation.out) == 3 else (1, 1)
    under = (height - 1) * down + rows - top - x.shape[2]
    right = (width - 1) * across + columns - left - x.shape[3]
    room = (left, max(0, right), top, max(0, under))
    if operation.name == "maxpool":
        y = F.max_pool2d(F.pad(x, room, value=-torch.inf), (rows, columns), (down, across))
    else:
        y = F.avg_pool2d(x, (rows, columns), (down, across))
    y = y[:, :, :height, :width]
    return y.flatten(1) if len(operation.out) == 1 else y
