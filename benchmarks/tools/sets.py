"""Small sets of pictures of different kinds, with the same three splits for whoever trains on them.

Most come from public repositories, a copy of each of which is `SOURCES/OWNER+NAME`, a folder with
the repository's files. What is drawn at random is drawn by a fixed seed.

    name          kind                                   source, license
    digits        handwritten digits, 8×8                scikit-learn (UCI), CC BY 4.0
    fashion       clothes, 28×28                         Fashion-MNIST, MIT
    fashion100    100 of each class of it
    cifar10x10    photographs, 32×32, 10 of each class   CIFAR-10, none stated
    cifar10x100, cifar10x1000   the same with 100 and 1,000
    hands         photographs of signs of hands          ardamavi/Sign-Language-Digits-Dataset,
                                                         Apache-2.0
    shapes        drawings; others drew the test split   frobertpixto/hand-drawn-shapes-dataset, MIT
    characters    136 of five alphabets; likewise        brendenlake/omniglot, MIT
    cells         blood cells, unbalanced, mixed sizes   Shenggan/BCCD_Dataset, MIT
    flowers       photographs of flowers                 martinwestin/flower_classification;
                                                         Flickr's, none stated
    cars          100 photographs of mixed sizes         dermotte/LIRE; Flickr's, CC BY or BY-SA
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn import load_dataset

SPLITS = ("train", "val", "test")
Labels = NDArray[np.int64]


def make(name: str, sources: Path, folder: Path) -> Path:
    """Make a set below `folder`, unless it is there; return where it lies, for `--data`."""
    if name in ARRAYS:
        file = folder / f"{name}.npz"
        if not file.exists():
            np.savez(file, **_arrays(*ARRAYS[name]()))  # type: ignore[arg-type]
        return file
    place = folder / name
    if not place.exists():
        half = folder / f"{name}.half"
        for split, label, number, picture in PICTURES[name](sources):
            target = half / split / label / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target, compress_level=1)
        half.rename(place)
    return place


# Arrays: (images, labels, splits), each split the places of its examples.

Arrays = tuple[NDArray[np.uint8], Labels, tuple[NDArray[np.int64], ...]]


def _arrays(
    images: NDArray[np.uint8], labels: Labels, splits: tuple[NDArray[np.int64], ...]
) -> dict[str, NDArray[np.generic]]:
    named: dict[str, NDArray[np.generic]] = {}
    for split, places in zip(SPLITS, splits, strict=True):
        named |= {f"{split}_images": images[places], f"{split}_labels": labels[places]}
    return named


def _digits() -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    return images, labels, _shares(labels, (0.56, 0.14))


def _part(data: str, of_each: int | None, held_out: int) -> Arrays:
    """Return a named set with so many training images of each class; None: all others."""
    train, test = load_dataset(data, "train"), load_dataset(data, "test")
    labels = np.concatenate([train.labels, test.labels])
    order = _order(len(train))
    held, rest = order[:held_out], order[held_out:]
    if of_each is not None:
        chosen = [rest[train.labels[rest] == each][:of_each] for each in range(10)]
        rest = np.sort(np.concatenate(chosen))
    tests = np.arange(len(train), len(labels))
    return np.concatenate([train.images, test.images]), labels, (rest, held, tests)


ARRAYS: dict[str, Callable[[], Arrays]] = {
    "digits": _digits,
    "fashion": lambda: _part("fashion_mnist", None, 5000),
    "fashion100": lambda: _part("fashion_mnist", 100, 5000),
    "cifar10x10": lambda: _part("cifar10", 10, 5000),
    "cifar10x100": lambda: _part("cifar10", 100, 5000),
    "cifar10x1000": lambda: _part("cifar10", 1000, 5000),
}


# Pictures: (split, class, number of the picture, picture).

Pictures = Iterable[tuple[str, str, int, Image.Image]]


def _from_folders(folder: Path, ending: str = "*") -> Pictures:
    """Split what lies in class folders at random: of each class 60, 20 and 20 %."""
    files = sorted(file for file in folder.glob(f"*/{ending}") if file.is_file())
    labels = np.unique([file.parent.name for file in files], return_inverse=True)[1]
    for split, places in zip(SPLITS, _shares(labels, (0.6, 0.2)), strict=True):
        for k in places:
            with Image.open(files[k]) as picture:
                yield split, files[k].parent.name, int(k), picture.convert("RGB")


def _hands(sources: Path) -> Pictures:
    return _from_folders(sources / "ardamavi+Sign-Language-Digits-Dataset" / "Dataset")


def _flowers(sources: Path) -> Pictures:
    return _from_folders(sources / "martinwestin+flower_classification" / "flowers")


def _cars(sources: Path) -> Pictures:
    return _from_folders(sources / "dermotte+LIRE" / "testdata" / "ferrari", "*.jpg")


def _shapes(sources: Path) -> Pictures:
    """Take at most 100 drawings of each shape from a person; every third person tests."""
    people = sorted((sources / "frobertpixto+hand-drawn-shapes-dataset" / "data").glob("user.*"))
    for number, person in enumerate(people):
        for shape in sorted((person / "images").iterdir()):
            for k, file in enumerate(sorted(shape.glob("*.png"))[:100]):
                split = "test" if number % 3 == 2 else "val" if number % 6 == 3 else "train"
                with Image.open(file) as picture:
                    yield split, shape.name, 1000 * number + k, picture.convert("L")


def _characters(sources: Path) -> Pictures:
    """Take 12 people's drawings of each character for training, 3 are held out, 5 test."""
    archive = sources / "brendenlake+omniglot" / "python" / "images_background_small1.zip"
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if name.endswith(".png"):
                _, alphabet, character, file = name.split("/")
                person = int(Path(file).stem.split("_")[1])
                split = "train" if person <= 12 else "val" if person <= 15 else "test"
                picture = Image.open(io.BytesIO(files.read(name))).convert("L")
                yield split, f"{alphabet} {character}", person, picture


