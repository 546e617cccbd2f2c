"""TFRecord files of `tf.train.Example`, as TensorFlow's conversion example writes them.

A file is records one after another (https://www.tensorflow.org/tutorials/load_data/tfrecord): the
length of the data, uint64 little-endian; the masked CRC-32C of those 8 bytes; the data; its masked
CRC-32C. The data is an Example, a protocol buffer (wire format:
https://protobuf.dev/programming-guides/encoding), with a map of features by name: `height`,
`width`, `depth` and `label`, one integer each, and `image_raw`, the pixels, uint8 [height, width,
depth].
"""

from __future__ import annotations

import array
import itertools
import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from deepcnn.data.shards import Block, Blocks, Shape, ToWrite, numbered_files
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

NAME = "TFRecord"
INTEGERS = "height", "width", "depth", "label"
IMAGE = "image_raw"
NAMES = {name.encode(): name for name in (*INTEGERS, IMAGE)}

HEADER_BYTES = 12  # length and its checksum
FOOTER_BYTES = 4
MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_RECORD_BYTES = 2 * MAX_IMAGE_BYTES  # an image and room for features that nobody asked for
MAX_LAYOUTS = 16

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of a protocol buffer


def masked_crc(data: bytes) -> int:
    """Return the checksum that stands beside `data` in a TFRecord file."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# Reading a protocol buffer. These functions raise ValueError; the shard adds record and offset.


def _varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return the unsigned integer at `position`, seven bits a byte, and where it ends."""
    value = shift = 0
    for i in range(position, min(stop, position + 10)):
        value |= (data[i] & 0x7F) << shift
        if data[i] < 0x80:
            if value >= 2**64:
                break
            return value, i + 1
        shift += 7
    raise ValueError(f"expected an integer at byte {position:,}, found one without an end")


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, start and stop of each field of the message in data[start:stop]."""
    position = start
    while position < stop:
        tag, begin = _varint(data, position, stop)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, end = _varint(data, begin, stop)
        elif kind == BYTES:
            length, begin = _varint(data, begin, stop)
            end = begin + length
        elif kind in (FIXED64, FIXED32):
            end = begin + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"expected a field at byte {position:,}, found wire type {kind}")
        if not number or end > stop:
            raise ValueError(
                f"expected a field that ends by byte {stop:,}, found field {number} from byte "
                f"{position:,} to {end:,}"
            )
        yield number, kind, begin, end
        position = end


def _children(data: bytes, start: int, stop: int, number: int) -> list[tuple[int, int]]:
    """Return start and stop of the strings or messages in the fields of this number."""
    return [(b, e) for n, kind, b, e in _fields(data, start, stop) if (n, kind) == (number, BYTES)]


def _integers(data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Return where the values of an Int64List stand, packed or not."""
    found = []
    for number, kind, begin, end in _fields(data, start, stop):
        position = begin if number == 1 and kind in (VARINT, BYTES) else end
        while position < end:
            _, after = _varint(data, position, end)
            found.append((position, after))
            position = after
    return found


def _features(data: bytes) -> dict[str, tuple[int, int]]:
    """Return where the one value of each feature in NAMES stands; of several the last counts."""
    found: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    for features in _children(data, 0, len(data), 1):
        for entry in _children(data, *features, 1):
            start, stop = [(0, 0), *_children(data, *entry, 1)][-1]
            feature = [(0, 0), *_children(data, *entry, 2)][-1]
            key = data[start : min(stop, start + 40)]
            name = NAMES.get(key)
            if name is None:
                if len(others) < 8:  # as many as an error names
                    others.append(repr(key.decode(errors="replace")))
                continue
            if name == IMAGE:
                lists = _children(data, *feature, 1)
                values = [value for each in lists for value in _children(data, *each, 1)]
            else:
                lists = _children(data, *feature, 3)
                values = [value for each in lists for value in _integers(data, *each)]
            if len(values) != 1:
                sort = "string of bytes" if name == IMAGE else "integer"
                raise ValueError(f"expected one {sort} in {name!r}, found {len(values):,}")
            found[name] = values[0]
    missing = [name for name in NAMES.values() if name not in found]
    if missing:
        raise ValueError(
            f"expected the features {', '.join(NAMES.values())}, found none named "
            f"{', '.join(missing)} (others: {', '.join(others) or 'none'})"
        )
    return found


