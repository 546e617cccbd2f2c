"""The time to read CIFAR-10 from 50,000 pictures, beside what Pillow takes on all cores."""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np
from PIL import Image

from deepcnn.data.convert import convert
from deepcnn.data.open import load_dataset
from tools.comparison import Case

FORMS = ("png", "jpeg", "tfrecord")
SET, EXAMPLES = "cifar10", 50_000
TASKS = 40  # of all processes


def write_all(folder: Path) -> None:
    """Write the training set as PNG and JPEG files, and as a TFRecord of those JPEGs."""
    convert(SET, folder / "png", "folder")
    (folder / "tfrecord").mkdir()
    classes = sorted(path.name for path in (folder / "png" / "train").iterdir())
    with (folder / "tfrecord" / "train.tfrecord").open("wb") as records:
        for path in sorted((folder / "png" / "train").rglob("*.png"), key=lambda path: path.name):
            buffer = io.BytesIO()
            Image.open(path).save(buffer, "JPEG", quality=95)
            other = folder / "jpeg" / path.relative_to(folder / "png").with_suffix(".jpg")
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(buffer.getvalue())
            records.write(_record(buffer.getvalue(), classes.index(path.parent.name)))


def _record(picture: bytes, label: int) -> bytes:
    """Return a record of an Example with image/encoded and image/class/label."""
    features = b"".join(
        _field(1, _field(1, name) + _field(2, value))
        for name, value in (
            (b"image/encoded", _field(1, _field(1, picture))),
            (b"image/class/label", _field(3, _field(1, bytes([label])))),
        )
    )
    example = _field(1, features)
    length = struct.pack("<Q", len(example))
    return b"".join(part + struct.pack("<I", _masked(part)) for part in (length, example))


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds bytes."""
    length, left = b"", len(content)
    while left > 127:
        length, left = length + bytes([left % 128 + 128]), left // 128
    return bytes([number * 8 + 2]) + length + bytes([left]) + content


def _masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def ours(folder: Path) -> dict[str, float]:
    """Return the seconds of a whole read into memory: listed, looked at, decoded, copied."""
    load_dataset("synthetic", "train")  # imports what it needs
    found = {}
    for form in FORMS:
        began = time.perf_counter()
        load_dataset(folder / form, "train")
        found[form] = round(time.perf_counter() - began, 3)
    return found


def pillow(processes: int, folder: Path) -> dict[str, float]:
    """Return the seconds in which processes that are there already open and decode all files.

    Their pixels are left where they are. This is the least that reading by Pillow can take.
    """
    found = {}
    with ProcessPoolExecutor(processes) as pool:
        for form in ("png", "jpeg"):
            paths = [str(path) for path in (folder / form / "train").rglob("*.*")]
            parts = [paths[i::TASKS] for i in range(TASKS)]
            list(pool.map(_decode, [part[:10] for part in parts]))
            began = time.perf_counter()
            assert sum(pool.map(_decode, parts)) == EXAMPLES
            found[form] = round(time.perf_counter() - began, 3)
    return found | {"tfrecord": found["jpeg"]}


def _decode(paths: Sequence[str]) -> int:
    images = np.empty((len(paths), 32, 32, 3), np.uint8)
    for index, path in enumerate(paths):
        with Path(path).open("rb") as file:
            images[index] = np.asarray(Image.open(file, formats=("PNG", "JPEG")))
    return len(images)


LIMIT = "Pillow, all cores"
CASE = Case(
    what="reading CIFAR-10's 50,000 training images from pictures into memory",
    unit="s",
    contenders={
        "deepcnn": ours,
        "Pillow, one core": partial(pillow, 1),
        LIMIT: partial(pillow, os.cpu_count() or 1),
    },
    denominator=LIMIT,
    higher_is_better=False,
    prepare=write_all,
)
