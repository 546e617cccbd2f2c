"""Answers about the images in a table of pixels, such as Kaggle's `test.csv`."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.inference.load import load
from tests.helpers.predicting import CLASSES, Predict, rows


def table(arrays: Arrays, *, labels: bool) -> bytes:
    flat = arrays.images.reshape(len(arrays), -1)
    names = [f"pixel{i}" for i in range(flat.shape[1])]
    buffer = io.BytesIO()
    head = ",".join(["label", *names] if labels else names)
    rows = np.concatenate([arrays.labels[:, None], flat], 1) if labels else flat
    np.savetxt(buffer, rows, fmt="%d", delimiter=",", header=head, comments="")
    return buffer.getvalue()


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("name", ["test.csv", "test.csv.gz"])
def test_each_row_is_answered_about(
    ask: Predict, tiny_run: Path, cifar10_test: Arrays, tmp_path: Path, labels: bool, name: str
) -> None:
    some = cifar10_test.select(slice(0, 70))
    content = table(some, labels=labels)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    status, out, err = ask(str(path))
    assert (status, err) == (0, "")
    expected = load(tiny_run, device="cpu").probabilities(some.images)
    found = np.array([[float(row[f"p_{each}"]) for each in CLASSES] for row in rows(out)])
    assert np.array_equal(found.astype(np.float32), expected)
    assert [row["path"] for row in rows(out)] == [*map(str, range(70))]


def test_a_table_among_pictures_is_answered_about_in_its_turn(
    ask: Predict, cifar10_test: Arrays, tmp_path: Path
) -> None:
    path = tmp_path / "two.csv"
    path.write_bytes(table(cifar10_test.select(slice(0, 2)), labels=False))
    status, out, _ = ask("photos/1.png", str(path), "photos/2.jpg")
    assert status == 0
    assert [row["path"] for row in rows(out)] == ["photos/1.png", "1", "2", "photos/2.jpg"]


def test_what_is_no_table_of_pixels_is_named(
    ask: Predict, cifar10_test: Arrays, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,label\n1,cat\n")
    status, _, err = ask(str(path))
    assert status == 1
    assert "x.csv: expected a table of pixels" in err
    content = table(cifar10_test.select(slice(0, 3)), labels=False)
    path.write_bytes(content.replace(b"\n", b"\n256", 2))
    status, _, err = ask(str(path))
    assert status == 1
    assert "line 2, column 1: expected a whole number of 0 to 255" in err
    status, _, err = ask(str(path), "--sort-into", str(tmp_path / "sorted"))
    assert status != 0
    assert "leave it out with tables of pixels" in err
