"""Makes docs/pictures/distortions.png: what each distortion does to images of CIFAR-10.

    python docs/make_distortions.py

A row for each distortion: an image as it is, and as six epochs of a training see it, all but the
standardization. CIFAR-10 must be on disk: deepcnn data fetch cifar10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source
from deepcnn.inputs import mixing
from deepcnn.inputs.transform import Transform

FILE = Path(__file__).parent / "pictures" / "distortions.png"
EVERY = {
    "pad": 4,
    "flip": "random",
    "contrast": (0.7, 1.3),
    "brightness": 40.0,
    "saturation": (0.5, 1.5),
    "hue": 0.05,
    "rotation": 15.0,
    "erase": 0.5,
    "cutmix": 1.0,
}
# What stands beside a row, the number of its image in the test split, and its settings.
ROWS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("crop 0.75", 8, {"crop": 0.75}),
    ("pad 4", 1, {"pad": 4}),
    ("flip random", 17, {"flip": "random"}),
    ("translation 6", 13, {"translation": 6}),
    ("rotation 30", 18, {"rotation": 30.0}),
    ("brightness 63", 10, {"brightness": 63.0}),
    ("contrast 0.2 1.8", 12, {"contrast": (0.2, 1.8)}),
    ("saturation 0 2", 6, {"saturation": (0.0, 2.0)}),
    ("hue 0.2", 29, {"hue": 0.2}),
    ("cutout 12", 0, {"cutout": 12}),
    ("erase 1", 16, {"erase": 1.0}),
    ("mixup 1", 11, {"mixup": 1.0}),
    ("cutmix 1", 7, {"cutmix": 1.0}),
    ("several", 9, EVERY),
)
DRAWS = 6  # epochs
OTHER = 37  # images further on, of which each epoch has another one to mix with
SCALE, GAP, LABEL, HEADER = 3, 6, 140, 24


def main() -> None:
    """Make the picture."""
    FILE.parent.mkdir(exist_ok=True)
    sheet(open_dataset("cifar10").split("test")).save(FILE, optimize=True)


def sheet(source: Source) -> Image.Image:
    """Draw all rows, with the names of the settings beside them."""
    height, width = (SCALE * side + GAP for side in source.shape[:2])
    size = LABEL + (DRAWS + 1) * width, HEADER + len(ROWS) * height
    made, font = Image.new("RGB", size, "white"), ImageFont.load_default(15)
    pen = ImageDraw.Draw(made)
    heads = ["as it is", *(f"epoch {epoch}" for epoch in range(DRAWS))]
    for column, head in enumerate(heads):
        middle = LABEL + column * width + (width - GAP) / 2
        pen.text((middle, HEADER / 2), head, "black", font, anchor="mm")
    images = torch.from_numpy(source.first_images(1 + max(n for _, n, _ in ROWS) + OTHER + DRAWS))
    for row, (name, number, settings) in enumerate(ROWS):
        top = HEADER + row * height
        pen.text((GAP, top + (height - GAP) / 2), name, "black", font, anchor="lm")
        whole = {"crop": 1.0, "pad": 0, "flip": "none", "contrast": None, "standardize": "dataset"}
        transform = Transform.of(source, **(whole | settings))
        for column, picture in enumerate([images[number], *seen(transform, images, number)]):
            cell = Image.fromarray(picture.numpy()).resize(
                (SCALE * picture.shape[1], SCALE * picture.shape[0]), Image.Resampling.NEAREST
            )
            left = LABEL + column * width + (width - GAP - cell.width) // 2
            made.paste(cell, (left, top + (height - GAP - cell.height) // 2))
    return made


def seen(transform: Transform, images: Tensor, number: int) -> Tensor:
    """Return how an image is seen in each of the first epochs: uint8 [DRAWS, H, W, C]."""
    own = torch.full((DRAWS,), number)
    # of each epoch two: what may be mixed in, and then the image itself
    index = torch.stack([own + OTHER + torch.arange(DRAWS), own], 1).flatten()
    epoch = torch.arange(DRAWS).repeat_interleave(2)
    draws = transform.draw(0, index=index, epoch=epoch, position=index)
    values = transform.train(images[index], draws)
    if transform.mixes:
        values, _ = mixing.mix(values, torch.zeros_like(index), draws, steps=DRAWS, classes=1)
    else:
        values = values[1::2]
    mean, std = (torch.tensor(each)[:, None, None] for each in (transform.mean, transform.std))
    return (values * std + mean).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


if __name__ == "__main__":
    main()
