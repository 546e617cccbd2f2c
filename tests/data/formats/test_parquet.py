"""Parquet files of pictures, as Hugging Face's `datasets` writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from deepcnn.data.formats import parquet
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers import foreign
from tests.helpers.shards import RANGES, check_early_closing, damaged, read

FILE = "train-00000-of-00001.parquet"


def test_the_error_names_the_extra_where_pyarrow_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign.folder(tmp_path, FILE)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"\.parquet: .*Run pip install 'deepcnn\[parquet\]'\.$"):
        open_dataset(tmp_path)


@pytest.fixture(name="arrow")
def _arrow() -> Any:
    return pytest.importorskip("pyarrow", reason="the extra parquet is not installed")


@pytest.mark.parametrize("place", ["", "data"])
def test_what_hugging_face_wrote(tmp_path: Path, place: str, arrow: Any) -> None:
    foreign.folder(tmp_path / place, FILE)
    data = open_dataset(tmp_path)
    assert (data.form, data.own_splits, data.classes) == ("Parquet", ("train",), foreign.NAMES)
    (shard,) = data.split("train").shards
    assert (len(shard), shard.shape, shard.seekable) == (7, (6, 5, 3), True)
    for start, stop, size in RANGES:
        images, labels = read(shard, start, stop, size)
        assert np.array_equal(images, foreign.expected()[start:stop])
        assert labels.tolist() == foreign.LABELS[start:stop]


def test_closing_early_closes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow: Any
) -> None:
    path = foreign.folder(tmp_path, FILE)
    check_early_closing(lambda: open_dataset(path).split("train").shards[0], monkeypatch)


def test_a_row_group_that_lies_before_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow: Any
) -> None:
    from pyarrow.parquet import ParquetFile

    asked: list[list[int]] = []
    plain = ParquetFile.iter_batches

    def spy(self: Any, *arguments: Any, row_groups: list[int], **more: Any) -> Any:
        asked.append(row_groups)
        return plain(self, *arguments, row_groups=row_groups, **more)

    found = parquet.ParquetPictures(foreign.folder(tmp_path, FILE) / FILE)
    monkeypatch.setattr(ParquetFile, "iter_batches", spy)
    assert [label for part in found.parts(4, 6, 9) for _, label in part] == foreign.LABELS[4:6]
    assert asked == [[1]]  # rows 3 to 5
    asked.clear()
    list(found.parts(2, 7, 2))
    assert asked == [[0], [1], [2]]


def write(path: Path, arrow: Any, **columns: Any) -> Path:
    from pyarrow.parquet import write_table

    write_table(arrow.table(columns), path)
    return path


def test_columns_that_other_programs_name(tmp_path: Path, arrow: Any) -> None:
    """Bytes without a struct, and a label without names."""
    path = write(tmp_path / "test.parquet", arrow, img=foreign.FILES, labels=foreign.LABELS)
    found = load_dataset(path, "test")
    assert np.array_equal(found.images, foreign.expected())
    assert found.classes == ("0", "1", "2")


def test_of_two_kinds_of_labels_the_fine_ones_count(tmp_path: Path, arrow: Any) -> None:
    image = [{"bytes": content, "path": None} for content in foreign.FILES]
    told = (
        '{"info": {"features": {"img": {"_type": "Image"}, "coarse_label": {"_type": "ClassLabel"'
    )
    told += ', "names": ["x"]}, "fine_label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}}}'
    table = arrow.table({"img": image, "coarse_label": [0] * 7, "fine_label": foreign.LABELS})
    from pyarrow.parquet import write_table

    write_table(table.replace_schema_metadata({"huggingface": told}), tmp_path / "train.parquet")
    heard: list[Event] = []
    data = open_dataset(tmp_path, emit=heard.append)
    assert data.classes == ("a", "b", "c")
    assert data.split("train").load().labels.tolist() == foreign.LABELS
    note, _ = [event.text for event in heard if isinstance(event, Noted)]
    assert note.endswith("the labels are those of 'fine_label'; passed over 'coarse_label'")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["a.png"], "label": [0]}, r"found image \(string\), label \(int64\)"),
        ({"image": [b"x"]}, r"and one of labels.*found image \(binary\)"),
        ({"image": [b"x"], "label": ["cat"]}, r"label \(string\)"),
        ({"image": [b"x", None], "label": [0, 0]}, "row 1: expected the bytes of a picture"),
        ({"image": [{"bytes": None, "path": "a"}], "label": [0]}, "row 0: expected the bytes"),
        ({"image": [b"x"], "label": [-1]}, "row 0: expected a label of at least 0.*found -1"),
        ({"image": [b"x", b"x"], "label": [0, None]}, "row 1: .*found None"),
        ({"image": [b"x"], "label": [0]}, r"1 of 1 files give no picture: .*x\.parquet, row 0: "),
    ],
)
def test_other_tables_are_refused_naming_the_row(
    tmp_path: Path, columns: dict[str, Any], message: str, arrow: Any
) -> None:
    if columns["image"][-1] is None:
        columns = columns | {"image": arrow.array(columns["image"], arrow.binary())}
    elif isinstance(columns["image"][0], dict):
        kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
        columns = columns | {"image": arrow.array(columns["image"], kind)}
    path = write(tmp_path / "x.parquet", arrow, **columns)
    with pytest.raises(DataError, match=rf"x\.parquet.*{message}"):
        load_dataset(path, "train")


def test_a_row_group_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow: Any
) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 100)
    with pytest.raises(DataError, match=r"\.parquet: expected row groups of at most 100 bytes"):
        load_dataset(foreign.folder(tmp_path, FILE), "train")


@settings(max_examples=80, deadline=None)
@given(damaged((foreign.FOREIGN / FILE).read_bytes()))
def test_any_file_gives_pictures_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    path.write_bytes(content)
    try:
        found = load_dataset(path, "train")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert len(found.images) == len(found.labels) > 0
