from __future__ import annotations

import io
import itertools
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepcnn.data.formats import mat
from deepcnn.errors import DataError
from tests.helpers.shards import RANGES, damaged, examples, message_id, peak_bytes, read


def saved(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays)
    return buffer.getvalue()


def packed(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def store(folder: Path, content: bytes) -> mat.MatShard:
    (folder / "train_32x32.mat").write_bytes(content)
    return mat.MatShard(folder / "train_32x32.mat")


def svhn(images: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays X and y of images [N, H, W, C] and labels 0 to 9."""
    return {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None]}


@pytest.mark.parametrize("save", [saved, packed])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_any_range_of_a_file(tmp_path: Path, save: Callable[..., bytes], dtype: type) -> None:
    images, labels = examples(7, 5, 4, 3)
    arrays = svhn(images, labels.astype(dtype))
    content = save(text="more", X=arrays["X"], cell={"a": [1]}, y=arrays["y"])
    shard = store(tmp_path, content)
    assert (len(shard), shard.shape, shard.seekable) == (7, (5, 4, 3), True)
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop])
        assert np.array_equal(numbers, labels[start:stop])


def test_the_limit_is_of_one_image_and_not_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = examples(7, 5, 4, 3)
    monkeypatch.setattr(mat, "MAX_IMAGE_BYTES", 5 * 4 * 3)
    assert len(store(tmp_path, saved(**svhn(images, labels)))) == 7
    monkeypatch.setattr(mat, "MAX_IMAGE_BYTES", 5 * 4 * 3 - 1)
    with pytest.raises(DataError, match="at most 59 bytes an image"):
        store(tmp_path, saved(**svhn(images, labels)))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("channels", [1, 4])
def test_small_files(tmp_path: Path, count: int, channels: int) -> None:
    images, labels = examples(count, 2, 1, channels)
    found, numbers = read(store(tmp_path, saved(**svhn(images, labels))))
    assert np.array_equal(found, images)
    assert np.array_equal(numbers, labels)
    if count == 1:  # MATLAB itself drops the last dimension
        arrays = svhn(images, labels)
        shard = store(tmp_path, saved(X=arrays["X"][..., 0], y=arrays["y"]))
        assert np.array_equal(read(shard)[0], images)


def test_the_digit_10_is_0(tmp_path: Path) -> None:
    y = np.array([[10], [1], [9]], np.uint8)
    shard = store(tmp_path, saved(X=np.zeros((2, 2, 3, 3), np.uint8), y=y))
    assert read(shard)[1].tolist() == [0, 1, 9]


def test_a_block_belongs_to_the_caller(tmp_path: Path) -> None:
    images, labels = examples(4, 2, 2, 3)
    shard = store(tmp_path, saved(**svhn(images, labels)))
    for some, numbers in shard.blocks(0, 4, 4):
        some[:] = 0
        numbers[:] = 0
    (tmp_path / "train_32x32.mat").unlink()  # read once, and kept
    assert np.array_equal(read(shard)[0], images)
    assert np.array_equal(read(shard)[1], labels)


X = np.arange(24, dtype=np.uint8).reshape(2, 2, 3, 2)
Y = np.array([[1], [10]], np.uint8)
GOOD = saved(X=X, y=Y)
PACKED = packed(X=X, y=Y)
LARGE = packed(X=examples(2, 32, 32, 3)[0].transpose(1, 2, 3, 0), y=Y)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "128 bytes of a MATLAB 5 header, found nothing"),
        (GOOD[:100], "found nothing at offset 124"),
        (b"\0" + GOOD[1:], "MATLAB 5 header"),
        (GOOD[:125] + b"\2" + GOOD[126:], "version 7.3; save it with"),
        (GOOD[:-1], "array at offset .* cannot be read .*ends by byte"),
        (GOOD + b"x", f"array at offset {len(GOOD)} cannot be read"),
        (PACKED[:-1], "array at offset .* cannot be read"),
        (PACKED + bytes(8), f"array at offset {len(PACKED)} cannot be read"),
        (GOOD + GOOD[128:], "found 'X' for the second time"),
        (saved(X=X), "found X. Check"),
        (saved(z=X), "found neither"),
        (saved(X=X.astype(float), y=Y), r"X as uint8 .* class 6 \[2, 2, 3, 2\]"),
        (saved(X=X.astype(bool), y=Y), r"in X.*flags 0x02"),
        (saved(X=X[0, 0], y=Y), r"X as uint8 .* \[3, 2\]"),
        (saved(X=np.zeros((2, 2, 5, 2), np.uint8), y=Y), r"found MATLAB's class 9 \[2, 2, 5, 2\]"),
        (saved(X=X[..., :0], y=Y), r"at least one image"),
        (saved(X=X, y=Y.astype(float)), r"y as integers, found MATLAB's class 6"),
        (saved(X=X, y=Y[:1]), r"each of 2 images, found \[1, 1\]"),
        (saved(X=X, y=Y.T), r"found \[1, 2\]"),
        (saved(X=X, y=Y - 1), r"labels of 1 to 10 in y, found 0 for example 0 \(1 such"),
        (saved(X=X, y=Y + 1), r"found 11 for example 1"),
        (saved(X=X, y=-Y.astype(np.int8)), r"found -1 for example 0 \(2 such"),
        (LARGE[:3000] + b"abc" + LARGE[3003:], r"scipy cannot read X and y"),
    ],
    ids=message_id,
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"train_32x32\.mat: .*{message}"):
        read(store(tmp_path, content))


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        mat.MatShard(tmp_path)
    with pytest.raises(DataError, match="none: cannot be read"):
        mat.MatShard(tmp_path / "none")


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    shard = store(tmp_path, GOOD)
    (tmp_path / "train_32x32.mat").write_bytes(saved(X=X[1:], y=Y))
    with pytest.raises(DataError, match="found other arrays"):
        read(shard)
    (tmp_path / "train_32x32.mat").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read(shard)


def test_without_scipy_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = store(tmp_path, GOOD)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"pip install 'deepcnn\[mat\]'"):
        read(shard)


def element(kind: int, content: bytes, length: int | None = None) -> bytes:
    length = len(content) if length is None else length
    return struct.pack("<II", kind, length) + content + bytes(-len(content) % 8)


def array(
    name: bytes,
    *shape: int,
    values: bytes = bytes(16),
    length: int | None = None,
    name_length: int | None = None,
    whole_length: int | None = None,
) -> bytes:
    """Return an array of uint8 that may lie about any of its lengths."""
    parts = element(6, struct.pack("<II", 9, 0))
    parts += element(5, struct.pack(f"<{len(shape)}i", *shape))
    parts += element(1, name, name_length) + element(2, values, length)
    return element(14, parts, whole_length)


ONE = [array(b"X", 4, 4, 1, 1), array(b"y", 1, 1, values=b"\1")]
MANY = 10**8


@pytest.mark.parametrize(
    "arrays",
    [
        [array(b"X", 1, 1, 1, MANY), array(b"y", MANY, 1)],
        [array(b"X", 1, 1, 1, MANY, length=MANY), array(b"y", MANY, 1, length=MANY)],
        [
            array(b"X", 1, 1, 1, MANY, length=MANY, whole_length=MANY + 64),
            array(b"y", MANY, 1, length=MANY, whole_length=MANY + 56),
        ],
        [array(b"x", 4, 4, 1, 1, name_length=MANY), *ONE],
        [array(b"x", 4, 4, 1, 1, name_length=MANY, whole_length=MANY + 64), *ONE],
        [array(b"X", 65_535, 1024, 1, -1), array(b"y", -1, 1)],
        [array(b"X", *[2**31 - 1] * 4), array(b"y", 2**31 - 1, 1)],
    ],
    ids=itertools.count(),
)
@pytest.mark.parametrize("compress", [False, True])
def test_a_lying_length_takes_no_memory(
    tmp_path: Path, arrays: list[bytes], compress: bool
) -> None:
    if compress:
        packed = [zlib.compress(each) for each in arrays]
        arrays = [struct.pack("<II", 15, len(each)) + each for each in packed]
    content = GOOD[:128] + b"".join(arrays)
    assert peak_bytes(lambda: read(store(tmp_path, content))) < 2**21


def test_what_those_arrays_are_when_they_do_not_lie(tmp_path: Path) -> None:
    images, labels = read(store(tmp_path, GOOD[:128] + array(b"x", 4, 4) + b"".join(ONE)))
    assert images.shape == (1, 4, 4, 1)
    assert labels.tolist() == [1]


def check_any(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            shard = store(Path(folder), content)
            images, labels = read(shard)
        except DataError:
            return
        assert len(images) == len(labels) == len(shard) > 0
        assert set(labels) <= set(range(10))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200)
    | damaged(GOOD)
    | damaged(PACKED)
    | st.binary(max_size=60).map(lambda rest: GOOD[:128] + rest)
)
def test_any_bytes_give_examples_or_the_one_error(content: bytes) -> None:
    check_any(content)


@settings(max_examples=150, deadline=None)
@given(damaged(GOOD[128:]))
def test_any_compressed_bytes_give_examples_or_the_one_error(arrays: bytes) -> None:
    for cut in itertools.chain([0], range(100, len(arrays), 60)):
        parts = [zlib.compress(part) for part in (arrays[:cut], arrays[cut:]) if part]
        check_any(GOOD[:128] + b"".join(struct.pack("<II", 15, len(p)) + p for p in parts))
