from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepcnn.data.formats import cifar, records
from deepcnn.errors import DataError


def test_records_equal_a_plain_reading_of_the_bytes(cifar10_folder: Path) -> None:
    path = cifar10_folder / "test_batch.bin"
    content = path.read_bytes()
    count = 0
    for i, record in enumerate(records.read_records(path, cifar.TEN)):
        count += 1
        if i % 997:
            continue
        start = i * 3073
        assert record.key == f"{path}:{i}"
        assert record.label == content[start]
        assert record.image.shape == (record.height, record.width, record.depth) == (32, 32, 3)
        for row, column, channel in ((0, 0, 0), (31, 31, 2), (5, 17, 1), (i % 32, 3, 2)):
            expected = content[start + 1 + channel * 1024 + row * 32 + column]
            assert record.image[row, column, channel] == expected
    assert count == 10_000


def test_encoding_gives_back_the_real_file(cifar10_folder: Path) -> None:
    content = (cifar10_folder / "test_batch.bin").read_bytes()
    images, labels = cifar.TEN.decode(content, classes=10, name="test")
    assert cifar.TEN.encode(images, labels) == content


def test_of_two_label_bytes_either_counts() -> None:
    record = bytes([3, 77]) + bytes(3072)
    _, labels = cifar.HUNDRED.decode(record * 2, classes=100, name="x")
    assert labels.tolist() == [77, 77]
    _, labels = cifar.HUNDRED_COARSE.decode(record * 2, classes=20, name="x")
    assert labels.tolist() == [3, 3]


def test_a_truncated_file_is_named_with_the_offset(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(3073 * 2 + 100))
    with pytest.raises(
        DataError, match=r"data.bin: .*found 6,246 bytes.*100 bytes from offset 6,146"
    ):
        records.RecordShard(path, cifar.TEN)


def test_a_label_out_of_range_is_named_with_its_offset() -> None:
    content = bytearray(3073 * 3)
    content[3073 * 2] = 10
    with pytest.raises(DataError, match=r"found 10 in record 2 at offset 6,146"):
        cifar.TEN.decode(bytes(content), classes=10, name="x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.bin: cannot be read"):
        records.RecordShard(tmp_path / "none.bin", cifar.TEN)


@given(st.binary(max_size=7000), st.sampled_from([cifar.TEN, cifar.HUNDRED]))
def test_any_bytes_give_images_or_the_one_error(
    content: bytes, layout: records.RecordLayout
) -> None:
    try:
        images, labels = layout.decode(content, classes=10, name="x")
    except DataError:
        return
    assert len(images) == len(labels) == len(content) // layout.record_bytes


def sheet(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sheet(1024, 6), "expected an RGB picture of 1024 by 5, found RGB of 1024 by 6"),
        (sheet(1024, 5, "L"), "found L of 1024 by 5"),
        (sheet(30_000, 30_000, "1"), "not a whole PNG|found 1 of 30000 by 30000"),
        (sheet(1024, 5)[:-30], "not a whole PNG"),
        (b"", "not a whole PNG"),
        (b"GIF89a", "not a whole PNG"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_sheet_of_another_size_or_kind_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cifar.decode_sheet(content, count=5, name="sheet")


def test_a_sheet_holds_an_image_in_each_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1024, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    found = cifar.decode_sheet(buffer.getvalue(), count=5, name="sheet")
    assert np.array_equal(found, pixels.reshape(5, 32, 32, 3))


def test_it_says_of_any_split_why_the_format_cannot_hold_it() -> None:
    ten = tuple("0123456789")
    assert cifar.why_not({"train": (32, 32, 3), "test": (32, 32, 3)}, ten) is None
    found = cifar.why_not({"train": (32, 32, 3), "validation": (32, 32, 4)}, ten)
    assert found == "expected images of 32×32×3, found 32×32×4"
    found = cifar.why_not({"train": (32, 32, 3)}, tuple(map(str, range(257))))
    assert found == "expected at most 256 classes, found 257"
