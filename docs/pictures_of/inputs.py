"""What happens to an image before the network sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from docs.pictures_of.drawing import enlarged, framed, from_darkest_to_brightest, save, sheet
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.transform import Transform
from deepcnn.kernels.crop import crop

EXAMPLES = (7, 4, 0)  # of the training set: a horse, an automobile, a frog
TIMES = 4  # pixels a side that a pixel becomes


def make(data: Arrays, transform: Transform, folder: Path) -> None:
    """Write the pictures of the chapters on data and inputs."""
    save(classes(data), folder / "data.png")
    save(steps(data, transform), folder / "inputs.png")
    save(sixteen_times(data, transform), folder / "draws.png")


def classes(data: Arrays, each: int = 8) -> Image.Image:
    """Return the first images of each class."""
    rows = []
    for label in range(len(data.classes)):
        chosen = np.flatnonzero(data.labels == label)[:each]
        rows.append([enlarged(image, 64) for image in data.images[chosen]])
    return sheet(rows, sides=data.classes, gap=6)


def steps(data: Arrays, transform: Transform) -> Image.Image:
    """Return what each step of the distortion makes of some images, and what scoring sees."""
    images = torch.from_numpy(data.images[list(EXAMPLES)])
    drawn = draws_for(len(images), transform, seed=2)
    size = transform.crop_height, transform.crop_width
    still = torch.zeros_like(drawn.flip)
    cropped = crop(images, drawn.row, drawn.column, still, size).numpy()
    mirrored = crop(images, drawn.row, drawn.column, drawn.flip, size).numpy()
    assert drawn.contrast is not None
    contrasted = as_shown(with_contrast(mirrored, drawn.contrast.numpy()))
    inputs = transform.train(images, drawn).permute(0, 2, 3, 1).numpy()
    rows = []
    for i, image in enumerate(images.numpy()):
        row, column = int(drawn.row[i]), int(drawn.column[i])
        whole = enlarged(image, TIMES * transform.height)
        corner = column * TIMES, row * TIMES
        box = (*corner, corner[0] + TIMES * size[1] - 1, corner[1] + TIMES * size[0] - 1)
        made = (cropped[i], mirrored[i], contrasted[i], from_darkest_to_brightest(inputs[i]))
        rows.append([framed(whole, box), *(enlarged(each, TIMES * size[0]) for each in made)])
    heads = ("image", "crop", "flip", "contrast", "standardized")
    return sheet(rows, heads=heads, gap=18)


def sixteen_times(data: Arrays, transform: Transform) -> Image.Image:
    """Return one image as sixteen epochs show it to the network."""
    images = torch.from_numpy(data.images[[EXAMPLES[0]] * 16])
    inputs = transform.train(images, draws_for(16, transform, seed=0)).permute(0, 2, 3, 1).numpy()
    pictures = [enlarged(from_darkest_to_brightest(each), 90) for each in inputs]
    return sheet([pictures[:8], pictures[8:]], gap=6)


def draws_for(count: int, transform: Transform, seed: int) -> Draws:
    """Return the random choices for the first places of an epoch, one of them of each epoch."""
    epoch = torch.arange(count)
    position = torch.zeros(count, dtype=torch.int64)
    return transform.draw(seed, index=position, epoch=epoch, position=position)


def with_contrast(images: NDArray[np.uint8], factors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Apply contrast by its definition, to [B, H, W, C]: each channel about its own mean."""
    means = images.mean((1, 2), keepdims=True)
    found: NDArray[np.float64] = (images - means) * factors[:, None, None, None] + means
    return found


def as_shown(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values as a screen can show them, which nothing but a picture is cut off at."""
    return values.round().clip(0, 255).astype(np.uint8)
