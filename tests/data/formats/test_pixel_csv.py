"""Tables of pixels, held against numpy.loadtxt and Python's csv."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import csv_text, pixel_csv
from deepcnn.data.formats.csv_head import Head, head_of
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.shards import Block, Shard, ToWrite
from deepcnn.data.survey import survey
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from deepcnn.settings import DataSpec
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

DIGITS = tuple("0123456789")


def rows_of(images: NDArray[np.uint8], labels: Sequence[Any]) -> list[list[str]]:
    flat = images.reshape(len(images), -1).tolist()
    return [[str(label), *map(str, row)] for label, row in zip(labels, flat, strict=True)]


def written(rows: list[list[str]], header: list[str] | None = None, end: str = "\n") -> bytes:
    """Write a table by Python's csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=end).writerows([header, *rows] if header else rows)
    return buffer.getvalue().encode()


def opened(path: Path, classes: tuple[str, ...] | None = None) -> Shard:
    """Open a single table, whatever its name."""
    found = pixel_csv.recognize(path.parent, [path.name], classes, lambda _: None)
    assert found is not None
    (open_shards,) = found[0].values()
    (shard,) = open_shards()
    return shard


def names(count: int) -> list[str]:
    return [f"pixel{i}" for i in range(count)]


IMAGES, LABELS = examples(7, 4, 4, 1)
ROWS = rows_of(IMAGES, LABELS.tolist())
PLAIN = written(ROWS, ["label", *names(16)])


def test_real_images_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    arrays = load_dataset(FASHION_MNIST, "test").select(slice(0, 700))
    table = np.concatenate([arrays.labels[:, None], arrays.images.reshape(700, -1)], 1)
    path = tmp_path / "train.csv"
    np.savetxt(path, table, fmt="%d", delimiter=",")
    found = load_dataset(path, "train")
    expected = np.loadtxt(path, delimiter=",", dtype=np.int64)
    assert np.array_equal(found.images.reshape(700, -1), expected[:, 1:])
    assert np.array_equal(found.labels, expected[:, 0])
    assert (found.shape, found.classes) == ((28, 28, 1), DIGITS)
    assert np.array_equal(found.images, arrays.images)


Arranged = Callable[[str, list[str]], list[str]]
HEADERS: dict[str, tuple[list[str] | None, Arranged]] = {
    "as Kaggle's digits": (["label", *names(16)], lambda label, row: [label, *row]),
    "without": (None, lambda label, row: [label, *row]),
    "the label last": ([*names(16), "Label"], lambda label, row: [*row, label]),
    "the label in the middle": (
        [*names(16)[:5], " class ", *names(16)[5:]],
        lambda label, row: [*row[:5], label, *row[5:]],
    ),
    "rows numbered by pandas": (
        ["", "label", *names(16)],
        lambda label, row: ["41", label, *row],
    ),
    "rows numbered in the middle": (
        ["target", *names(16)[:9], "id", *names(16)[9:]],
        lambda label, row: [label, *row[:9], "1000", *row[9:]],
    ),
    "columns numbered": (["label", *map(str, range(16))], lambda label, row: [label, *row]),
    "other names": (["digit", *("1x1 " * 16).split()], lambda label, row: [label, *row]),
}


