"""The cropped digits of SVHN: a MATLAB 5 file.

Format (http://ufldl.stanford.edu/housenumbers): `X`, uint8 [height, width, channels, N], and `y`,
integers [N, 1] of 1 to 10, where 10 means the digit 0. The container
(https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf): a header of 128 bytes, then
elements, each a type and a length, uint32 both, and its content. An array is an element of type
14, or one of type 15 that holds it compressed by zlib; in it follow elements for flags,
dimensions, name and values.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deepcnn.data.shards import Block, Blocks, check_unpacked
from deepcnn.data.splits import Opener, Split, group_by_split
from deepcnn.errors import DataError

NAME = "MATLAB"
MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_RATIO = 1032  # no byte of a deflate stream stands for more than this many
DIGITS = 10

HEADER_BYTES = 128
VERSIONS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # MATLAB 5, by order of bytes
VERSIONS_7_3 = b"\x00\x02IM", b"\x02\x00MI"  # HDF5 behind the same header
INT8, UINT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 5, 6, 14, 15  # types of elements
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # by the same types
FLOATS = 7, 9
UINT8_CLASS, INTEGER_CLASSES, OPAQUE_CLASS = 9, range(8, 16), 17
COMPLEX_OR_LOGICAL = 0x0A
# What is looked at of an element: enough for 32 dimensions and the longest name, 63 bytes, and of
# a compressed one enough for zlib to give as much.
MAX_PREFIX = 512
MAX_PACKED_PREFIX = 4096


@dataclass(frozen=True)
class _Variable:
    """What the header of an array says."""

    name: str
    kind: int
    flags: int
    shape: tuple[int, ...]
    value_type: int
    value_bytes: int
    value_room: int  # bytes left in the array for its values


def _variable(prefix: bytes, order: str, room: int) -> _Variable | None:
    """Read an array's header from its first bytes; None for MATLAB's own objects.

    `room`: the most bytes the whole may have. Raises ValueError or struct.error.
    """
    position = 0

    def take(*expected: int) -> tuple[int, int, int]:
        """Return type, start and length of the next element, and move past its tag."""
        nonlocal position
        kind, length = struct.unpack_from(f"{order}II", prefix, position)
        if kind >> 16:  # up to four bytes stand beside the length in the tag
            kind, length, start = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        else:
            start = position + 8
            position = start + (length + 7) // 8 * 8
        if kind not in expected:
            raise ValueError(f"expected an element of type {expected}, found {kind}")
        return kind, start, length

    kind, length = struct.unpack_from(f"{order}II", prefix)
    if kind != MATRIX or 8 + length > room:
        raise ValueError(
            f"expected an array of at most {room - 8:,} bytes, found type {kind} of {length:,}"
        )
    end = 8 + length
    position = 8
    _, start, length = take(UINT32)
    if length != 8 or position != start + 8:
        raise ValueError(f"expected 8 bytes of flags, found {length}")
    (word,) = struct.unpack_from(f"{order}I", prefix, start)
    if word & 0xFF == OPAQUE_CLASS:  # neither dimensions nor name
        return None
    _, start, length = take(INT32)
    if length % 4 or not 8 <= length <= 128:
        raise ValueError(f"expected 2 to 32 dimensions, found {length} bytes of them")
    shape = struct.unpack_from(f"{order}{length // 4}i", prefix, start)
    _, start, length = take(INT8)
    if position > len(prefix) or position > end:
        raise ValueError(f"expected a name of at most 63 bytes, found one of {length:,}")
    name = prefix[start : start + length].decode("latin-1")
    value_type = value_bytes = 0
    if name in ("X", "y"):
        value_type, start, value_bytes = take(*VALUE_BYTES)
    return _Variable(
        name, word & 0xFF, word >> 8 & 0xFF, shape, value_type, value_bytes, end - start
    )


def _prefix(file: BinaryIO, order: str, end: int) -> tuple[bytes, int, int]:
    """Return the first bytes of the array at the file's position, its room, and where it ends."""
    start = file.tell()
    tag = file.read(8)
    kind, length = struct.unpack(f"{order}II", tag)
    if kind not in (MATRIX, COMPRESSED) or not length or start + 8 + length > end:
        raise ValueError(
            f"expected an array that ends by byte {end:,}, found an element of type {kind} and "
            f"{length:,} bytes"
        )
    after = start + 8 + length
    if kind == MATRIX:
        return tag + file.read(min(length, MAX_PREFIX)), 8 + length, after
    packed = file.read(min(length, MAX_PACKED_PREFIX))
    return zlib.decompressobj().decompress(packed, MAX_PREFIX), MAX_RATIO * length, after


def _variables(path: Path) -> dict[str, _Variable]:
    """Visit all arrays of a file, and return what the headers of X and y say.

    scipy.io.whosmat is not used for this, since it reserves as many bytes as any length in the file
    says. After this check, scipy meets no length that the file cannot hold.
    """
    found: dict[str, _Variable] = {}
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            header = file.read(HEADER_BYTES)
            order = VERSIONS.get(header[124:])
            # A zero among the first four bytes would mean MATLAB 4 to scipy.
            if order is None or 0 in header[:4]:
                hint = "is of another format or incomplete; fetch it again"
                if header[124:] in VERSIONS_7_3:
                    hint = "is of version 7.3; save it with save(..., '-v7') in MATLAB"
                raise DataError(
                    f"{path}: expected the {HEADER_BYTES} bytes of a MATLAB 5 header, found "
                    f"{header[124:].hex() or 'nothing'} at offset 124. The file {hint}."
                )
            position = HEADER_BYTES
            while position < size:
                try:
                    prefix, room, after = _prefix(file, order, size)
                    variable = _variable(prefix, order, room)
                    if variable and variable.name in found:
                        raise ValueError(f"found {variable.name!r} for the second time")
                except (ValueError, struct.error, zlib.error) as error:
                    raise DataError(
                        f"{path}: the array at offset {position:,} cannot be read ({error}). The "
                        "file is incomplete or damaged; fetch it again."
                    ) from error
                if variable and variable.name in ("X", "y"):
                    found[variable.name] = variable
                position = file.seek(after)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return found


