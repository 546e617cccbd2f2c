from __future__ import annotations

import gzip
import io
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepcnn.data.formats import idx
from deepcnn.data.open import open_dataset
from deepcnn.errors import DataError
from tests.helpers.shards import (
    FASHION_MNIST,
    RANGES,
    check_early_closing,
    damaged,
    examples,
    message_id,
    peak_bytes,
    read,
)


def header(magic: int, *shape: int) -> bytes:
    return np.array([magic, *shape], ">u4").tobytes()


def store(folder: Path, images: bytes, labels: bytes) -> idx.IdxShard:
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    return idx.IdxShard(folder / "images", folder / "labels")


@pytest.mark.parametrize(("name", "count"), [("train", 60_000), ("t10k", 10_000)])
def test_fashion_mnist(name: str, count: int) -> None:
    images_path = FASHION_MNIST / f"{name}-images-idx3-ubyte.gz"
    shard = idx.IdxShard(images_path, FASHION_MNIST / f"{name}-labels-idx1-ubyte.gz")
    assert (len(shard), shard.shape, shard.seekable) == (count, (28, 28, 1), False)
    assert shard.name == str(images_path)
    images, labels = read(shard, size=7_000)
    assert np.bincount(labels).tolist() == [count // 10] * 10
    with gzip.open(images_path) as file:
        file.seek(16 + 28 * 28 * (count - 1))
        assert images[-1].tobytes() == file.read()
    some, numbers = read(shard, count - 5, count, 2)
    assert np.array_equal(some, images[-5:])
    assert np.array_equal(numbers, labels[-5:])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_any_range_of_a_file(
    tmp_path: Path, channels: int, compress: Callable[[bytes], bytes]
) -> None:
    images, labels = examples(7, 5, 4, channels)
    shard = store(
        tmp_path, compress(idx.encode_images(images)), compress(idx.encode_labels(labels))
    )
    assert shard.shape == (5, 4, channels)
    assert shard.seekable == (compress is bytes)
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop])
        assert np.array_equal(numbers, labels[start:stop])


def test_encoded_bytes_are_those_of_the_format() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    expected = "00000803 00000002 00000002 00000002 0001020304050607"
    assert idx.encode_images(images) == bytes.fromhex(expected)
    assert idx.encode_labels(np.array([255, 3])) == bytes.fromhex("00000801 00000002 ff03")
    with pytest.raises(DataError, match="found 256"):
        idx.encode_labels(np.array([0, 256]))
    with pytest.raises(DataError, match="found -1"):
        idx.encode_labels(np.array([-1]))