@pytest.mark.parametrize("form", HEADERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_any_range_of_any_form(
    tmp_path: Path, form: str, end: str, compress: Callable[[bytes], bytes]
) -> None:
    header, arranged = HEADERS[form]
    rows = [arranged(row[0], row[1:]) for row in ROWS]
    mark = b"\xef\xbb\xbf" if form in ("as Kaggle's digits", "without") else b""
    path = tmp_path / "train.csv"
    path.write_bytes(compress(mark + written(rows, header, end)))
    shard = opened(path)
    assert (len(shard), shard.shape, shard.name) == (7, (4, 4, 1), str(path))
    assert shard.seekable == (compress is bytes)
    for start, stop, size in RANGES:
        found, labels = read(shard, start, stop, size)
        assert np.array_equal(found, IMAGES[start:stop])
        assert np.array_equal(labels, LABELS[start:stop])


@pytest.mark.parametrize("piece", [1, 7, 100, 1000])
def test_lines_across_what_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(csv_text, "PIECE", piece)
    for end in ("\n", "\r\n"):
        path = tmp_path / "x.csv"
        path.write_bytes(written(ROWS, ["label", *names(16)], end)[: -len(end)] + b"\n\r\n\n")
        shard = opened(path)
        for start, stop, size in RANGES:
            found, labels = read(shard, start, stop, size)
            assert np.array_equal(found, IMAGES[start:stop])
            assert np.array_equal(labels, LABELS[start:stop])


def test_three_values_a_pixel_are_its_colours(tmp_path: Path) -> None:
    images, labels = examples(5, 6, 6, 3)
    path = tmp_path / "train.csv"
    path.write_bytes(written(rows_of(images, labels.tolist())))
    found = load_dataset(path, "train")
    assert found.shape == (6, 6, 3)
    assert np.array_equal(found.images, images)


def test_numbers_by_pandas_without_names_are_a_header(tmp_path: Path) -> None:
    images, labels = examples(5, 17, 17, 1)
    path = tmp_path / "train.csv"
    path.write_bytes(written(rows_of(images, labels.tolist()), [*map(str, range(290))]))
    assert np.array_equal(load_dataset(path, "train").images, images)


def test_labels_may_be_names(tmp_path: Path) -> None:
    kinds = ["größe", "10", "cat", "2", " cat ", "größe", "an eagle owl"]
    train = written(rows_of(IMAGES, kinds), ["label", *names(16)])
    (tmp_path / "train.csv").write_bytes(train.replace(b"an eagle owl", b'"an eagle owl"'))
    (tmp_path / "test.csv").write_bytes(written(rows_of(IMAGES[:2], ["2", "10"])))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("2", "10", "an eagle owl", "cat", "größe")
    assert dataset.split("train").labels().tolist() == [4, 1, 3, 0, 3, 4, 2]
    assert dataset.split("test").labels().tolist() == [0, 1]
    assert np.array_equal(dataset.split("train").load().images, IMAGES)
    (tmp_path / "test.csv").write_bytes(written(rows_of(IMAGES[:3], ["2", "3", "x"])))
    with pytest.raises(DataError, match=r"test\.csv, line 2: expected as its label a class.*'3'"):
        open_dataset(tmp_path).split("test")


def test_labels_may_be_numbers_of_named_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('["1", "a", "b"]')
    (tmp_path / "train.csv").write_bytes(written(rows_of(IMAGES[:3], [2, 0, 1])))
    (tmp_path / "test.csv").write_bytes(written(rows_of(IMAGES[:2], [2, "b"])))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("1", "a", "b")
    assert dataset.split("train").labels().tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"test\.csv, line 2: expected .* the number of a class"):
        dataset.split("test")
    (tmp_path / "train.csv").write_bytes(written(rows_of(IMAGES[:3], [2, 0, 3])))
    with pytest.raises(DataError, match=r"expected labels 0 to 2.*found 3 for example 2"):
        open_dataset(tmp_path).split("train").load()


def test_a_folder_as_kaggle_gives_it(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(PLAIN)
    (tmp_path / "test.csv").write_bytes(written([row[1:] for row in ROWS], names(16)))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n2,0\n")
    heard: list[Event] = []
    dataset = open_dataset(tmp_path, emit=heard.append)
    assert (dataset.form, dataset.own_splits, dataset.classes) == (
        "CSV of pixels",
        ("train",),
        DIGITS[: LABELS.max() + 1],
    )
    notes = [event.text for event in heard if isinstance(event, Noted)]
    assert notes == [
        f"left out {tmp_path}/sample_submission.csv: a sample of answers, which are no labels",
        f"left out {tmp_path}/test.csv: a table without a column of labels "
        "(deepcnn predict reads it)",
    ]
    with pytest.raises(DataError, match=r"test\.csv: expected a column of labels.*only pixels"):
        open_dataset(tmp_path / "test.csv")
    held = open_dataset(DataSpec(data=str(tmp_path), validation_size=2))
    assert {split: len(held.split(split)) for split in held.splits} == {"train": 5, "validation": 2}


def test_splits_and_shards_by_name(tmp_path: Path) -> None:
    for name, part in (
        ("mnist_train-2.csv", slice(0, 3)),
        ("mnist_train-10.csv.gz", slice(3, 5)),
        ("mnist_test.csv", slice(5, 7)),
    ):
        content = written(ROWS[part])
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "mnist_test.csv.gz").write_bytes(b"a copy that gzip -k has left")
    dataset = open_dataset(tmp_path)
    train = dataset.split("train").load()
    assert np.array_equal(train.images, IMAGES[:5])
    assert np.array_equal(train.labels, LABELS[:5])
    assert np.array_equal(dataset.split("test").load().images, IMAGES[5:])