class MatShard:
    """The images and labels of a file. Making one reads the headers of its arrays.

    The first call of `blocks` reads the whole file, which then stays in memory. To stream a set
    that is larger than memory, convert it first. Needs scipy, the extra `mat`.
    """

    seekable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loaded: Block | None = None
        found = _variables(path)
        if found.keys() != {"X", "y"}:
            raise DataError(
                f"{path}: expected the arrays X and y of SVHN's cropped digits, found "
                f"{' and '.join(sorted(found)) or 'neither'}. Check that it is one of "
                "train_32x32.mat, test_32x32.mat and extra_32x32.mat, or like them."
            )
        images, labels = found["X"], found["y"]
        # MATLAB drops a last dimension of 1.
        shape = (*images.shape, 1) if len(images.shape) == 3 else images.shape
        if (
            len(shape) != 4
            or not all(0 < side <= MAX_SIDE for side in shape[:2])
            or not 0 < shape[2] <= MAX_CHANNELS
            or shape[3] < 1
            or math.prod(shape[:3]) > MAX_IMAGE_BYTES
            or (images.kind, images.value_type) != (UINT8_CLASS, UINT8)
        ):
            raise DataError(
                f"{path}: expected X as uint8 [height, width, channels, N] with sides of 1 to "
                f"{MAX_SIDE:,}, 1 to {MAX_CHANNELS} channels, at most {MAX_IMAGE_BYTES:,} bytes an "
                f"image and at least one image, found MATLAB's class {images.kind} "
                f"{list(images.shape)}. Convert the array."
            )
        if labels.kind not in INTEGER_CLASSES or labels.value_type in FLOATS:
            raise DataError(
                f"{path}: expected y as integers, found MATLAB's class {labels.kind} "
                f"{list(labels.shape)}. Write uint8(y)."
            )
        if labels.shape != (shape[3], 1):
            raise DataError(
                f"{path}: expected y as [N, 1], a label for each of {shape[3]:,} images, found "
                f"{list(labels.shape)}. Write y as a column that belongs to X."
            )
        for each in (images, labels):
            needed = math.prod(each.shape) * VALUE_BYTES[each.value_type]
            if each.flags & COMPLEX_OR_LOGICAL or not needed == each.value_bytes <= each.value_room:
                raise DataError(
                    f"{path}: expected {needed:,} bytes of whole numbers in {each.name}, as its "
                    f"dimensions are {list(each.shape)}, found {each.value_bytes:,} of "
                    f"{each.value_room:,} (flags {each.flags:#04x}). The file is damaged; fetch "
                    "it again."
                )
        self._count = shape[3]
        self.shape = shape[0], shape[1], shape[2]
        check_unpacked(str(path), self._count, self.shape, path.stat().st_size)

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return self._count

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        if self._loaded is None:
            self._loaded = self._load()
        images, labels = self._loaded
        for begin in range(start, stop, size):
            end = min(begin + size, stop)
            yield images[begin:end].copy(order="C"), labels[begin:end].copy()

    def _load(self) -> Block:
        """Return all images, a view of MATLAB's order [N, H, W, C], and labels."""
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise DataError(
                f"{self._path}: reading MATLAB files needs scipy. Run pip install 'deepcnn[mat]'."
            ) from error
        try:
            with self._path.open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they are about is checked below
                found: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        # On damaged files scipy raises nearly any exception, TypeError, IndexError, zlib.error and
        # MemoryError among them, and documents none.
        except Exception as error:
            raise DataError(
                f"{self._path}: scipy cannot read X and y ({type(error).__name__}: {error}). The "
                "file is incomplete or damaged; fetch it again."
            ) from error
        images, labels = found.get("X"), found.get("y")
        if (
            not isinstance(images, np.ndarray)
            or not isinstance(labels, np.ndarray)
            or images.dtype != np.uint8
            or labels.dtype.kind not in "iu"
            or images.size != self._count * math.prod(self.shape)
            or labels.size != self._count
        ):
            raise DataError(
                f"{self._path}: expected from scipy what the headers of X and y declare, found "
                "other arrays. The file is damaged or has changed; fetch it again."
            )
        labels = labels.reshape(-1)
        outside = np.flatnonzero((labels < 1) | (labels > DIGITS))
        if outside.size:
            first = int(outside[0])
            raise DataError(
                f"{self._path}: expected labels of 1 to {DIGITS} in y, found {labels[first]} for "
                f"example {first} ({outside.size:,} such labels). Number the digits as SVHN does."
            )
        images = images.reshape(*self.shape, self._count, order="F")
        return images.transpose(3, 0, 1, 2), (labels % DIGITS).astype(np.int64)


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits that files by these names hold."""
    return group_by_split(folder, [n for n in files if n.endswith(".mat")], MatShard)


def class_names(folder: Path, files: list[str]) -> tuple[str, ...]:  # noqa: ARG001
    """Return the digits."""
    return tuple("0123456789")
