"""The binary versions of CIFAR-10 and CIFAR-100.

Format (https://www.cs.toronto.edu/~kriz/cifar.html): records without header or footer. A record
is one label byte (CIFAR-10) or two (CIFAR-100: coarse, then fine), then 3,072 image bytes: 1,024
red, 1,024 green, 1,024 blue, each 32 rows of 32 pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.formats.records import RecordLayout, RecordShard
from deepcnn.data.shards import Shape, ToWrite, by
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

SIZE = 32
PIXELS = SIZE * SIZE
NAME = "CIFAR's binary version"

TEN = RecordLayout((SIZE, SIZE, 3), label_bytes=1)
HUNDRED = RecordLayout((SIZE, SIZE, 3), label_bytes=2)  # the last label, the fine one, counts
HUNDRED_COARSE = RecordLayout((SIZE, SIZE, 3), label_bytes=2, label=0)


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits in files with these names: CIFAR-10's, else CIFAR-100's."""
    ten = [n for n in files if re.fullmatch(r"(data|validation|test|extra)_batch\w*\.bin", n)]
    if ten:
        return group_by_split(folder, ten, lambda path: RecordShard(path, TEN))
    hundred = [n for n in files if n in ("train.bin", "test.bin")]
    return group_by_split(folder, hundred, lambda path: RecordShard(path, HUNDRED))


def class_names(folder: Path, files: list[str]) -> tuple[str, ...] | None:  # noqa: ARG001
    """Return the names of the classes from beside the files, or None."""
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            text = (folder / name).read_bytes()[: 1 << 20].decode(errors="replace")
            return tuple(text.split()) or None
    return None


def why_not(shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> str | None:
    """Return why the format cannot hold images of these shapes and these classes, or None."""
    expected = (SIZE, SIZE, 3)
    for shape in shapes.values():
        if shape != expected:
            return f"expected images of {by(expected)}, found {by(shape)}"
    if len(classes) > 256:
        return f"expected at most 256 classes, found {len(classes):,}"
    return None


def file_names(split: Split, shards: int) -> list[str]:
    """Return the names of a split's files; the test split is one file, as in the original."""
    if split == "test" or (split == "validation" and shards == 1):
        return [f"{split}_batch.bin"]
    stem = "data" if split == "train" else split
    return [f"{stem}_batch_{i}.bin" for i in range(1, shards + 1)]


def write(file: BinaryIO, part: ToWrite) -> None:
    """Write examples as a file."""
    for images, labels in part.blocks:
        file.write(TEN.encode(images, labels))


def decode_sheet(content: bytes, *, count: int, name: str) -> NDArray[np.uint8]:
    """Turn a sheet into images uint8 [count, 32, 32, 3].

    A sheet is a PNG, RGB, 1,024 wide and `count` high: row i holds the pixels of image i, row by
    row. Raises DataError for anything else; the size is checked before a pixel is decoded.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
            if sheet.size != (PIXELS, count) or sheet.mode != "RGB":
                raise DataError(
                    f"{name}: expected an RGB picture of {PIXELS} by {count}, found {sheet.mode} "
                    f"of {sheet.size[0]} by {sheet.size[1]}"
                )
            return np.asarray(sheet).reshape(count, SIZE, SIZE, 3)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a whole PNG picture ({error})") from error