def _cells(sources: Path) -> Pictures:
    """Cut the cells that are marked out of the pictures; every fifth picture tests."""
    folder = sources / "Shenggan+BCCD_Dataset" / "BCCD"
    for number, file in enumerate(sorted((folder / "Annotations").glob("*.xml"))):
        split = "test" if number % 5 == 4 else "val" if number % 5 == 3 else "train"
        with Image.open(folder / "JPEGImages" / f"{file.stem}.jpg") as picture:
            for k, cell in enumerate(ElementTree.parse(file).iter("object")):
                sides = ("xmin", "ymin", "xmax", "ymax")
                left, top, right, bottom = (int(cell.findtext(f"bndbox/{s}", "0")) for s in sides)
                if right - left >= 8 and bottom - top >= 8:
                    kind = cell.findtext("name", "")
                    cut = picture.crop((left, top, right, bottom))
                    yield split, kind, 100 * number + k, cut.convert("RGB")


PICTURES: dict[str, Callable[[Path], Pictures]] = {
    "hands": _hands,
    "shapes": _shapes,
    "characters": _characters,
    "cells": _cells,
    "flowers": _flowers,
    "cars": _cars,
}
NAMES = (*ARRAYS, *PICTURES)


def _order(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(count)


def _shares(labels: Labels, shares: tuple[float, float]) -> tuple[NDArray[np.int64], ...]:
    """Return the places of the examples of each split: two shares of each class, and the rest."""
    order = _order(len(labels))
    splits: list[list[NDArray[np.int64]]] = [[], [], []]
    for each in np.unique(labels):
        places = order[labels[order] == each]
        first, second = (round(len(places) * s) for s in (shares[0], sum(shares)))
        for split, part in zip(splits, np.split(places, (first, second)), strict=True):
            split.append(part)
    return tuple(np.sort(np.concatenate(split)) for split in splits)