IMAGES = header(0x803, 2, 2, 2) + bytes(8)
LABELS = header(0x801, 2) + bytes(2)
PACKED = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"", LABELS, r"images: expected an IDX file .* found no bytes"),
        (b"\x1f\x8b", LABELS, r"images: expected a whole gzip stream"),
        (LABELS, LABELS, r"images: .*begins with 0x00000803 or 0x00000804, found 0x00000801"),
        (IMAGES, IMAGES, r"labels: .*begins with 0x00000801, found 0x00000803.* swapped"),
        (IMAGES[:9], LABELS, r"3 dimensions in the first 16 bytes, found the end .* after 9"),
        (IMAGES[:-1], LABELS, r"images: expected 24 bytes, .*\[2, 2, 2\], found 23"),
        (IMAGES + b"x", LABELS, r"images: expected 24 bytes, .* found 25"),
        (IMAGES, LABELS + b"x", r"labels: expected 10 bytes, .* found 11"),
        (IMAGES, header(0x801, 3) + bytes(3), r"found 2 images and 3 labels"),
        (header(0x803, 0, 2, 2), header(0x801, 0), r"at least one image.* found 0 images"),
        (header(0x803, 2, 0, 2), LABELS, r"sides of 1 .* found 0 by 2 by 1"),
        (header(0x804, 1, 1, 1, 5) + bytes(5), LABELS, r"found 1 by 1 by 5"),
        (header(0x803, 1, 65_536, 1) + bytes(65_536), LABELS, r"found 65536 by 1 by 1"),
        (PACKED[:-9], LABELS, r"images: expected a whole gzip stream.*early"),
        (gzip.compress(IMAGES[:-1]), LABELS, r"images: ends 1 bytes early"),
        (gzip.compress(IMAGES + b"x"), LABELS, r"images: expected the end.*found more bytes"),
        (PACKED + b"trailing", LABELS, r"images: expected a whole gzip stream"),
        (PACKED[:-8] + b"\0" + PACKED[-7:], LABELS, r"images: .*CRC"),
        (IMAGES, gzip.compress(LABELS + b"x"), r"labels: expected the end.*more bytes"),
        (IMAGES, gzip.compress(LABELS)[:-3], r"labels: expected a whole gzip stream"),
    ],
    ids=message_id,
)
def test_a_wrong_file_is_named(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(store(tmp_path, images, labels))


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(LABELS)
    with pytest.raises(DataError, match=r"Is a directory"):
        idx.IdxShard(tmp_path, tmp_path / "labels")
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file"):
        idx.IdxShard(tmp_path / "none", tmp_path / "labels")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    shard = store(tmp_path, IMAGES, LABELS)
    (tmp_path / "images").write_bytes(IMAGES[:-3])
    with pytest.raises(DataError, match="ends 3 bytes early"):
        read(shard)


def test_closing_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = examples(7, 2, 2, 1)
    packed = gzip.compress(idx.encode_images(images))
    check_early_closing(lambda: store(tmp_path, packed, idx.encode_labels(labels)), monkeypatch)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_lying_header_takes_no_memory(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    images = compress(header(0x803, 2**32 - 1, 8192, 8192) + bytes(100))
    labels = compress(header(0x801, 2**32 - 1) + bytes(100))
    assert peak_bytes(lambda: store(tmp_path, images, LABELS)) < 2**20
    assert peak_bytes(lambda: store(tmp_path, IMAGES, labels)) < 2**20
    images = compress(header(0x803, 10**8, 1, 1) + bytes(100))
    labels = compress(header(0x801, 10**8) + bytes(100))
    assert peak_bytes(lambda: store(tmp_path, images, labels)) < 2**20


def test_a_gzip_stream_is_read_in_pieces(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(header(0x803, 600, 400, 500))
        for _ in range(120):
            file.write(bytes(10**6))  # 120 MB of zeros from a file of 120 kB
        file.write(b"one too many")
    shard = store(tmp_path, buffer.getvalue(), header(0x801, 600) + bytes(600))
    # Blocks of 20 MB, two at a time; what is skipped and what is decompressed come in pieces.
    assert peak_bytes(lambda: list(itertools.islice(shard.blocks(400, 600, 100), 2))) < 45e6


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=40) | damaged(IMAGES) | damaged(PACKED) | damaged(IMAGES).map(gzip.compress),
    st.binary(max_size=12) | damaged(LABELS) | damaged(gzip.compress(LABELS)) | st.just(LABELS),
)
def test_any_bytes_give_examples_or_the_one_error(images: bytes, labels: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            shard = store(Path(folder), images, labels)
            found, numbers = read(shard)
        except DataError:
            return
        assert len(found) == len(numbers) == len(shard) > 0


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_reading_gives_back_what_was_encoded(n: int, h: int, w: int, c: int) -> None:
    images, labels = examples(n, h, w, c)
    with tempfile.TemporaryDirectory() as folder:
        shard = store(Path(folder), idx.encode_images(images), idx.encode_labels(labels))
        found: tuple[NDArray[Any], NDArray[Any]] = read(shard)
    assert np.array_equal(found[0], images)
    assert np.array_equal(found[1], labels)


# Pairs of files by their names.


def put_pair(folder: Path, head: str, tail: str = "") -> None:
    images, labels = examples(3, 4, 4, 1)
    (folder / f"{head}-images-idx3-ubyte{tail}").write_bytes(idx.encode_images(images))
    (folder / f"{head}-labels-idx1-ubyte{tail}").write_bytes(idx.encode_labels(labels))


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [
        ("digits-t10k", "letters-test", "test"),
        ("t10k", "test", "test"),
        ("train", "training", "train"),
        ("dev", "val", "validation"),
    ],
)
def test_two_pairs_of_one_split_are_refused_naming_both(
    tmp_path: Path, one: str, other: str, split: str
) -> None:
    for head in (one, other):
        put_pair(tmp_path, head)
    both = f"{one}-images-idx3-ubyte and {other}-images-idx3-ubyte"
    with pytest.raises(
        DataError, match=f"expected one pair of IDX files for the {split} split, found {both}"
    ):
        open_dataset(tmp_path)
    found = open_dataset(tmp_path / f"{other}-images-idx3-ubyte")  # the one that is meant
    assert (found.own_splits, len(found.split(split))) == ((split,), 3)  # type: ignore[arg-type]


def test_images_without_their_labels_are_refused(tmp_path: Path) -> None:
    put_pair(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte: expected its labels in train-labels-idx1-ubyte"
    ):
        open_dataset(tmp_path)


def test_a_compressed_copy_beside_a_plain_file_is_passed_over(tmp_path: Path) -> None:
    """As `gunzip -k` leaves them."""
    images = np.zeros((3, 4, 4, 1), np.uint8)
    for name, content in {
        "train-images-idx3-ubyte": idx.encode_images(images),
        "train-labels-idx1-ubyte": idx.encode_labels(np.arange(3)),
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    names = sorted(path.name for path in tmp_path.iterdir())
    (shard,) = idx.recognize(tmp_path, names)["train"]()
    assert shard.name == str(tmp_path / "train-images-idx3-ubyte")
