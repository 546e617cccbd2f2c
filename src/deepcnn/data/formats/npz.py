"""NumPy's .npz: a zip archive of arrays, each in an .npy file.

Format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): an .npy file is a
magic string, a version, a header that is a Python literal of a data type and a shape, then the
values. Arrays of Python objects are pickles, and are refused.

A file holds `images` and `labels`; or, for splits, `train_images` and `train_labels` as MedMNIST
spells them, or `x_train` (also `X_train`) and `y_train` as Keras does, with `val` or `validation`
and `test` alike. Images are [N, H, W] or [N, H, W, C], labels integers [N] or [N, 1], or one-hot
[N, classes]: a 1 in each row, and zeros. An array of strings, `classes`, may name the labels.
Images of other types become uint8 by the rule in `npz_values`.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepcnn.data.formats import npz_values
from deepcnn.data.formats.npz_archive import PIECE, Archive, Holder, fill, values_of
from deepcnn.data.shards import Blocks, Shape, ToWrite, check_unpacked, numbered_files
from deepcnn.data.splits import SPLITS, Opener, Split, group_by_split
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted, ignore

NAME = "NumPy"
SPELLINGS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "validation"),
    "test": ("test",),
}

MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_CLASSES = 65_536
MAX_CLASSES_BYTES = 2**26


def pairs_of(members: Iterable[str]) -> dict[Split | None, tuple[str, str]]:
    """Return the keys of images and labels by split, and under None those without a split."""
    known = set(members)
    found: dict[Split | None, tuple[str, str]] = {}
    for split, spellings in SPELLINGS.items():
        candidates = [(f"{name}_images", f"{name}_labels") for name in spellings]
        candidates += [(f"{x}_{name}", f"y_{name}") for x in "xX" for name in spellings]
        for pair in candidates:
            if known.issuperset(pair):
                found[split] = pair
                break
    if known.issuperset(("images", "labels")):
        found[None] = "images", "labels"
    return found


def _no_pair(path: Path, members: Iterable[str], expected: str) -> DataError:
    names = ", ".join(map(repr, sorted(members)[:12])) or "none"
    return DataError(f"{path}: expected the arrays {expected}, found {names}. Rename the arrays.")


def splits(path: Path) -> tuple[Split, ...]:
    """Return which of train, validation and test a file has; () if it has no splits.

    Raises DataError if it holds no images and labels under a known name.
    """
    with Archive.opened(path) as archive:
        found = pairs_of(archive.members)
        if not found:
            raise _no_pair(
                path,
                archive.members,
                "images and labels, or train_images and train_labels, or x_train and y_train",
            )
    return tuple(split for split in found if split)


def classes(path: Path) -> tuple[str, ...] | None:
    """Return the names of the labels, or None if a file has no array `classes`."""
    with Archive.opened(path) as archive:
        return classes_in(archive)


def classes_in(archive: Holder) -> tuple[str, ...] | None:
    """Return the names of the labels, or None if there is no array `classes`."""
    if "classes" not in archive.members:
        return None
    path, member = archive.path, archive.member("classes")
    size = math.prod(member.shape) * member.dtype.itemsize
    if (
        member.dtype.kind != "U"
        or len(member.shape) != 1
        or not 0 < member.shape[0] <= MAX_CLASSES
        or not 0 < size <= MAX_CLASSES_BYTES
    ):
        raise DataError(
            f"{path}: expected 'classes' as 1 to {MAX_CLASSES:,} strings, a dtype of kind U, "
            f"in at most {MAX_CLASSES_BYTES:,} bytes, found {member.dtype} "
            f"{list(member.shape)}. Write them with numpy.array(names, dtype=str)."
        )
    values = values_of(archive, member)
    points = values.view(np.dtype("u4").newbyteorder(member.dtype.byteorder))
    outside = points[(points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))]
    if outside.size:
        raise DataError(
            f"{path}: expected 'classes' as Unicode text, found {int(outside[0]):#x}, which is no "
            "character. The file is damaged; write it again."
        )
    return tuple(values.tolist())


def _labels(archive: Holder, key: str, count: int) -> NDArray[np.integer[Any]]:
    """Return the labels, [N], in the type of the file."""
    member = archive.member(key)
    if len(member.shape) == 2 and member.shape[0] == count and member.shape[1] > 1:
        return npz_values.one_hot(archive, key, member)
    if member.dtype.kind not in "iu" or member.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{archive.path}: expected labels {key!r} as integers [{count}] or [{count}, 1], one "
            f"for each image, or one-hot [{count}, classes], found {member.dtype} "
            f"{list(member.shape)}. Write the class of each image as an integer."
        )
    labels = values_of(archive, member)
    if len(labels) and (labels.min() < 0 or labels.max() >= 2**63):
        outside = np.flatnonzero((labels < 0) | (labels >= 2**63))
        first = int(outside[0])
        raise DataError(
            f"{archive.path}: expected labels of at least 0 and below 2**63 in {key!r}, found "
            f"{labels[first]} for example {first} ({outside.size:,} such labels). Number the "
            "classes from 0 on."
        )
    return labels


def _usable(count: int, height: int, width: int, channels: int) -> bool:
    """Whether there are images in a size that deepcnn reads."""
    return (
        count > 0
        and 0 < height <= MAX_SIDE
        and 0 < width <= MAX_SIDE
        and 0 < channels <= MAX_CHANNELS
        and height * width * channels <= MAX_IMAGE_BYTES
    )


class NpzShard:
    """The images and labels of a split, or of a file that holds one.

    Making a shard reads the labels, which stay in memory. If images are stored, as by numpy.savez,
    reading can start anywhere; if they are deflated, as by numpy.savez_compressed, only at their
    beginning. Their checksum is compared if all are read from the first to the last.
    """

    def __init__(
        self,
        path: Path,
        split: Split | None = None,
        emit: Listener = ignore,
        opened: Callable[[Path], AbstractContextManager[Holder]] = Archive.opened,
    ) -> None:
        self._path, self._opened = path, opened
        with opened(path) as archive:
            pairs = pairs_of(archive.members)
            if split and set(pairs) == {None}:
                split = None
            if split not in pairs:
                expected = "images and labels" if split is None else f"of a split {split!r}"
                raise _no_pair(path, archive.members, expected)
            images, labels = pairs[split]
            member = archive.member(images)
            shape = (*member.shape, 1) if len(member.shape) == 3 else member.shape
            if member.dtype.kind not in "buif" or len(shape) != 4 or not _usable(*shape):
                raise DataError(
                    f"{path}: expected {images!r} as uint8 or other real numbers [N, height, "
                    f"width] or [N, height, width, channels] with sides of 1 to {MAX_SIDE:,}, "
                    f"1 to {MAX_CHANNELS} channels, at most {MAX_IMAGE_BYTES:,} bytes an image "
                    "and at least one image, "
                    f"found {member.dtype} {list(member.shape)}. Convert the array."
                )
            if member.by_columns:
                raise DataError(
                    f"{path}: expected {images!r} with the values of an image together, found "
                    "Fortran's order. Write numpy.ascontiguousarray of the array."
                )
            self.shape = shape[1], shape[2], shape[3]
            self.seekable = member.stored
            self._images = member
            check_unpacked(str(path), shape[0], self.shape, archive.size)
            self._labels = _labels(archive, labels, shape[0])
        self._scale = 1
        if member.dtype != np.uint8:
            size = max(1, PIECE // (math.prod(self.shape) * member.dtype.itemsize))
            values = self._values(0, len(self), size)
            self._scale = npz_values.scale(values, member.dtype, f"{path}: {images!r}")
            emit(Noted(npz_values.said(f"{path}: {images!r}", member.dtype, self._scale)))

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        first = start
        with closing(self._values(start, stop, size)) as reading:
            for values in reading:
                images = npz_values.pixels(values, self._scale)
                yield images, self._labels[first : first + len(images)].astype(np.int64)
                first += len(images)

    def _values(self, start: int, stop: int, size: int) -> Generator[NDArray[Any], None, None]:
        """Yield the images `start` to `stop` as they are in the file, `size` at a time."""
        header, dtype = self._images.header, self._images.dtype
        offset = len(header) + start * math.prod(self.shape) * dtype.itemsize
        with self._opened(self._path) as archive:
            stream = archive.at(self._images, offset)
            checksum = zlib.crc32(header)
            for begin in range(start, stop, size):
                end = min(begin + size, stop)
                values = np.empty((end - begin, *self.shape), dtype)
                content = values.reshape(-1).view(np.uint8)
                fill(stream, content, self._path)
                # zipfile compares that of what is deflated, where it reads to the end.
                if self.seekable and start == 0 and self._images.checksum is not None:
                    checksum = zlib.crc32(content.data, checksum)
                    if end == len(self) and checksum != self._images.checksum:
                        raise DataError(
                            f"{self._path}: the images of {self._images.name!r} and their checksum "
                            "disagree. The file is damaged; fetch it again."
                        )
                yield values


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a directory entry that does not depend on the time or the system."""
    info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, as what follows is its way of writing rights
    info.external_attr = 0o644 << 16
    return info


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the beginning of an .npy file."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def recognize(folder: Path, files: list[str], emit: Listener = ignore) -> dict[Split, Opener]:
    """Return the splits that files by these names hold; a single file may hold several.

    `emit` hears how images of other types become uint8. Raises DataError for files that are not
    .npz.
    """
    names = [n for n in files if n.endswith(".npz")]
    if len(names) == 1 and (inside := splits(folder / names[0])):
        path = folder / names[0]
        return {
            split: lambda split=split: (NpzShard(path, split, emit),)  # type: ignore[misc]
            for split in SPLITS
            if split in inside
        }
    return group_by_split(folder, names, partial(NpzShard, emit=emit))


