"""Picture files of many sizes and kinds, made of real photographs: those of CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Maker = Callable[[Pixels, np.random.Generator, Path], Path]


def write_pictures(photographs: Pixels, count: int, folder: Path) -> list[Path]:
    """Write `count` files of photographs uint8 [N, 32, 32, 3], the same ones each time."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        some = photographs[generator.permutation(len(photographs))[:300]]
        make = KINDS[number % len(KINDS)]
        found.append(make(some, generator, folder / f"{number:03}-{make.__name__}"))
    return found


def as_it_is(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    return saved(Image.fromarray(some[0]), path.with_suffix(".png"))


def enlarged(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = Image.fromarray(some[0]).resize(sides(generator, 40, 300), Image.Resampling.BICUBIC)
    return saved(picture, path.with_suffix(".jpg"), quality=90)


def mosaic(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    return saved(tiles(some, 3, 4), path.with_suffix(".png"))


def large_photograph(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    return saved(tiles(some, 15, 20), path.with_suffix(".jpg"), quality=85)


def large_and_smooth(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = tiles(some, 2, 3).resize(sides(generator, 500, 1500), Image.Resampling.BICUBIC)
    return saved(picture, path.with_suffix(".jpg"), quality=92)


def other_format(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = Image.fromarray(some[0]).resize(sides(generator, 33, 120), Image.Resampling.BILINEAR)
    return saved(picture, path.with_suffix(".webp"), quality=80)


def transparent(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = Image.fromarray(some[0]).resize((64, 48))
    alpha = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    picture.putalpha(Image.fromarray(alpha))
    return saved(picture, path.with_suffix(".png"))


def gray(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = Image.fromarray(some[0]).convert("L").resize(sides(generator, 20, 90))
    return saved(picture, path.with_suffix(".png"))


def turned(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    picture = Image.fromarray(some[0]).resize(sides(generator, 40, 200), Image.Resampling.LANCZOS)
    exif = picture.getexif()
    exif[0x0112] = int(generator.integers(1, 9))
    return saved(picture, path.with_suffix(".jpg"), quality=95, exif=exif)


def few_colours(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    return saved(Image.fromarray(some[0]).quantize(64), path.with_suffix(".gif"))


def tall(some: Pixels, generator: np.random.Generator, path: Path) -> Path:
    return saved(tiles(some, 9, 2), path.with_suffix(".bmp"))


KINDS: tuple[Maker, ...] = (
    *(as_it_is, enlarged, mosaic, large_photograph, large_and_smooth, other_format, transparent),
    *(gray, turned, few_colours, tall),
)


def sides(generator: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    width, height = generator.integers(low, high, 2).tolist()
    return width, height


def tiles(some: Pixels, down: int, across: int) -> Image.Image:
    """Lay photographs side by side."""
    grid = some[: down * across].reshape(down, across, 32, 32, 3).swapaxes(1, 2)
    return Image.fromarray(np.ascontiguousarray(grid.reshape(down * 32, across * 32, 3)))


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path
