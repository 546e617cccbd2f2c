"""Records of one length, in any layout: a few bytes with the label, then the raw image.

TensorFlow's `FixedLengthRecordReader` and `decode_raw` read such files. A file is a header, which
is skipped, and then whole records to its end. A record is one or more bytes, one of which is the
label, and then a byte for each value of the image. CIFAR's binary versions are such files, see
`cifar`.

A folder of such files, named `SPLIT*.bin`, is a data set like any other once a file `records.json`
beside them says how they are laid out, with the fields of `RecordLayout`:

    {"shape": [96, 96, 3], "label_bytes": 1, "axes": "CWH"}
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn import atomic
from deepcnn.data.shards import Block, Blocks, Shape
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

NAME = "records of one length"
LAYOUT_FILE = "records.json"
MAX_LAYOUT_BYTES = 1 << 16
MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_OTHER_BYTES = 2**20  # of a header, and before an image


@dataclass(frozen=True)
class RecordLayout:
    """How the records of a file are laid out.

    `shape`: height, width and channels of an image. `label_bytes`: the number of bytes before the
    image. `label`: which of them is the label, from 0 on, or backwards from -1, the last one.
    `axes`: the order of the image's values, with the slowest axis first: "HWC" if the channels of a
    pixel lie together, "CHW" for plane after plane. `header_bytes`: the number of bytes before the
    first record. Raises DataError for values that no file can have.
    """

    shape: Shape
    label_bytes: int = 1
    label: int = -1
    axes: str = "CHW"
    header_bytes: int = 0

    def __post_init__(self) -> None:
        height, width, channels = self.shape
        if (
            not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and 0 < channels <= MAX_CHANNELS)
            or math.prod(self.shape) > MAX_IMAGE_BYTES
        ):
            raise DataError(
                f"shape: expected height, width and channels, with sides of 1 to {MAX_SIDE:,}, 1 "
                f"to {MAX_CHANNELS} channels and at most {MAX_IMAGE_BYTES:,} values, found "
                f"{list(self.shape)}"
            )
        if not 0 < self.label_bytes <= MAX_OTHER_BYTES:
            raise DataError(
                f"label_bytes: expected 1 to {MAX_OTHER_BYTES:,}, found {self.label_bytes}"
            )
        if not -self.label_bytes <= self.label < self.label_bytes:
            raise DataError(
                f"label: expected which of {self.label_bytes} bytes, {-self.label_bytes} to "
                f"{self.label_bytes - 1}, found {self.label}"
            )
        if sorted(self.axes) != ["C", "H", "W"]:
            raise DataError(
                f'axes: expected an order of H, W and C, such as "CHW", found {self.axes!r}'
            )
        if not 0 <= self.header_bytes <= MAX_OTHER_BYTES:
            raise DataError(
                f"header_bytes: expected 0 to {MAX_OTHER_BYTES:,}, found {self.header_bytes}"
            )

    @property
    def record_bytes(self) -> int:
        """The length of a record."""
        return self.label_bytes + math.prod(self.shape)

    def count(self, size: int, name: str) -> int:
        """Return how many records a file of this many bytes holds.

        `name`: the file's name in errors. Raises DataError unless these are whole records, and at
        least one.
        """
        length = self.record_bytes
        count, rest = divmod(max(0, size - self.header_bytes), length)
        if rest or not count:
            after = f" after {self.header_bytes:,} of a header" if self.header_bytes else ""
            raise DataError(
                f"{name}: expected whole records of {length:,} bytes{after}, found {size:,} bytes, "
                f"that is {count:,} records and {rest:,} bytes from offset {size - rest:,} on. The "
                "file is incomplete or of another format; fetch it again."
            )
        return count

    def decode(self, content: bytes | memoryview, *, classes: int, name: str) -> Block:
        """Turn the bytes of a file into images uint8 [N, H, W, C] and labels int64 [N].

        Raises DataError, which calls the file `name`, if the bytes are not whole records, or if a
        label is not below `classes`.
        """
        count = self.count(len(content), name)
        length, at = self.record_bytes, range(self.label_bytes)[self.label]
        records = np.frombuffer(content, np.uint8, offset=self.header_bytes).reshape(count, length)
        labels = records[:, at].astype(np.int64)
        outside = np.flatnonzero(labels >= classes)
        if outside.size:
            first = int(outside[0])
            raise DataError(
                f"{name}: expected labels 0 to {classes - 1}, found {labels[first]} in record "
                f"{first} at offset {self.header_bytes + first * length + at:,} "
                f"({outside.size:,} such records). The file is damaged or of another format; fetch "
                "it again."
            )
        values = self._as_images(records[:, self.label_bytes :])
        images = np.empty((count, *self.shape), np.uint8)
        for channel in range(self.shape[2]):  # much faster than all at once, where planes are whole
            images[..., channel] = values[..., channel]
        return images, labels

    def encode(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
        """Turn images uint8 [N, H, W, C] and labels [N] below 256 into the bytes of a file.

        The header and the other bytes before an image are zeros.
        """
        records = np.zeros((len(images), self.record_bytes), np.uint8)
        records[:, range(self.label_bytes)[self.label]] = labels
        values = self._as_images(records[:, self.label_bytes :])
        for channel in range(self.shape[2]):
            values[..., channel] = images[..., channel]
        return bytes(self.header_bytes) + records.tobytes()

    def _as_images(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return [N, values] of records as [N, H, W, C], which shares their memory."""
        sizes = dict(zip("HWC", self.shape, strict=True))
        # A slice of each record: splitting its last axis needs no copy.
        apart = values.reshape(len(values), *(sizes[axis] for axis in self.axes))
        return apart.transpose(0, *(1 + self.axes.index(axis) for axis in "HWC"))

    def describe(self, folder: str | Path) -> Path:
        """Write `records.json` into a folder; this makes its `.bin` files a data set."""
        path = Path(folder) / LAYOUT_FILE
        atomic.write(path, (json.dumps(dataclasses.asdict(self)) + "\n").encode())
        return path

    @classmethod
    def described(cls, folder: Path) -> RecordLayout:
        """Undo `describe`; raises DataError for a file that `describe` cannot have written."""
        path = folder / LAYOUT_FILE
        try:
            with path.open("rb") as file:
                content = file.read(MAX_LAYOUT_BYTES + 1)
            if len(content) > MAX_LAYOUT_BYTES:
                raise ValueError(f"it is longer than {MAX_LAYOUT_BYTES:,} bytes")
            return cls(**_checked(json.loads(content)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError, DataError) as error:
            raise DataError(f"{path}: expected how records are laid out ({error})") from error


def _checked(values: Any) -> dict[str, Any]:
    """Return the fields of a `RecordLayout`; raises ValueError for others, or other types."""
    if not isinstance(values, dict) or "shape" not in values:
        raise ValueError('expected at least {"shape": [height, width, channels]}')
    shape = values["shape"]
    if not isinstance(shape, list) or len(shape) != 3 or {type(side) for side in shape} != {int}:
        raise ValueError(f"shape: expected three whole numbers, found {shape!r:.100}")
    found = {"shape": tuple(shape)}
    for field in dataclasses.fields(RecordLayout)[1:]:
        if field.name in values:
            found[field.name] = values[field.name]
            if type(values[field.name]) is not type(field.default):
                raise ValueError(
                    f"{field.name}: expected {type(field.default).__name__}, found "
                    f"{values[field.name]!r:.100}"
                )
    if unknown := sorted(values.keys() - found.keys()):
        known = ", ".join(field.name for field in dataclasses.fields(RecordLayout))
        raise ValueError(f"expected {known}, found {unknown[0]!r:.100}")
    return found


class RecordShard:
    """A file of records: a `Shard`. Any byte may be a label; `Source` checks the labels."""

    seekable = True

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self.name = str(path)
        self.shape = layout.shape
        self._path = path
        self._layout = layout
        self._records = dataclasses.replace(layout, header_bytes=0)
        with _open(path) as file:
            self._count = layout.count(os.fstat(file.fileno()).st_size, self.name)

    def __len__(self) -> int:
        return self._count

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`; see `Shard`."""
        length = self._layout.record_bytes
        with _open(self._path) as file:
            file.seek(self._layout.header_bytes + start * length)
            for at in range(start, stop, size):
                content = file.read((min(at + size, stop) - at) * length)
                yield self._records.decode(content, classes=256, name=self.name)


def _open(path: Path) -> io.FileIO:
    try:
        return io.FileIO(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class Record:
    """One example as the classic reader yields it.

    `key`: `file:index`; `label`: an integer; `image`: uint8 [height, width, depth].
    """

    key: str
    label: int
    image: NDArray[np.uint8]
    height: int
    width: int
    depth: int


def read_records(path: Path, layout: RecordLayout) -> Iterator[Record]:
    """Yield the records of a file one by one, in order."""
    shard = RecordShard(path, layout)
    index = 0
    for images, labels in shard.blocks(0, len(shard), 128):
        for image, label in zip(images, labels, strict=True):
            yield Record(f"{path}:{index}", int(label), image, *layout.shape)
            index += 1


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits in `.bin` files, if a file beside them says their layout."""
    names = [name for name in files if name.endswith(".bin")]
    if not names or not (folder / LAYOUT_FILE).is_file():
        return {}
    layout = RecordLayout.described(folder)
    return group_by_split(folder, names, lambda path: RecordShard(path, layout))


def class_names(folder: Path, files: list[str]) -> None:  # noqa: ARG001
    """Return None: the format has no names of classes."""
    return
