"""TFRecord files of `tf.train.Example`, as TensorFlow's conversion example writes them.

A file is records, see `tfrecord_files`; each is an Example, see `tfrecord_example`, with the
features `height`, `width`, `depth` and `label`, one integer each, and `image_raw`, the pixels,
uint8 [height, width, depth].
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.tfrecord_example import (
    BYTES,
    Places,
    Sort,
    find,
    label_at,
    varint,
)
from deepcnn.data.formats.tfrecord_files import Run, masked_crc, record_file
from deepcnn.data.shards import Block, Blocks, Shape, ToWrite, numbered_files
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

NAME = "TFRecord"
INTEGERS = "height", "width", "depth", "label"
IMAGE = "image_raw"
SORTS: dict[str, Sort] = {**dict.fromkeys(INTEGERS, "integer"), IMAGE: "string of bytes"}
ENCODED = "image/encoded", "image/class/label"  # of pictures, see tfrecord_pictures
NAMES_OF_LABELS = "labels.txt", "label.labels.txt"  # of TF-Slim, of TFDS

MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_LAYOUTS = 16
MAX_NAMES_BYTES = 1 << 22


def _features(data: bytes) -> Places:
    """Return the place of the single value of each feature in SORTS; raises ValueError."""
    found, others = find(data, SORTS)
    missing = [name for name in SORTS if name not in found]
    if missing:
        raise ValueError(
            f"expected the features {', '.join(SORTS)}, found none named "
            f"{', '.join(missing)} (others: {', '.join(others) or 'none'})"
        )
    return found


@dataclass(frozen=True)
class _Layout:
    """The places of the image and the label in a record, and the bytes around them.

    A record with the same bytes around these two need not be parsed.
    """

    shape: tuple[int, int, int]
    image: tuple[int, int]
    label: tuple[int, int]
    gaps: tuple[tuple[int, int, bytes], ...]

    @classmethod
    def of(cls, data: bytes) -> _Layout:
        """Parse a record."""
        where = _features(data)
        height, width, depth = (varint(data, *where[name])[0] for name in INTEGERS[:3])
        image, label = where[IMAGE], where["label"]
        if not (
            0 < height <= MAX_SIDE
            and 0 < width <= MAX_SIDE
            and 0 < depth <= MAX_CHANNELS
            and height * width * depth <= MAX_IMAGE_BYTES
        ):
            raise ValueError(
                f"expected sides of 1 to {MAX_SIDE:,}, a depth of 1 to {MAX_CHANNELS} and at most "
                f"{MAX_IMAGE_BYTES:,} bytes, found height {height}, width {width}, depth {depth}"
            )
        if image[1] - image[0] != height * width * depth:
            raise ValueError(
                f"expected {height * width * depth:,} bytes in {IMAGE!r}, as height is {height}, "
                f"width {width} and depth {depth}, found {image[1] - image[0]:,}"
            )
        first, second = sorted((image, label))
        edges = (0, first[0]), (first[1], second[0]), (second[1], len(data))
        gaps = tuple((start, stop, data[start:stop]) for start, stop in edges)
        return cls((height, width, depth), image, label, gaps)

    def fits(self, data: bytes) -> bool:
        """Whether a record of the same length has the same places."""
        start, stop = self.label
        return (
            all(data[begin:end] == expected for begin, end, expected in self.gaps)
            # The last byte of the label, and no byte before it, says that the integer ends; ten
            # bytes can hold more than 64 bits, which is for the parser to see.
            and stop - start < 10
            and data[stop - 1] < 0x80
            and (stop - start == 1 or min(data[start : stop - 1]) >= 0x80)
        )


class TFRecordShard:
    """The records of a file. Making it visits the header of each record, and parses the first."""

    def __init__(self, path: Path) -> None:
        self._records = record_file(path)
        self.seekable = self._records.seekable
        with closing(self._records.runs(0, 1, 1)) as runs:
            first = next(runs)
        self.shape = self._layout(first.data(0), first, 0).shape

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return self._records.name

    def __len__(self) -> int:
        return len(self._records)

    def _layout(self, data: bytes, run: Run, i: int) -> _Layout:
        try:
            return _Layout.of(data)
        except ValueError as error:
            raise DataError(
                f"{self.name}: {run.place(i)} is not an example that deepcnn can use: {error}. "
                f"Write the file with the features {', '.join(SORTS)}; or with encoded pictures in "
                f"all files, as {' and '.join(ENCODED)}."
            ) from error

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        layouts: dict[int, _Layout] = {}  # by length: it grows with the digits of the label
        with closing(self._records.runs(start, stop, size)) as runs:
            for run in runs:
                yield self._block(run, layouts)

    def _block(self, run: Run, layouts: dict[int, _Layout]) -> Block:
        """Return the examples of a run of records."""
        image_bytes = math.prod(self.shape)
        images = np.empty((len(run), *self.shape), np.uint8)
        labels = np.empty(len(run), np.int64)
        pixels = images.reshape(-1).data
        for i in range(len(run)):
            data = run.data(i)
            layout = layouts.get(len(data))
            if layout is None or not layout.fits(data):
                layout = self._layout(data, run, i)
                if len(layouts) < MAX_LAYOUTS or len(data) in layouts:
                    layouts[len(data)] = layout
            if layout.shape != self.shape:
                raise DataError(
                    f"{self.name}: expected images of {list(self.shape)} as in record 0, found "
                    f"{list(layout.shape)} in {run.place(i)}. Resize the images before writing "
                    "the file."
                )
            try:
                labels[i] = label_at(data, layout.label)
            except ValueError as error:
                raise DataError(
                    f"{self.name}: {error} in {run.place(i)}. Number the classes from 0 on."
                ) from error
            pixels[i * image_bytes : (i + 1) * image_bytes] = data[slice(*layout.image)]
        return images, labels


def is_record_file(name: str) -> bool:
    """Tell whether a name is that of a TFRecord file, also with TF-Slim's and TFDS's numbers."""
    return bool(re.search(r"\.tfrecords?(-\d+-of-\d+)?(\.gz|\.zlib)?$", name)) or bool(
        re.fullmatch(r"(train|validation|test)-\d{5}-of-\d{5}", name)
    )


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits that files by these names hold."""
    return group_by_split(folder, list(filter(is_record_file, files)), TFRecordShard)