def test_a_survey_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(PLAIN)
    found = survey(open_dataset(tmp_path).split("train"), lambda *_: None)
    assert found.counts.tolist() == np.bincount(LABELS).tolist()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"id,label\n1,cat\n", False),
        (b"something else", False),
        (b"", False),
        (b"\xff\xfe\x00", False),
        (b'"open\n', False),
        (written([["1.png", "cat", *["0"] * 20]], ["id", "label", *names(20)]), False),
        (written([["a.png", *["0"] * 16]], ["image_id", *names(16)]), False),
        (written([["cat", *["word"] * 16]]), False),
        (written([["1"] * 15]), False),
        (written([], ["label", *names(16)]), True),
        (written([], ["label", *["word"] * 16]), False),
        (written([["cat", *["0"] * 16]]), True),
        (written([["1", *["0"] * 16]], ["id", *names(16)]), True),
    ],
    ids=repr,
)
def test_which_tables_are_of_pixels(tmp_path: Path, content: bytes, expected: bool) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    assert (head_of(path) is not None) == expected


@pytest.mark.parametrize(
    ("header", "row", "label", "shape"),
    [
        (names(49), None, None, (7, 7, 1)),  # and not 4 by 4 by 3 after a label
        (None, 49, 0, (4, 4, 3)),
        (None, 15, None, None),
        (None, 16, None, (4, 4, 1)),
        (None, 17, 0, (4, 4, 1)),
        (None, 48, None, (4, 4, 3)),
    ],
)
def test_which_column_is_the_label(
    tmp_path: Path,
    header: list[str] | None,
    row: int | None,
    label: int | None,
    shape: tuple[int, ...] | None,
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(written([["1"] * (row or len(header or []))], header))
    head = head_of(path)
    assert (head and head.columns.label, head and head.shape) == (label, shape)


def changed(row: int, column: int, value: str) -> bytes:
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return b"\n".join(",".join(each).encode() for each in [["label", *names(16)], *rows]) + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(2, 3, "256"), r"x\.csv, line 4, column 4: expected .* 0 to 255, found '256'"),
        (changed(2, 16, "1000"), r"line 4, column 17: .* found '1000'"),
        (changed(0, 1, "-1"), r"line 2, column 2: .* found '-1'"),
        (changed(6, 5, "0.5"), r"line 8, column 6: .* found '0.5'"),
        (changed(6, 5, "1e2"), r"line 8, column 6: .* found '1e2'"),
        (changed(6, 5, "NaN"), r"line 8, column 6: .* found 'NaN'"),
        (changed(1, 1, ""), r"line 3, column 2: .* found nothing"),
        (changed(1, 16, ""), r"line 3, column 17: .* found nothing"),
        (changed(1, 2, '"7"'), r"line 3, column 3: .* found '\"7\"'.* digits alone"),
        (changed(1, 2, " 7"), r"line 3, column 3: .* found ' 7'"),
        (changed(1, 2, "0007"), r"line 3, column 3: .* found '0007'"),
        (changed(1, 2, "\xff" * 80), r"line 3, column 3: .* found '\\xc3\\xbf.*'…"),
        (changed(1, 2, "1\r2"), r"line 3, column 3: .* found '1\\r2'"),
        (changed(1, 0, "-1"), r"line 3: expected as its label .* found '-1'"),
        (changed(1, 0, "1.0"), r"line 3: expected as its label .* found '1.0'"),
        (changed(1, 0, "nan"), r"line 3: expected as its label .* found 'nan'"),
        (changed(1, 0, ""), r"line 3: expected as its label .* found nothing"),
        (changed(1, 0, "65536"), r"line 3: expected as its label .* 0 to 65,535.* found '65536'"),
        (changed(1, 0, '"a'), r"line 3: expected as its label"),
        (changed(1, 0, "x" * 201), r"line 3: expected text with labels of at most 200 bytes"),
        (changed(4, 0, "x\0"), r"line 6: expected text .* found a NUL byte"),
        (changed(4, 3, "\0"), r"line 6: expected text .* found a NUL byte"),
        (changed(4, 0, "\xff").replace(b"\xc3", b""), r"line 6: .* a name in UTF-8, found '.xbf'"),
        (changed(3, 3, "1,2"), r"line 5: expected 17 columns, as in the first line, found 18"),
        (changed(3, 3, "1\n2"), r"line 5: expected 17 columns, as in the first line, found 4"),
        (PLAIN[:-9], r"line 8: expected 17 columns, as in the first line, found 1"),
        (PLAIN.replace(b"\n", b"\n\n"), r"line 2: expected 17 columns, .* found 1"),
        (PLAIN + b"\n\n1", r"line 9: expected 17 columns, .* found 1"),
        (b"label," + ",".join(names(16)).encode(), r"line 2: expected rows after the header"),
        (written([["1"] * 18]), r"line 1: expected, beside a label, .* found 18 of 18 columns"),
        (written([["1"] * 30], ["label", *names(29)]), r"n² columns or 3·n², found 29 of 30"),
        (gzip.compress(PLAIN)[:-9], r"expected a whole gzip stream"),
        (gzip.compress(PLAIN)[:-8] + bytes(8), r"expected a whole gzip stream"),
        (b"\x1f\x8b", r"expected a whole gzip stream"),
    ],
    ids=message_id,
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(opened(path))


