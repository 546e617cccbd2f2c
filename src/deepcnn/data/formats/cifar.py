"""The binary versions of CIFAR-10 and CIFAR-100.

Format (https://www.cs.toronto.edu/~kriz/cifar.html): records without header or footer. A record
is one label byte (CIFAR-10) or two (CIFAR-100: coarse, then fine), then 3,072 image bytes: 1,024
red, 1,024 green, 1,024 blue, each 32 rows of 32 pixels.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.shards import Block, Blocks, Shape, ToWrite, by
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

SIZE = 32
PIXELS = SIZE * SIZE
IMAGE_BYTES = 3 * PIXELS
NAME = "CIFAR's binary version"


@dataclass(frozen=True)
class Record:
    """One example as the classic reader yields it.

    `key`: `file:index`; `label`: an integer; `image`: uint8 [height, width, depth].
    """

    key: str
    label: int
    image: NDArray[np.uint8]
    height: int = SIZE
    width: int = SIZE
    depth: int = 3


def decode(
    content: bytes | memoryview,
    *,
    classes: int,
    name: str,
    label_bytes: int = 1,
    label: int = -1,
) -> Block:
    """Turn the bytes of one file into images uint8 [N, 32, 32, 3] and labels int64 [N].

    `label_bytes`: how many begin a record; `label`: which of them counts. `name` is how errors
    call the file. Raises DataError where the bytes are not whole records, or a label is not below
    `classes`.
    """
    record_bytes = label_bytes + IMAGE_BYTES
    count, rest = divmod(len(content), record_bytes)
    if rest or not count:
        raise DataError(
            f"{name}: expected whole records of {record_bytes:,} bytes, found {len(content):,} "
            f"bytes, that is {count:,} records and {rest:,} bytes from offset "
            f"{count * record_bytes:,} on. The file is incomplete or of another format; fetch it "
            "again."
        )
    records = np.frombuffer(content, np.uint8).reshape(count, record_bytes)
    labels = records[:, range(label_bytes)[label]].astype(np.int64)
    outside = np.flatnonzero(labels >= classes)
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"{name}: expected labels 0 to {classes - 1}, found {labels[first]} in record {first} "
            f"at offset {first * record_bytes + range(label_bytes)[label]:,} ({outside.size:,} "
            "such records). The file is damaged or of another format; fetch it again."
        )
    images = np.empty((count, PIXELS, 3), np.uint8)
    for channel in range(3):  # a plane at a time is much faster than one transposition
        start = label_bytes + channel * PIXELS
        images[:, :, channel] = records[:, start : start + PIXELS]
    return images.reshape(count, SIZE, SIZE, 3), labels


class CifarShard:
    """A file in the binary version: a `Shard`. Arguments as in `decode`."""

    shape = (SIZE, SIZE, 3)
    seekable = True

    def __init__(self, path: Path, *, label_bytes: int = 1, label: int = -1) -> None:
        self.name = str(path)
        self._path = path
        self._label_bytes = label_bytes
        self._label = label
        self._record_bytes = label_bytes + IMAGE_BYTES
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
        self._count, rest = divmod(size, self._record_bytes)
        if rest or not self._count:
            raise DataError(
                f"{path}: expected whole records of {self._record_bytes:,} bytes, found {size:,} "
                f"bytes, that is {self._count:,} records and {rest:,} bytes from offset "
                f"{size - rest:,} on. The file is incomplete or of another format; fetch it again."
            )

    def __len__(self) -> int:
        return self._count

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`; see `Shard`."""
        with _open(self._path) as file:
            file.seek(start * self._record_bytes)
            for at in range(start, stop, size):
                content = file.read((min(at + size, stop) - at) * self._record_bytes)
                yield decode(
                    content,
                    classes=256,  # any byte: who knows the classes checks the labels
                    name=self.name,
                    label_bytes=self._label_bytes,
                    label=self._label,
                )


def _open(path: Path) -> io.FileIO:
    try:
        return io.FileIO(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def records(path: Path, *, label_bytes: int = 1) -> Iterator[Record]:
    """Yield the records of a file one by one, in order."""
    shard = CifarShard(path, label_bytes=label_bytes)
    index = 0
    for images, labels in shard.blocks(0, len(shard), 128):
        for image, label in zip(images, labels, strict=True):
            yield Record(f"{path}:{index}", int(label), image)
            index += 1


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits that files by these names hold: CIFAR-10's, else CIFAR-100's."""
    ten = [n for n in files if re.fullmatch(r"(data|validation|test)_batch\w*\.bin", n)]
    if ten:
        return group_by_split(folder, ten, CifarShard)
    hundred = [n for n in files if n in ("train.bin", "test.bin")]
    return group_by_split(folder, hundred, lambda path: CifarShard(path, label_bytes=2))


def class_names(folder: Path, files: list[str]) -> tuple[str, ...] | None:  # noqa: ARG001
    """Return the names of the classes that lie beside the files, or None."""
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
        file.write(encode(images, labels))


def encode(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """Turn images uint8 [N, 32, 32, 3] and labels [N] below 256 into the bytes of a file."""
    records = np.empty((len(images), 1 + IMAGE_BYTES), np.uint8)
    records[:, 0] = labels
    pixels = images.reshape(-1, PIXELS, 3)
    for channel in range(3):
        start = 1 + channel * PIXELS
        records[:, start : start + PIXELS] = pixels[:, :, channel]
    return records.tobytes()


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
