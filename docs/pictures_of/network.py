"""What each operation of the trained network makes of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from docs.pictures_of.drawing import (
    GAP,
    bars,
    beside,
    enlarged,
    from_darkest_to_brightest,
    map_of,
    save,
    sheet,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from deepcnn.data.arrays import Arrays
from deepcnn.inference.trained import Trained
from deepcnn.models.build import build_model

SHOWN = 0  # of the test set: a cat
CHANNELS = 6  # of each layer
SIDE = 96  # pixels a side that a map of activations becomes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Watched:
    """What the layers of the network make of an image, as the literature orders them.

    `image`: float32 [24, 24, 3], the network's input; `of`: what each layer gives out, by its name,
    float32 [C, H, W] or [units]; `conv1` and `conv2` without their ReLU.
    """

    image: Floats
    of: dict[str, Floats]


def make(trained: Trained, test: Arrays, folder: Path) -> None:
    """Write the pictures of the chapter on prediction."""
    watched = watch(trained, test.images[SHOWN])
    weight: Floats = trained.model.get_parameter("conv1.weight").detach().numpy()
    channels = liveliest(watched.of["conv1"])
    save(filters(weight), folder / "filters.png")
    save(convolution(watched, weight, channels[:3]), folder / "convolution.png")
    save(pooling(watched, channels[:3]), folder / "pooling.png")
    save(normalization(watched, channels[0]), folder / "normalization.png")
    save(connected(watched), folder / "connected.png")
    save(softmax(watched, test.classes), folder / "softmax.png")
    save(layers(watched, channels), folder / "layers.png")


def watch(trained: Trained, image: NDArray[np.uint8]) -> Watched:
    """Ask the network about an image, uint8 [H, W, C], and keep what its layers give out."""
    found: dict[str, Floats] = {}

    def keep(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:  # noqa: ARG001
            found[name] = output.detach().to_dense()[0].float().numpy().copy()

        trained.model.get_submodule(name).register_forward_hook(hook)

    names = ("conv1", "pool1", "norm1", "conv2", "norm2", "pool2", "local3", "local4")
    for name in (*names, "softmax_linear"):
        keep(name)
    inputs = trained.trained_on.transform.evaluate(torch.from_numpy(image[None]))
    with torch.no_grad():
        trained.model.eval()(inputs)
    found["pool1"] = found["pool1"].clip(0)  # the program activates after pooling
    return Watched(inputs[0].permute(1, 2, 0).numpy(), found)


def liveliest(maps: Floats) -> list[int]:
    """Return channels that answer most, and each to something else than those before."""
    flat = maps.clip(0).reshape(len(maps), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    strength = maps.clip(0).std((1, 2))
    chosen: list[int] = []
    for _ in range(CHANNELS):
        like = (flat @ flat[chosen].T).max(1) if chosen else np.zeros(len(maps))
        chosen.append(int((strength * (1 - like)).argmax()))
    return chosen


def filters(weight: Floats) -> Image.Image:
    """Return all filters of the first layer, as they began and as they are."""
    began: Floats = build_model("tutorial", seed=0).get_parameter("conv1.weight").detach().numpy()
    sheets = []
    for each in (began, weight):
        tiles = [enlarged(from_darkest_to_brightest(f.transpose(1, 2, 0)), 40) for f in each]
        rows = [tiles[i : i + 8] for i in range(0, len(tiles), 8)]
        sheets.append(sheet(rows, gap=6))
    titled = [[sheets[0], sheets[1]]]
    return sheet(titled, heads=("before training", "trained"), gap=3 * GAP)


def convolution(watched: Watched, weight: Floats, channels: list[int]) -> Image.Image:
    """Return an image, filters, and what convolution and ReLU make of them."""
    image = enlarged(from_darkest_to_brightest(watched.image), 2 * SIDE)
    rows = []
    for channel in channels:
        found = watched.of["conv1"][channel]
        most = float(np.abs(found).max())
        each = from_darkest_to_brightest(weight[channel].transpose(1, 2, 0))
        maps = [map_of(values, most, 2 * SIDE) for values in (found, found.clip(0))]
        rows.append([image, enlarged(each, SIDE), *maps])
    return sheet(rows, heads=("image", "filter", "convolution", "ReLU"), gap=2 * GAP)


def pooling(watched: Watched, channels: list[int]) -> Image.Image:
    """Return maps before and after pooling, in the scale of their pixels."""
    rows: list[list[Image.Image]] = [[], []]
    for channel in channels:
        before, after = watched.of["conv1"][channel].clip(0), watched.of["pool1"][channel]
        most = float(before.max())
        rows[0].append(map_of(before, most, 2 * SIDE))
        rows[1].append(map_of(after, most, SIDE))
    return sheet(rows, sides=("24 by 24", "12 by 12"), gap=2 * GAP)


def normalization(watched: Watched, channel: int) -> Image.Image:
    """Return a map before and after normalization, and what it was multiplied with."""
    before, after = watched.of["pool1"][channel], watched.of["norm1"][channel]
    factor = np.where(before > 0, after / np.maximum(before, 1e-9), np.nan)
    most = float(before.max())
    least, largest = float(np.nanmin(factor)), float(np.nanmax(factor))
    tiles = [
        map_of(before, most, 2 * SIDE),
        map_of(np.nan_to_num(1 - factor), 1 - least, 2 * SIDE),
        map_of(after, most, 2 * SIDE),
    ]
    span = f"times {least:.3f}\nto {largest:.3f}"
    return sheet([tiles], heads=("pooled", span, "normalized"), gap=2 * GAP)


def connected(watched: Watched) -> Image.Image:
    """Return the units of the fully connected layers."""
    tiles, heads = [], []
    for name in ("local3", "local4"):
        found = watched.of[name]
        columns = math.gcd(len(found), 24)
        side = 14 * len(found) // columns
        tiles.append(map_of(found.reshape(-1, columns), float(found.max()), side))
        zeros = round(100 * float((found == 0).mean()))
        heads.append(f"{name}: {len(found)} units,\n{zeros} % of them 0")
    return sheet([tiles], heads=heads, gap=6 * GAP)


def softmax(watched: Watched, classes: tuple[str, ...]) -> Image.Image:
    """Return logits and what softmax makes of them."""
    logits = watched.of["softmax_linear"].astype(np.float64)
    powers = np.exp(logits - logits.max())
    chances = powers / powers.sum()
    return beside(
        [
            bars(classes, logits, title="logits", length=190, written=[f"{v:.1f}" for v in logits]),
            bars(
                [""] * len(classes),
                chances,
                title="softmax",
                length=190,
                written=[f"{v:.3f}" for v in chances],
            ),
        ],
        gap=2 * GAP,
    )


def layers(watched: Watched, channels: list[int]) -> Image.Image:
    """Return some channels of every layer that has pixels, each from 0 to its largest value."""
    rows, sides = [], []
    later = liveliest(watched.of["conv2"])
    for name in ("conv1", "pool1", "norm1", "conv2", "norm2", "pool2"):
        maps = watched.of[name].clip(0)
        chosen = channels if name in ("conv1", "pool1", "norm1") else later
        rows.append([map_of(maps[c], float(maps[c].max()), SIDE) for c in chosen])
        height, width = maps.shape[1:]
        sides.append(f"{name}\n{height} by {width}")
    return sheet(rows, sides=sides, gap=GAP)
