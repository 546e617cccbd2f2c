"""IDX, the format of MNIST and its kin, plain or compressed by gzip.

Format (http://yann.lecun.com/exdb/mnist): two zero bytes, a byte for the type of the values (8:
unsigned byte), a byte for the number of dimensions; then each dimension as a big-endian uint32;
then the values, the last dimension varying fastest. Images are [N, H, W] or [N, H, W, C], labels
[N], in a file each.
"""

from __future__ import annotations

import gzip
import io
import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.gzipped import opened
from deepcnn.data.shards import Blocks, check_unpacked
from deepcnn.data.splits import SPLITS, Opener, Split, only_one, split_of
from deepcnn.errors import DataError

NAME = "IDX"
LABELS_MAGIC = 0x00000801
IMAGES_MAGIC = 0x00000803
IMAGES_WITH_CHANNELS_MAGIC = 0x00000804

MAX_SIDE = 65_535
MAX_CHANNELS = 4
MAX_IMAGE_BYTES = 2**26
MAX_RATIO = 1032  # no byte of a deflate stream stands for more than this many
PIECE = 2**20  # bytes decompressed at a time


def _fill(stream: io.BufferedIOBase, target: NDArray[np.uint8], path: Path) -> None:
    """Fill `target`, which is contiguous, with bytes."""
    view = target.reshape(-1).data
    filled = 0
    while filled < len(view):
        read = stream.readinto(view[filled : filled + PIECE])
        if not read:
            raise DataError(
                f"{path}: ends {len(view) - filled:,} bytes early, before the last of the items "
                "that its header declares. The file is incomplete; fetch it again."
            )
        filled += read


def _check_end(stream: io.BufferedIOBase, path: Path) -> None:
    """Raise DataError if bytes are left. At the end of a stream, gzip compares its checksum."""
    if stream.read(1):
        raise DataError(
            f"{path}: expected the end of the file after the last item that its header declares, "
            "found more bytes. The file is damaged or of another format; fetch it again."
        )


def _dimensions(stream: io.BufferedIOBase, path: Path, magics: tuple[int, ...]) -> tuple[int, ...]:
    """Read the header, and check that a file of this size can hold what it declares."""
    head = stream.read(4)
    magic = int.from_bytes(head)
    if len(head) < 4 or magic not in magics:
        expected = " or ".join(f"{magic:#010x}" for magic in magics)
        raise DataError(
            f"{path}: expected an IDX file that begins with {expected}, found "
            f"{'0x' + head.hex() if head else 'no bytes'}. The file is of another "
            "format; check that images and labels are not swapped."
        )
    ndim = magic & 0xFF
    content = stream.read(4 * ndim)
    if len(content) < 4 * ndim:
        raise DataError(
            f"{path}: expected {ndim} dimensions in the first {4 + 4 * ndim} bytes, found the end "
            f"of the file after {4 + len(content)}. The file is incomplete; fetch it again."
        )
    shape = tuple(np.frombuffer(content, ">u4").tolist())
    needed = 4 + 4 * ndim + math.prod(shape)
    found = path.stat().st_size
    if isinstance(stream, gzip.GzipFile):
        if needed > MAX_RATIO * found:
            raise DataError(
                f"{path}: the header declares {list(shape)}, {needed:,} bytes, more than a gzip "
                f"file of {found:,} bytes can hold. The file is damaged; fetch it again."
            )
    elif needed != found:
        raise DataError(
            f"{path}: expected {needed:,} bytes, as the header declares {list(shape)}, found "
            f"{found:,}. The file is incomplete or of another format; fetch it again."
        )
    return shape


