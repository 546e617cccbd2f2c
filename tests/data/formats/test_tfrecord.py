from __future__ import annotations

import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcnn.data.formats import tfrecord
from deepcnn.data.formats.tfrecord_files import masked_crc
from deepcnn.errors import DataError
from tests import golden
from tests.golden.make_tfrecord import examples as golden_examples
from tests.helpers.shards import (
    RANGES,
    check_early_closing,
    damaged,
    examples,
    message_id,
    peak_bytes,
    read,
)

GOLDEN = Path(golden.__file__).parent


def store(folder: Path, content: bytes) -> tfrecord.TFRecordShard:
    (folder / "x.tfrecords").write_bytes(content)
    return tfrecord.TFRecordShard(folder / "x.tfrecords")


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]


def message(number: int, content: bytes) -> bytes:
    """Return a field of at most 127 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def feature(name: bytes, value: bytes) -> bytes:
    return message(1, message(1, name) + message(2, value))


def integer(value: int) -> bytes:
    """Return a Feature of one integer below 128, packed."""
    return message(3, message(1, bytes([value])))


# A 2×1×1 image, features in no order of their names.
PARTS = {
    "label": feature(b"label", integer(7)),
    "image_raw": feature(b"image_raw", message(1, message(1, b"ab"))),
    "width": feature(b"width", integer(1)),
    "height": feature(b"height", integer(2)),
    "depth": feature(b"depth", integer(1)),
}


def example(**parts: bytes) -> bytes:
    """Return the data of a record, with some parts replaced or added."""
    return message(1, b"".join((PARTS | parts).values()))


def test_the_checksum_is_computed_in_c() -> None:
    assert google_crc32c.implementation == "c"
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720's polynomial


def test_what_tensorflow_wrote() -> None:
    images, labels = golden_examples()
    shard = tfrecord.TFRecordShard(GOLDEN / "tensorflow.tfrecords")
    assert (len(shard), shard.shape, shard.seekable) == (5, (4, 6, 3), True)
    found, numbers = read(shard)
    assert np.array_equal(found, images)
    assert numbers.tolist() == labels.tolist() == [0, 300, 1, 127, 128]


def test_encoding_gives_the_file_that_tensorflow_read() -> None:
    expected = (GOLDEN / "deepcnn.tfrecords").read_bytes()
    assert tfrecord.encode(*golden_examples()) == expected


def test_any_range_of_a_file(tmp_path: Path) -> None:
    images, _ = examples(7, 5, 4, 3)
    labels = np.array([0, 127, 128, 16_383, 5, 2**63 - 1, 300])
    shard = store(tmp_path, tfrecord.encode(images, labels))
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop])
        assert np.array_equal(numbers, labels[start:stop])


def test_records_of_one_length_are_not_taken_for_each_other(tmp_path: Path) -> None:
    usual = example()
    turned = example(height=feature(b"height", integer(1)), width=feature(b"width", integer(2)))
    assert len(turned) == len(usual)
    with pytest.raises(
        DataError, match=r"images of \[2, 1, 1\] .*found \[1, 2, 1\] in record 2 at offset"
    ):
        read(store(tmp_path, record(usual) * 2 + record(turned)))
    # Label and image change places.
    other_image = feature(b"image_raw", message(1, message(1, b"cd")))
    swapped = example(label=other_image, image_raw=PARTS["label"])
    assert len(swapped) == len(usual)
    images, labels = read(store(tmp_path, record(usual) + record(swapped) + record(usual)))
    assert [image.tobytes() for image in images] == [b"ab", b"cd", b"ab"]
    assert labels.tolist() == [7, 7, 7]
    # The label's integer ends earlier than in the first record, so that the list has two.
    long = message(3, message(1, b"\x80\x01"))
    first = example(label=feature(b"label", long))
    other = first.replace(b"\x80\x01", b"\x01\x01")
    with pytest.raises(DataError, match=r"record 1 .*expected one integer in 'label', found 2"):
        read(store(tmp_path, record(first) + record(other)))
    ten = example(label=feature(b"label", message(3, message(1, b"\x80" * 9 + b"\0"))))
    other = ten.replace(b"\x80" * 9 + b"\0", b"\xff" * 9 + b"\x7f")
    with pytest.raises(DataError, match=r"record 1 at offset .*without an end"):
        read(store(tmp_path, record(ten) + record(other)))


@pytest.mark.parametrize(
    "parts",
    [
        {"label": feature(b"label", message(3, b"\x08\x07"))},  # unpacked
        {"label": feature(b"label", message(3, b"\x0a\x02\x87\x00"))},  # a longer way to say 7
        {"label": feature(b"label", integer(3)) + PARTS["label"]},  # the last one wins
        {"label": message(1, message(2, integer(7)) + message(1, b"label"))},  # value before key
        {"other": feature(b"name", message(1, message(1, b"x") * 5))},
        {"other": feature(b"mean", message(2, b"\x0d" + bytes(4)))},  # fixed 32 bits
        {"other": message(5, b"unknown") + b"\x30\x01" + b"\x39" + bytes(8)},
        {"other": message(1, b"")},
    ],
)
def test_other_ways_to_say_the_same(tmp_path: Path, parts: dict[str, bytes]) -> None:
    images, labels = read(store(tmp_path, record(example(**parts)) * 3))
    assert images.tobytes() == b"ababab"
    assert labels.tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "none named height, width, depth, label, image_raw"),
        (example(image_raw=feature(b"image/encoded", b"")), r"named image_raw.*'image/encoded'"),
        (example(label=feature(b"label", b"")), "expected one integer in 'label', found 0"),
        (example(label=feature(b"label", message(3, b"\x0a\x02\x01\x02"))), "found 2"),
        (example(label=feature(b"label", message(2, bytes(4)))), "in 'label', found 0"),
        (example(label=feature(b"label", message(3, b"\x08" + b"\xff" * 10))), "without an end"),
        (
            example(label=feature(b"label", message(3, b"\x08" + b"\xff" * 9 + b"\x01"))),
            "expected a label of at least 0, found -1 in record 0 at offset 0",
        ),
        (example(image_raw=feature(b"image_raw", message(1, message(1, b"abc")))), "found 3"),
        (example(depth=feature(b"depth", integer(5))), "height 2, width 1, depth 5"),
        (example(height=feature(b"height", integer(0))), "found height 0"),
        (example(other=b"\x0b"), "wire type 3"),
        (example(other=b"\x0a\x7f"), "expected a field that ends by byte"),
        (example() + b"\x00\x00", "found field 0"),
    ],
    ids=message_id,
)
def test_an_example_of_another_kind_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.tfrecords.*{message}"):
        read(store(tmp_path, record(data)))


GOOD = record(example())
SIZE = len(GOOD)
HUGE = struct.pack("<Q", 2**63)
HUGE += struct.pack("<I", masked_crc(HUGE))
LONG = struct.pack("<Q", 10**6)
LONG += struct.pack("<I", masked_crc(LONG))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"12 bytes of a record's header at offset 0, after 0 records, found 0"),
        (GOOD[:7], r"header at offset 0, after 0 records, found 7"),
        (GOOD + b"extra", rf"header at offset {SIZE}, after 1 records, found 5"),
        (GOOD * 2 + GOOD[:-1], rf"record 2 at offset {2 * SIZE} declares.*end of the file"),
        (GOOD + LONG, rf"record 1 at offset {SIZE} declares 1,000,000 bytes"),
        (GOOD + HUGE, rf"found {2**63:,} bytes declared by record 1 at offset {SIZE}"),
        (GOOD + b"\1" + GOOD[1:], rf"length of record 1 at offset {SIZE} and its checksum"),
        (GOOD * 2 + GOOD[:-5] + b"z" + GOOD[-4:], rf"data of record 2 at offset {2 * SIZE} and"),
        (GOOD[:-1] + b"\0", r"data of record 0 at offset 0 and its checksum disagree"),
        (gzip.compress(GOOD)[:-4], r"gzip or zlib stream, found one that is damaged \(it ends ea"),
        (gzip.compress(GOOD + LONG), rf"record 1 at offset {SIZE} declares 1,000,000 bytes"),
        (gzip.compress(GOOD + b"\1" + GOOD[1:]), rf"length of record 1 at offset {SIZE} and its"),
        (gzip.compress(GOOD)[:-8] + bytes(8), r"\(Error -3 .*incorrect data check\)"),
        (gzip.compress(GOOD) + b"more", r"\(other bytes follow its end\)"),
        (zlib.compress(GOOD)[:-1], r"\(it ends early\)"),
    ],
    ids=message_id,
)
def test_a_wrong_file_is_named_with_the_offset(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(store(tmp_path, content))


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        tfrecord.TFRecordShard(tmp_path)
    with pytest.raises(DataError, match="none: cannot be read"):
        tfrecord.TFRecordShard(tmp_path / "none")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    shard = store(tmp_path, GOOD * 2)
    (tmp_path / "x.tfrecords").write_bytes(GOOD)
    with pytest.raises(DataError, match=f"{SIZE} fewer"):
        read(shard)


def test_closing_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_early_closing(lambda: store(tmp_path, GOOD * 5), monkeypatch)


def test_a_lying_length_takes_no_memory(tmp_path: Path) -> None:
    for header in (HUGE, LONG):
        assert peak_bytes(lambda header=header: store(tmp_path, header)) < 2**20  # type: ignore[misc]
    huge = example(image_raw=b"\x0a" + b"\xff" * 4 + b"\x07")
    assert peak_bytes(lambda: store(tmp_path, record(huge))) < 2**20


def check_any(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            shard = store(Path(folder), content)
            images, labels = read(shard)
        except DataError:
            return
        assert len(images) == len(labels) == len(shard) > 0
        assert labels.min() >= 0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | damaged(GOOD * 3))
def test_any_file_gives_examples_or_the_one_error(content: bytes) -> None:
    check_any(content)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60) | damaged(example()), min_size=1, max_size=3))
def test_any_data_gives_examples_or_the_one_error(datas: list[bytes]) -> None:
    check_any(b"".join(record(data) for data in [example(), *datas]))
    check_any(b"".join(record(data) for data in datas))