def test_what_is_wrong_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each field of a table, whose label is anywhere, in pieces of any size."""
    for place, piece, label in ((0, 3, "cat"), (8, 100, "7"), (16, 10**6, "7")):
        monkeypatch.setattr(csv_text, "PIECE", piece)
        header = [*names(16)[:place], "label", *names(16)[place:]]
        for row in (0, 2):
            for column in set(range(17)) - {place}:
                rows = [[*r[1 : place + 1], label, *r[place + 1 :]] for r in ROWS[:3]]
                for wrong in ("256", "", "x", "1.", "0000"):
                    rows[row][column] = wrong
                    path = tmp_path / "x.csv"
                    path.write_bytes(written(rows, header))
                    message = rf"line {row + 2}, column {column + 1}: .* found '?{wrong}"
                    with pytest.raises(DataError, match=message):
                        read(opened(path))


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Is a directory"):
        head_of(tmp_path)
    with pytest.raises(DataError, match=r"none.csv: cannot be read \(No such file"):
        head_of(tmp_path / "none.csv")


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(PLAIN)
    shard = opened(path)
    path.write_bytes(written(ROWS[:4], ["label", *names(16)]))
    with pytest.raises(DataError, match=r"expected 7 rows, found fewer.*changed"):
        read(shard)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read(shard)


def test_closing_early_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_bytes(PLAIN)
    check_early_closing(lambda: opened(tmp_path / "x.csv"), monkeypatch)


def test_memory_and_time_are_bounded_whatever_the_file(tmp_path: Path) -> None:
    def packed(piece: bytes, times: int, head: bytes = b"") -> Path:
        path = tmp_path / "x.csv.gz"
        with gzip.open(path, "wb", compresslevel=5) as file:
            file.write(head)
            for _ in range(times):
                file.write(piece)
        return path

    line = written([["1", *["0"] * 784]])
    bomb = packed(line * 600, 140)  # 130 MB from 0.2 MB
    assert peak_bytes(lambda: opened(bomb)) < 2**25
    with pytest.raises(DataError, match=r"at most .* bytes unpacked, found more"):
        opened(bomb)
    columns = packed(b"0," * 2**20, 20)  # 20 million columns in one line
    assert peak_bytes(lambda: opened(columns)) < 2**25
    with pytest.raises(DataError, match="line 1: expected lines of at most 8,388,608 bytes"):
        opened(columns)
    later = packed(b"0" * 2**20, 20, PLAIN)
    assert peak_bytes(lambda: opened(later)) < 2**26
    with pytest.raises(DataError, match="line 9: expected lines of at most 8,388,608 bytes"):
        opened(later)
    blank = packed(b"\n" * 2**20, 20, PLAIN)
    assert peak_bytes(lambda: opened(blank)) < 2**26


def test_a_table_is_read_in_pieces(tmp_path: Path) -> None:
    line = written(rows_of(examples(1, 28, 28, 1)[0], [1]))
    path = tmp_path / "train.csv"
    path.write_bytes(line * 10_000)  # 28 MB

    def through() -> None:
        shard = opened(path)
        for _ in shard.blocks(0, len(shard), 1000):
            pass
        raise DataError("read")

    assert peak_bytes(through) < 8e6


valid = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.binary(min_size=16 * count, max_size=16 * count),
        st.lists(st.sampled_from(["0", "7", "a", "12", "é"]), min_size=count, max_size=count),
        st.integers(0, 16),
        st.sampled_from(["\n", "\r\n"]),
    )
)


@settings(max_examples=100, deadline=None)
@given(valid, st.integers(1, 40))
def test_any_table_is_read_as_it_was_written(
    table: tuple[bytes, list[str], int, str], size: int
) -> None:
    pixels, kinds, place, end = table
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 4, 4, 1)
    rows = [[*row[1 : place + 1], row[0], *row[place + 1 :]] for row in rows_of(images, kinds)]
    header = [*names(16)[:place], "label", *names(16)[place:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        path.write_bytes(written(rows, header, end))
        found = open_dataset(path)
        source = found.split("train")
        blocks = list(source.blocks(size))
        assert np.array_equal(np.concatenate([some for some, _ in blocks]), images)
        labels = np.concatenate([numbers for _, numbers in blocks])
        numbered = all(map(str.isdigit, kinds))
        assert [found.classes[label] for label in labels] == kinds
        assert not numbered or labels.tolist() == [*map(int, kinds)]


@settings(max_examples=300, deadline=None)
@given(damaged(PLAIN) | damaged(gzip.compress(PLAIN, mtime=0)) | st.binary(max_size=200))
def test_any_bytes_give_what_csv_reads_or_the_one_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(content)
        try:
            head = head_of(path)
            if head is None or head.columns.label is None:
                return
            images, _ = read(opened(path))
        except DataError:
            return
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        assert np.array_equal(images.reshape(len(images), -1), by_csv(content, head))


def by_csv(content: bytes, head: Head) -> NDArray[np.uint8]:
    text = content[head.start :].decode(errors="replace").replace("\r\n", "\n").rstrip("\r\n")
    rows = [row.split(",") for row in text.split("\n")]
    where = np.arange(head.columns.count)[head.columns.pixels].tolist()
    return np.array([[int(row[i]) for i in where] for row in rows], np.uint8)


def test_what_is_written_is_what_python_writes(tmp_path: Path) -> None:
    images, labels = examples(9, 5, 5, 3)
    labels[3:5] = 0, 65_535
    buffer = io.BytesIO()
    classes = tuple(map(str, range(65_536)))
    blocks: list[Block] = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    pixel_csv.write(buffer, ToWrite(9, (5, 5, 3), classes, blocks))
    expected = written(rows_of(images, labels.tolist()), ["label", *names(75)])
    assert buffer.getvalue() == expected
    (tmp_path / "train.csv").write_bytes(buffer.getvalue())
    found = load_dataset(tmp_path, "train")
    assert isinstance(found, Arrays)
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)
