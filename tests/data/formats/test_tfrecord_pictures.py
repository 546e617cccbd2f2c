"""TFRecords of encoded pictures, and compressed ones."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import deepcnn
from deepcnn.data.formats import inflated, pictures, tfrecord, tfrecord_pictures
from deepcnn.data.formats.tfrecord_files import PackedRecords, masked_crc
from deepcnn.data.formats.tfrecord_pictures import RecordPictures
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from deepcnn.settings import DataSpec
from tests.helpers import foreign
from tests.helpers.shards import RANGES, check_early_closing, damaged, examples, peak_bytes, read

SLIM = "animals_train_00000-of-00001.tfrecord"
FILES = [
    (SLIM, "labels.txt", True),
    (SLIM + ".zlib", "labels.txt", False),
    ("animals-train.tfrecord-00000-of-00001.gz", "label.labels.txt", False),
]


@pytest.mark.parametrize(("name", "labels", "seekable"), FILES)
def test_what_another_program_wrote(tmp_path: Path, name: str, labels: str, seekable: bool) -> None:
    data = deepcnn.open_dataset(foreign.folder(tmp_path, name, labels))
    assert (data.form, data.own_splits, data.classes) == (
        "TFRecord of pictures",
        ("train",),
        foreign.NAMES,
    )
    (shard,) = data.split("train").shards
    assert (len(shard), shard.shape, shard.seekable) == (7, (6, 5, 3), seekable)
    for start, stop, size in RANGES:
        images, numbers = read(shard, start, stop, size)
        assert np.array_equal(images, foreign.expected()[start:stop])
        assert numbers.tolist() == foreign.LABELS[start:stop]


def test_pictures_are_brought_to_the_image_size(tmp_path: Path) -> None:
    folder = foreign.folder(tmp_path, SLIM)
    found = deepcnn.load_dataset(folder, "train", image_size=(8, 10))
    assert np.array_equal(found.images, foreign.expected(8, 10))
    assert found.classes == ("0", "1", "2")


def test_classes_are_counted_without_a_look_at_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "decode", None)
    train = deepcnn.open_dataset(foreign.folder(tmp_path, SLIM)).split("train")
    assert train.classes == ("0", "1", "2")


@pytest.mark.parametrize(("name", "labels", "seekable"), FILES)
@pytest.mark.parametrize(("most", "lengths"), [(1, [1] * 7), (2**22, [3, 3, 1])])
def test_a_part_holds_so_many_records_or_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    lengths: list[int],
    name: str,
    labels: str,
    seekable: bool,
) -> None:
    monkeypatch.setattr(tfrecord_pictures, "MOST_BYTES", most)
    found = RecordPictures(foreign.folder(tmp_path, name, labels) / name)
    assert found.seekable == seekable
    parts = list(found.parts(0, 7, 3))
    assert [len(part) for part in parts] == lengths
    assert [label for part in parts for _, label in part] == foreign.LABELS
    wheres = [part.where(i) for part in parts for i in range(len(part))]
    assert [f", record {i} at" in where for i, where in enumerate(wheres)] == [True] * 7


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_records_of_pixels(
    tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = examples(7, 5, 4, 3)
    content = tfrecord.encode(images, labels)
    (tmp_path / "train.tfrecord").write_bytes(pack(content))
    shard = tfrecord.TFRecordShard(tmp_path / "train.tfrecord")
    assert not shard.seekable
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop])
        assert np.array_equal(numbers, labels[start:stop])
    check_early_closing(lambda: tfrecord.TFRecordShard(tmp_path / "train.tfrecord"), monkeypatch)


def test_a_file_of_several_gzip_streams_is_one(tmp_path: Path) -> None:
    content = tfrecord.encode(*examples(7, 5, 4, 3))
    (tmp_path / "x").write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]))
    with inflated.opened(tmp_path / "x") as stream:
        assert stream.read(10**6) == content


def test_a_length_that_begins_as_a_zlib_stream_does_is_a_plain_file(tmp_path: Path) -> None:
    """A record of 40,056 bytes begins with 0x78 0x9C."""
    label = np.zeros(1, np.int64)
    around = len(tfrecord.encode(np.zeros((1, 1, 30_000, 1), np.uint8), label)) - 16 - 30_000
    content = tfrecord.encode(np.zeros((1, 1, 40_056 - around, 1), np.uint8), label)
    assert content.startswith(b"\x78\x9c")
    assert zlib.compress(b"").startswith(b"\x78\x9c")
    (tmp_path / "x.tfrecords").write_bytes(content)
    assert tfrecord.TFRecordShard(tmp_path / "x.tfrecords").seekable


def test_a_bomb_is_refused_in_constant_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflated, "MAX_MORE", 1 << 18)
    path = tmp_path / "train.tfrecord"
    path.write_bytes(gzip.compress(record(bytes(1 << 20)) * 8, 9))
    assert peak_bytes(lambda: PackedRecords(path)) < 1 << 21
    with pytest.raises(DataError, match=r"train\.tfrecord: expected a file that unpacks to at mo"):
        PackedRecords(path)


def record(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    checks = [masked_crc(part).to_bytes(4, "little") for part in (length, data)]
    return length + checks[0] + data + checks[1]


def test_a_record_without_a_label_or_picture_is_named(tmp_path: Path) -> None:
    content = (foreign.FOREIGN / SLIM).read_bytes()
    length = 16 + int.from_bytes(content[:8], "little")
    data = content[12 : length - 4]
    for name, message in (
        (b"image/class/label", "a feature image/class/label or label, found none"),
        (b"image/encoded", "a feature image/encoded or image, found none"),
    ):
        other = data.replace(name, b"x" * len(name))
        (tmp_path / "train.tfrecord").write_bytes(content[:length] + record(other))
        with pytest.raises(
            DataError, match=rf"train\.tfrecord: record 1 at offset {length} .*{message}"
        ):
            deepcnn.load_dataset(tmp_path, "train")


def test_a_bad_picture_is_named_with_its_record_or_left_out(tmp_path: Path) -> None:
    content = (foreign.FOREIGN / SLIM).read_bytes()
    length = 16 + int.from_bytes(content[:8], "little")
    other = content[12 : length - 4].replace(b"\x89PNG", b"\x89NGP")
    (tmp_path / "train.tfrecord").write_bytes(content[:length] + record(other) + content[length:])
    with pytest.raises(DataError, match=r"1 of 8 .*train\.tfrecord, record 1 at offset \d+: ex"):
        deepcnn.load_dataset(tmp_path, "train")
    heard: list[Event] = []
    data = deepcnn.open_dataset(DataSpec(data=str(tmp_path), skip_bad=True), emit=heard.append)
    for start, stop, size in RANGES:
        images, labels = read(data.split("train").shards[0], start, stop, size)
        assert np.array_equal(images, foreign.expected()[start:stop])
        assert labels.tolist() == foreign.LABELS[start:stop]
    assert [e.text for e in heard if isinstance(e, Noted) and "record 1 at offset" in e.text]


@pytest.mark.parametrize(
    ("text", "message"),
    [("0:a\n2:b\n", "expected the labels 0 to 1"), ("a\na\n", "names that differ"), ("", "names")],
)
def test_names_of_labels_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    foreign.folder(tmp_path, SLIM)
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(DataError, match=rf"labels\.txt: .*{message}"):
        deepcnn.open_dataset(tmp_path)


GOOD = (foreign.FOREIGN / SLIM).read_bytes()[:700]


@settings(max_examples=60, deadline=None)
@given(damaged(GOOD) | damaged(gzip.compress(GOOD)) | damaged(zlib.compress(GOOD)))
def test_any_file_gives_pictures_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "train.tfrecord"
    path.write_bytes(content)
    try:
        found = RecordPictures(path)
        some = [each for part in found.parts(0, len(found), 2) for each in part]
    except DataError:
        return
    assert len(some) == len(found) > 0
    assert all(label >= 0 for *_, label in some)