def class_names(folder: Path, files: list[str]) -> tuple[str, ...] | None:  # noqa: ARG001
    """Return the names of the labels if a file of TF-Slim or TFDS has them, else None.

    There is one name on each line, perhaps after its number, as in `0:cat`. Raises DataError if the
    numbers are not 0, 1, 2 and so on, or if a name comes twice.
    """
    path = next((p for p in map(folder.joinpath, NAMES_OF_LABELS) if p.is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_bytes()[:MAX_NAMES_BYTES].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected names in UTF-8, a line each ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d{1,9}):(.*)", line) for line in lines]
    if lines and all(numbered):
        numbers = [int(match[1]) for match in numbered if match]
        if numbers != list(range(len(lines))):
            raise DataError(f"{path}: expected the labels 0 to {len(lines) - 1} in order.")
        lines = [match[2] for match in numbered if match]
    if not lines or len(set(lines)) < len(lines):
        raise DataError(f"{path}: expected names that differ, a line each. Mend the file.")
    return tuple(lines)


def why_not(shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> None:  # noqa: ARG001
    """Return None: the format holds all images and classes."""
    return


def file_names(split: Split, shards: int) -> list[str]:
    """Return the names of a split's files."""
    return numbered_files(split, shards, "tfrecords")


def write(file: BinaryIO, part: ToWrite) -> None:
    """Write examples as a file."""
    for images, labels in part.blocks:
        file.write(encode(images, labels))


def _encode_varint(value: int) -> bytes:
    """Return the bytes of an unsigned integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(number: int, content: bytes) -> bytes:
    """Return a field of bytes, or of a message."""
    return bytes([number << 3 | BYTES]) + _encode_varint(len(content)) + content


def _integer_feature(name: str, value: int) -> bytes:
    values = _message(1, _encode_varint(value % 2**64))
    return _message(1, _message(1, name.encode()) + _message(2, _message(3, values)))


def encode(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """Turn images uint8 [N, H, W, C] and labels [N] into the bytes of N records.

    Features are ordered by name, so the same examples give the same bytes.
    """
    height, width, depth = images.shape[1:]
    before = _integer_feature("depth", depth) + _integer_feature("height", height)
    after = _integer_feature("width", width)
    name = _message(1, IMAGE.encode())
    records = []
    for image, label in zip(images, labels.tolist(), strict=True):
        pixels = _message(1, name + _message(2, _message(1, _message(1, image.tobytes()))))
        data = _message(1, before + pixels + _integer_feature("label", label) + after)
        length = struct.pack("<Q", len(data))
        records += [length, struct.pack("<I", masked_crc(length))]
        records += [data, struct.pack("<I", masked_crc(data))]
    return b"".join(records)