def class_names(folder: Path, files: list[str]) -> tuple[str, ...] | None:
    """Return the names of the labels in the first file, or None."""
    return classes(folder / next(name for name in files if name.endswith(".npz")))


def why_not(shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> str | None:  # noqa: ARG001
    """Return why the format cannot hold these classes, or None."""
    size = 4 * len(classes) * max(map(len, classes))  # each as long as the longest, in UTF-32
    if size > MAX_CLASSES_BYTES:
        return f"expected class names that take at most {MAX_CLASSES_BYTES:,} bytes, found {size:,}"
    return None


def file_names(split: Split, shards: int) -> list[str]:
    """Return the names of a split's files."""
    return numbered_files(split, shards, "npz")


def write(file: BinaryIO, part: ToWrite) -> None:
    """Write examples and the names of their labels as an .npz file.

    Arrays are stored without compression, so reading can start anywhere. One block at a time is in
    memory, and all labels. The same examples give the same bytes. Raises DataError if `blocks` hold
    another number of examples, or images of another shape.
    """
    count, shape = part.count, part.shape
    labels = np.empty(count, "<i8")
    written = 0
    with zipfile.ZipFile(file, "w") as archive:
        # With force_zip64, as the sizes, which zipfile would choose by, are not known to it.
        with archive.open(_entry("images"), "w", force_zip64=True) as stream:
            stream.write(_header("|u1", (count, *shape)))
            for images, numbers in part.blocks:
                if images.shape != (len(numbers), *shape):
                    raise DataError(
                        f"expected {len(numbers):,} images of {list(shape)} for as many labels, "
                        f"found {list(images.shape)}, after {written:,} examples"
                    )
                written += len(images)
                if written > count:
                    break
                labels[written - len(images) : written] = numbers
                stream.write(np.ascontiguousarray(images).data)
        if written != count:
            more = " or more" if written > count else ""
            raise DataError(f"expected {count:,} examples to write, found {written:,}{more}")
        with archive.open(_entry("labels"), "w", force_zip64=True) as stream:
            stream.write(_header("<i8", labels.shape))
            stream.write(labels.data)
        names = np.array(part.classes, dtype=str)
        with archive.open(_entry("classes"), "w", force_zip64=True) as stream:
            stream.write(_header(names.dtype.str, names.shape))
            stream.write(names.tobytes())