@dataclass(frozen=True)
class _Layout:
    """Where the image and the label of a record stand, and the bytes around them.

    A record of the same bytes around the two need not be parsed.
    """

    shape: tuple[int, int, int]
    image: tuple[int, int]
    label: tuple[int, int]
    gaps: tuple[tuple[int, int, bytes], ...]

    @classmethod
    def of(cls, data: bytes) -> _Layout:
        """Parse a record."""
        where = _features(data)
        height, width, depth = (_varint(data, *where[name])[0] for name in INTEGERS[:3])
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
        """Whether a record of the same length would parse to the same places."""
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
    """The records of a file. Making one visits the header of each record, and parses the first.

    A record's place is kept, 8 bytes each; of a record of 16 bytes or more that is at most half.
    Checksums are compared: those of the lengths at once, those of the data when it is read.
    """

    seekable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as file:
            self._offsets = self._walk(file)
            first = self._read(file, 0, 1)
        self.shape = self._layout(self._data(first, 0, len(first), 0), 0).shape

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            # Without a buffer: the walk takes 12 bytes here and there, and blocks are large.
            with self._path.open("rb", buffering=0) as file:
                yield file
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error

    def _walk(self, file: BinaryIO) -> NDArray[np.int64]:
        """Return the offset of each record and of the end of the file."""
        size = file.seek(0, 2)
        offsets = array.array("q", [0])
        known: bytes | None = None
        offset = length = 0
        while offset < size or not size:
            file.seek(offset)
            header = file.read(HEADER_BYTES)
            if header != known:  # the same bytes need no second check
                length = self._length(header, len(offsets) - 1, offset)
                known = header
            offset += HEADER_BYTES + length + FOOTER_BYTES
            if offset > size:
                raise DataError(
                    f"{self._path}: record {len(offsets) - 1} at offset {offsets[-1]:,} declares "
                    f"{length:,} bytes of data, so that it ends at {offset:,}, found the end of "
                    f"the file at {size:,}. The file is incomplete; fetch it again."
                )
            offsets.append(offset)
        return np.array(offsets, np.int64)

    def _length(self, header: bytes, index: int, offset: int) -> int:
        """Return the length that the header of record `index` declares."""
        if len(header) < HEADER_BYTES:
            raise DataError(
                f"{self._path}: expected the {HEADER_BYTES} bytes of a record's header at offset "
                f"{offset:,}, after {index:,} records, found {len(header)}. The file is "
                "incomplete or has bytes of something else at its end; fetch it again."
            )
        length, crc = struct.unpack("<QI", header)
        if crc != masked_crc(header[:8]):
            if index == 0 and header.startswith(b"\x1f\x8b"):
                raise DataError(
                    f"{self._path}: expected a plain TFRecord file, found one compressed by gzip. "
                    "Decompress it with gunzip first."
                )
            raise DataError(
                f"{self._path}: the length of record {index} at offset {offset:,} and its "
                "checksum disagree. The file is damaged or not a TFRecord file; fetch it again."
            )
        if length > MAX_RECORD_BYTES:
            raise DataError(
                f"{self._path}: expected records of at most {MAX_RECORD_BYTES:,} bytes, found "
                f"{length:,} bytes declared by record {index} at offset {offset:,}. The file is "
                "damaged, or its images are too large for deepcnn."
            )
        return int(length)

    def _read(self, file: BinaryIO, begin: int, end: int) -> bytes:
        """Return the bytes of the records `begin` to `end`."""
        start, stop = self._offsets[begin].item(), self._offsets[end].item()
        file.seek(start)
        pieces, missing = [], stop - start
        while missing and (piece := file.read(missing)):  # an operating system may return less
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            raise DataError(
                f"{self._path}: expected {stop - start:,} bytes at offset {start:,}, found "
                f"{missing:,} fewer. The file has changed since it was opened; begin again."
            )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _data(self, content: bytes, start: int, stop: int, index: int) -> bytes:
        """Return the data of record `index`, which stands in content[start:stop]."""
        data = content[start + HEADER_BYTES : stop - FOOTER_BYTES]
        if masked_crc(data) != int.from_bytes(content[stop - FOOTER_BYTES : stop], "little"):
            raise DataError(
                f"{self._path}: the data of record {index} at offset "
                f"{self._offsets[index]:,} and its checksum disagree. The file is damaged; fetch "
                "it again."
            )
        return data

    def _layout(self, data: bytes, index: int) -> _Layout:
        try:
            return _Layout.of(data)
        except ValueError as error:
            raise DataError(
                f"{self._path}: record {index} at offset {self._offsets[index]:,} is not an "
                f"example that deepcnn can use: {error}. Write the file with the features "
                f"{', '.join(NAMES.values())}."
            ) from error

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        layouts: dict[int, _Layout] = {}  # by length: it grows with the digits of the label
        with self._opened() as file:
            for begin in range(start, stop, size):
                end = min(begin + size, stop)
                yield self._block(self._read(file, begin, end), begin, end, layouts)

    def _block(self, content: bytes, begin: int, end: int, layouts: dict[int, _Layout]) -> Block:
        """Return the examples `begin` to `end`, whose records are `content`."""
        image_bytes = math.prod(self.shape)
        images = np.empty((end - begin, *self.shape), np.uint8)
        labels = np.empty(end - begin, np.int64)
        pixels = images.reshape(-1).data
        edges = (self._offsets[begin : end + 1] - self._offsets[begin]).tolist()
        for i, (start, stop) in enumerate(itertools.pairwise(edges)):
            index = begin + i
            data = self._data(content, start, stop, index)
            layout = layouts.get(len(data))
            if layout is None or not layout.fits(data):
                layout = self._layout(data, index)
                if len(layouts) < MAX_LAYOUTS or len(data) in layouts:
                    layouts[len(data)] = layout
            if layout.shape != self.shape:
                raise DataError(
                    f"{self._path}: expected images of {list(self.shape)} as in record 0, found "
                    f"{list(layout.shape)} in record {index} at offset "
                    f"{self._offsets[index]:,}. Resize the images before writing the file."
                )
            label, _ = _varint(data, *layout.label)
            if label >= 2**63:  # negative numbers are written as their two's complement
                raise DataError(
                    f"{self._path}: expected a label of at least 0, found {label - 2**64} in "
                    f"record {index} at offset {self._offsets[index]:,}. Number the classes from "
                    "0 on."
                )
            labels[i] = label
            pixels[i * image_bytes : (i + 1) * image_bytes] = data[slice(*layout.image)]
        return images, labels


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits that files by these names hold."""
    names = [n for n in files if re.search(r"\.tfrecords?(-\d+-of-\d+)?$", n)]
    return group_by_split(folder, names, TFRecordShard)


def class_names(folder: Path, files: list[str]) -> None:  # noqa: ARG001
    """Return None: the format has no names of classes."""
    return


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

    Features are in the order of their names, so the same examples give the same bytes.
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
