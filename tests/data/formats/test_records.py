"""Records of one length: any layout, against numpy.transpose and against struct."""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcnn.data.convert import convert
from deepcnn.data.formats import cifar
from deepcnn.data.formats.records import LAYOUT_FILE, RecordLayout, RecordShard, read_records
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec
from tests.helpers.shards import RANGES, examples, message_id, peak_bytes, read

AXES = ["".join(order) for order in itertools.permutations("HWC")]


def written(layout: RecordLayout, count: int) -> tuple[bytes, Any, Any]:
    """Return a file made value by value, by the definition, with its images and labels."""
    images, labels = examples(count, *layout.shape)
    content = bytearray(range(layout.header_bytes))
    for image, label in zip(images, labels, strict=True):
        before = [200 + i for i in range(layout.label_bytes)]
        before[layout.label] = int(label)
        content += bytes(before)
        sizes = [layout.shape["HWC".index(axis)] for axis in layout.axes]
        for place in itertools.product(*map(range, sizes)):
            at = dict(zip(layout.axes, place, strict=True))
            content.append(int(image[at["H"], at["W"], at["C"]]))
    return bytes(content), images, labels


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    ("label_bytes", "label", "header_bytes"), [(1, -1, 0), (2, 0, 0), (5, 3, 7), (2, -1, 16)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_layout_is_read_and_written_by_its_definition(
    tmp_path: Path, axes: str, label_bytes: int, label: int, header_bytes: int, channels: int
) -> None:
    layout = RecordLayout((4, 3, channels), label_bytes, label, axes, header_bytes)
    content, images, labels = written(layout, 7)
    (tmp_path / "x.bin").write_bytes(content)
    shard = RecordShard(tmp_path / "x.bin", layout)
    assert (len(shard), shard.shape, shard.seekable) == (7, (4, 3, channels), True)
    for start, stop, size in RANGES:
        found, numbers = read(shard, start, stop, size)
        assert np.array_equal(found, images[start:stop])
        assert np.array_equal(numbers, labels[start:stop])
    again, numbers = layout.decode(layout.encode(images, labels), classes=10, name="x")
    assert np.array_equal(again, images)
    assert np.array_equal(numbers, labels)
    if label_bytes == 1 and not header_bytes:
        assert layout.encode(images, labels) == content


def test_real_pictures_in_another_order_of_axes_are_the_same_data_set(
    tmp_path: Path, cifar10_folder: Path
) -> None:
    content = (cifar10_folder / "test_batch.bin").read_bytes()[: 3073 * 100]
    rows = np.frombuffer(content, np.uint8).reshape(100, 3073)
    planes = rows[:, 1:].reshape(100, 3, 32, 32)
    columns = planes.transpose(0, 1, 3, 2).reshape(100, -1)  # as MATLAB and STL-10 have them
    key = np.full((100, 4), 255, np.uint8)
    header = b"a header of 24 bytes ..."
    (tmp_path / "train.bin").write_bytes(
        header + np.concatenate([key, rows[:, :1], columns], 1).tobytes()
    )
    layout = RecordLayout((32, 32, 3), label_bytes=5, axes="CWH", header_bytes=len(header))
    assert layout.describe(tmp_path) == tmp_path / LAYOUT_FILE
    dataset = open_dataset(tmp_path)
    assert (dataset.form, dataset.own_splits) == ("records of one length", ("train",))
    found = load_dataset(tmp_path, "train")
    expected, labels = cifar.TEN.decode(content, classes=10, name="x")
    assert np.array_equal(found.images, expected)
    assert np.array_equal(found.labels, labels)
    assert load_dataset(tmp_path / "train.bin", "train").classes == tuple("0123456789")
    convert(tmp_path, tmp_path.parent / "as_cifar", "cifar")
    assert (tmp_path.parent / "as_cifar/data_batch_1.bin").read_bytes() == content


def test_splits_and_classes_are_those_of_the_files_beside(tmp_path: Path) -> None:
    layout = RecordLayout((2, 2, 1), axes="HWC")
    images, labels = examples(6, 2, 2, 1)
    for name in ("train_2", "train_10", "test"):
        (tmp_path / f"{name}.bin").write_bytes(layout.encode(images, labels % 3))
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    (tmp_path / LAYOUT_FILE).write_text('{"shape": [2, 2, 1]}')
    dataset = open_dataset(DataSpec(data=str(tmp_path), validation_size=4))
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {
        "train": 8,
        "validation": 4,
        "test": 6,
    }
    assert dataset.classes == ("a", "b", "c")


def test_records_one_by_one_have_keys(tmp_path: Path) -> None:
    layout = RecordLayout((2, 3, 1), label_bytes=2, label=0, axes="WHC")
    content, images, labels = written(layout, 130)
    (tmp_path / "x.bin").write_bytes(content)
    found = list(read_records(tmp_path / "x.bin", layout))
    assert [record.key for record in found] == [f"{tmp_path / 'x.bin'}:{i}" for i in range(130)]
    assert [record.label for record in found] == labels.tolist()
    assert np.array_equal(np.stack([record.image for record in found]), images)
    assert {(r.height, r.width, r.depth) for r in found} == {(2, 3, 1)}


def test_what_is_no_whole_record_is_named_with_its_offset(tmp_path: Path) -> None:
    layout = RecordLayout((2, 2, 1), label_bytes=3, header_bytes=10)
    path = tmp_path / "x.bin"
    for content, message in (
        (bytes(10 + 2 * 7 + 3), r"records of 7 bytes after 10 of a header.*27 bytes.*3.*offset 24"),
        (bytes(10), r"found 10 bytes, that is 0 records"),
        (bytes(4), r"found 4 bytes, that is 0 records"),
        (b"", r"found 0 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            RecordShard(path, layout)
    damaged = bytearray(10 + 7 * 3)
    damaged[10 + 7 + 2] = 10
    with pytest.raises(DataError, match="found 10 in record 1 at offset 19"):
        layout.decode(bytes(damaged), classes=10, name="x")


def test_closing_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[io.FileIO] = []
    plain = io.FileIO

    def spy(path: Path) -> io.FileIO:
        files.append(plain(path))
        return files[-1]

    monkeypatch.setattr(io, "FileIO", spy)
    layout = RecordLayout((2, 2, 1))
    (tmp_path / "x.bin").write_bytes(layout.encode(*examples(7, 2, 2, 1)))
    shard = RecordShard(tmp_path / "x.bin", layout)
    blocks = shard.blocks(0, 7, 2)
    next(blocks)
    assert not files[-1].closed
    blocks.close()
    assert all(file.closed for file in files)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (0, 2, 1)}, "shape: expected height"),
        ({"shape": (2, 2, 5)}, "channels"),
        ({"shape": (65_535, 65_535, 4)}, "values"),
        ({"label_bytes": 0}, "label_bytes: expected 1 to"),
        ({"label_bytes": 2, "label": 2}, "which of 2 bytes, -2 to 1, found 2"),
        ({"label_bytes": 2, "label": -3}, "found -3"),
        ({"axes": "CHH"}, "axes: expected an order of H, W and C"),
        ({"axes": "chw"}, "axes"),
        ({"header_bytes": -1}, "header_bytes: expected 0 to"),
    ],
)
def test_a_layout_that_no_file_has_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RecordLayout(**{"shape": (2, 2, 1), **fields})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b"[" * 60_000, "expected how records are laid out"),
        (b" " * 70_000, "longer than 65,536 bytes"),
        (b"[]", 'at least {"shape"'),
        (b'{"axes": "HWC"}', 'at least {"shape"'),
        (b'{"shape": [2, 2]}', "three whole numbers"),
        (b'{"shape": [2, 2, true]}', "three whole numbers"),
        (b'{"shape": [2, 2, 1.0]}', "three whole numbers"),
        (b'{"shape": [2, 2, 9]}', "1 to 4 channels"),
        (b'{"shape": [2, 2, 1], "label": "0"}', "label: expected int, found '0'"),
        (b'{"shape": [2, 2, 1], "header": 4}', "found 'header'"),
        (b'{"shape": [2, 2, 1], "label_bytes": 99999999999999999999}', "label_bytes: expected 1"),
    ],
    ids=message_id,
)
def test_a_hostile_description_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.bin").write_bytes(bytes(50))
    (tmp_path / LAYOUT_FILE).write_bytes(content)
    with pytest.raises(DataError, match=f"records.json.*{message}"):
        open_dataset(tmp_path)