class IdxShard:
    """Images uint8 [N, H, W] or [N, H, W, C] in a file and labels uint8 [N] in another.

    Each file may be compressed by gzip; its first bytes decide, not its name. Making a shard reads
    the labels, which stay in memory, one byte each. A gzip stream of images can only be read from
    its beginning: all before `start` is decompressed and dropped. Only when its last image is read
    does it show whether such a stream is whole.
    """

    def __init__(self, images: Path, labels: Path) -> None:
        self._path = images
        with opened(images) as stream:
            self.seekable = not isinstance(stream, gzip.GzipFile)
            magics = IMAGES_MAGIC, IMAGES_WITH_CHANNELS_MAGIC
            dimensions = _dimensions(stream, images, magics)
            self._start = 4 + 4 * len(dimensions)
        count, height, width, channels = (*dimensions, 1)[:4]
        self.shape = height, width, channels
        if (
            not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and 0 < channels <= MAX_CHANNELS)
            or math.prod(self.shape) > MAX_IMAGE_BYTES
        ):
            raise DataError(
                f"{images}: expected images with sides of 1 to {MAX_SIDE:,}, 1 to {MAX_CHANNELS} "
                f"channels and at most {MAX_IMAGE_BYTES:,} bytes, found {height} by {width} by "
                f"{channels}. The file is damaged, or its images are too large for deepcnn."
            )
        with opened(labels) as stream:
            (found,) = _dimensions(stream, labels, (LABELS_MAGIC,))
            if not count or found != count:
                raise DataError(
                    f"{images}: expected at least one image, and a label for each in {labels}, "
                    f"found {count:,} images and {found:,} labels. Check that the two files "
                    "belong together."
                )
            packed = images.stat().st_size + labels.stat().st_size
            check_unpacked(str(images), count, self.shape, packed)
            self._labels = np.empty(count, np.uint8)
            _fill(stream, self._labels, labels)
            _check_end(stream, labels)

    @property
    def name(self) -> str:
        """What errors call it: the path of the images."""
        return str(self._path)

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        with opened(self._path) as stream:
            offset = self._start + start * math.prod(self.shape)
            if self.seekable:
                stream.seek(offset)
            else:
                scratch = np.empty(min(offset, PIECE), np.uint8)
                for position in range(0, offset, PIECE):
                    _fill(stream, scratch[: offset - position], self._path)
            for begin in range(start, stop, size):
                end = min(begin + size, stop)
                images = np.empty((end - begin, *self.shape), np.uint8)
                _fill(stream, images, self._path)
                if end == len(self):
                    _check_end(stream, self._path)
                yield images, self._labels[begin:end].astype(np.int64)


def recognize(folder: Path, files: list[str]) -> dict[Split, Opener]:
    """Return the splits in pairs of files with these names.

    Raises DataError if images lack their labels, or if two pairs belong to one split.
    """
    _check_one_set(folder, files)
    images_of: dict[Split, Path] = {}
    labels_of: dict[Split, Path] = {}
    for name in files:
        match = re.fullmatch(r"(.*)images([.-]idx)3(-ubyte(?:\.gz)?)", name)
        if match is None or name.removesuffix(".gz") in set(files) - {name}:
            continue  # a compressed copy beside the plain file, as gunzip -k leaves it
        head, middle, tail = match.groups()
        plain = tail.removesuffix(".gz")
        places = [folder / f"{head}labels{middle}1{t}" for t in (tail, plain, plain + ".gz")]
        labels = next((place for place in places if place.is_file()), None)
        if labels is None:
            raise DataError(
                f"{folder / name}: expected its labels in {head}labels{middle}1{plain}, which is "
                "not there"
            )
        split = split_of(name)
        only_one(images_of, split, folder / name, "pair of IDX files")
        labels_of[split] = labels
    return {
        split: lambda split=split: (IdxShard(images_of[split], labels_of[split]),)  # type: ignore[misc]
        for split in SPLITS
        if split in images_of
    }


def _check_one_set(folder: Path, files: list[str]) -> None:
    """Raise DataError if files are pairs of several sets, as in EMNIST's archive."""
    sets: dict[Split, set[str]] = {}
    for name in files:
        if match := re.fullmatch(r"(.+)-(train|test)-images[.-]idx3-ubyte(\.gz)?", name):
            sets.setdefault(split_of(match[2]), set()).add(match[1])
    names = sorted(set().union(*sets.values()))
    if any(len(some) > 1 for some in sets.values()):
        raise DataError(
            f"{folder}: expected the files of one set, found those of {', '.join(names)}. Name one "
            f"of them behind the folder: --data {folder / names[0]}"
        )


def files_of_set(path: Path) -> list[str]:
    """Return the names of the files of a set that a path names: FOLDER/emnist-letters."""
    begin = f"{path.name}-"
    if not path.name or not path.parent.is_dir():
        return []
    names = sorted(each.name for each in path.parent.iterdir() if each.name.startswith(begin))
    return names if any("-images" in name and "idx3" in name for name in names) else []


def class_names(folder: Path, files: list[str]) -> None:  # noqa: ARG001
    """Return None: the format has no names of classes."""
    return


def encode_images(images: NDArray[np.uint8]) -> bytes:
    """Turn images uint8 [N, H, W, C] into the bytes of a plain file; [N, H, W] if C is 1."""
    shape = images.shape[:3] if images.shape[3] == 1 else images.shape
    magic = IMAGES_MAGIC if len(shape) == 3 else IMAGES_WITH_CHANNELS_MAGIC
    return np.array([magic, *shape], ">u4").tobytes() + images.tobytes()


def encode_labels(labels: NDArray[np.int64]) -> bytes:
    """Turn labels [N] into the bytes of a plain file; raises DataError unless all are 0 to 255."""
    outside = labels[(labels < 0) | (labels > 255)]
    if outside.size:
        raise DataError(f"IDX holds labels 0 to 255, found {outside[0]}; use another format")
    header = np.array([LABELS_MAGIC, len(labels)], ">u4")
    return header.tobytes() + labels.astype(np.uint8).tobytes()