def test_a_description_of_much_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(bytes(50))
    (tmp_path / LAYOUT_FILE).write_text('{"shape": [8192, 8192, 1], "label_bytes": 1000000}')
    assert peak_bytes(lambda: load_dataset(tmp_path, "train")) < 2**20


@given(
    st.binary(max_size=60),
    st.integers(1, 3),
    st.sampled_from(AXES),
    st.integers(0, 5),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
)
def test_any_bytes_give_examples_or_the_one_error(
    content: bytes, label_bytes: int, axes: str, header: int, shape: tuple[int, int, int]
) -> None:
    layout = RecordLayout(shape, label_bytes, axes=axes, header_bytes=header)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        path.write_bytes(content)
        try:
            found, numbers = read(RecordShard(path, layout))
        except DataError:
            return
        assert len(found) == len(numbers) == (len(content) - header) // layout.record_bytes > 0


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_in_a_description_gives_a_layout_or_the_one_error(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("shape", "label_bytes", "label", "axes", "header_bytes"):
            fields = {"shape": [2, 2, 1], name: value}
            (Path(folder) / LAYOUT_FILE).write_text(json.dumps(fields))
            try:
                found = RecordLayout.described(Path(folder))
            except DataError:
                continue
            assert isinstance(found, RecordLayout)
