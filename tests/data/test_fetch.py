from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.data import catalog
from deepcnn.data.catalog import CATALOG, CIFAR10, File
from deepcnn.data.fetch import fetch, verify
from deepcnn.data.formats import cifar
from deepcnn.data.open import load_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Fetched, SourceFailed
from tests.helpers.home_page import Handler, Server, tiny_archive, tiny_files
from tests.helpers.shards import FASHION_MNIST

# A small stand-in with the layout of CIFAR-10 lets us fetch, damage and interrupt quickly.


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, server: Server) -> dict[str, bytes]:
    """Replace CIFAR-10 by the stand-in, its home page by the server, and npm by nothing."""
    files = tiny_files()
    server.content = tiny_archive(files)

    def describe(file: File) -> File:
        content = files[file.name]
        sha256 = hashlib.sha256(content).hexdigest()
        return dataclasses.replace(file, size=len(content), sha256=sha256)

    stand_in = dataclasses.replace(
        CIFAR10,
        train=tuple(map(describe, CIFAR10.train)),
        test=tuple(map(describe, CIFAR10.test)),
        urls=((f"http://127.0.0.1:{server.server_port}/cifar.tar.gz", len(server.content)),),
    )
    monkeypatch.setitem(CATALOG, "cifar10", stand_in)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return files


def test_fetching_from_the_home_page(tiny: dict[str, bytes], tmp_path: Path) -> None:
    heard: list[Event] = []
    arrays = load_dataset("cifar10", "train", data_dir=tmp_path, emit=heard.append)
    assert len(arrays) == 20
    assert Fetched("cifar10", str(tmp_path / "cifar-10-batches-bin")) in heard
    assert set(verify("cifar10", data_dir=tmp_path).values()) == {None}
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {*tiny, "cifar-10-batches-bin", ".cifar-10-batches-bin.lock"}


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_goes_on_or_starts_afresh(
    tiny: dict[str, bytes], server: Server, tmp_path: Path, resumes: bool
) -> None:
    server.failures, server.limit, server.resumes = 1, 1000, resumes
    with pytest.raises(DataError, match="connection ended after 1,000 of"):
        fetch("cifar10", data_dir=tmp_path)
    assert not list((tmp_path / "cifar-10-batches-bin").iterdir())
    fetch("cifar10", data_dir=tmp_path)
    assert server.ranges == [None, "bytes=1000-"]
    assert set(verify("cifar10", data_dir=tmp_path).values()) == {None}


def test_what_the_server_sends_is_verified(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    wrong = dict(tiny)
    wrong["data_batch_2.bin"] = bytes(len(wrong["data_batch_2.bin"]))
    server.content = tiny_archive(wrong)
    dataset = CATALOG["cifar10"]
    CATALOG["cifar10"] = dataclasses.replace(
        dataset, urls=((dataset.urls[0][0], len(server.content)),)
    )
    heard: list[Event] = []
    with pytest.raises(DataError, match=r"data_batch_2.bin: expected SHA-256"):
        fetch("cifar10", data_dir=tmp_path, emit=heard.append)
    assert any(isinstance(event, SourceFailed) for event in heard)
    assert not list((tmp_path / "cifar-10-batches-bin").iterdir())


def test_without_any_source_it_says_what_to_place_where(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    server.content = b"short"
    with pytest.raises(DataError) as error:
        fetch("cifar10", data_dir=tmp_path)
    message = str(error.value)
    assert "there is no npm client on the PATH" in message
    assert "deepcnn data fetch cifar10 --from PATH" in message
    assert str(tmp_path / "cifar-10-batches-bin") in message


def test_from_an_archive_or_a_folder_that_the_user_has(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(server.content)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in tiny.items():
        (folder / name).write_bytes(content)
    for number, source in enumerate((archive, folder)):
        place = fetch("cifar10", data_dir=tmp_path / str(number), source=source)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == tiny
    assert server.ranges == []


def test_from_the_sheets_of_the_npm_package(tiny: dict[str, bytes], tmp_path: Path) -> None:
    """The package's form: sheets as PNG and labels as JSON, rebuilt into the binary files."""
    folder = tmp_path / "package"
    folder.mkdir()
    for sheet_file in tiny:
        images, _ = cifar.TEN.decode(tiny[sheet_file], classes=10, name="")
        picture = Image.fromarray(images.reshape(len(images), 1024, 3))
        picture.save(folder / sheet_file.replace(".bin", ".png"))
    (folder / "train_lables.json").write_text(json.dumps([0, 1, 2, 3] * 5))
    (folder / "test_lables.json").write_text(json.dumps([0, 1, 2, 3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "CIFAR10_RECORDS", 4)
        place = fetch("cifar10", data_dir=tmp_path / "data", source=folder)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == tiny
        (folder / "test_lables.json").write_text(json.dumps([0, 1, 2, 10]))
        with pytest.raises(DataError, match=r"test_lables.json: expected 4 labels of 0 to 9"):
            fetch("cifar10", data_dir=tmp_path / "other", source=folder)


def test_hostile_archives_are_refused(tiny: dict[str, bytes], tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(DataError, match="not a regular file"):
        fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    archive.write_bytes(tiny_archive({"../../../outside.bin": b"x"}))
    with pytest.raises(DataError, match="expected it to hold"):
        fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    large = dict(tiny)
    large["data_batch_1.bin"] = bytes(40_000_000)
    archive.write_bytes(tiny_archive(large))
    with pytest.raises(DataError, match="expected at most 30,730,000 bytes, found 40,000,000"):
        fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    archive.write_bytes(tiny_archive(tiny)[:-2000])
    with pytest.raises(DataError, match="expected a whole tar archive"):
        fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    with pytest.raises(DataError, match="there is no such file"):
        fetch("cifar10", data_dir=tmp_path / "data", source=tmp_path / "nowhere")
    assert not (tmp_path.parent / "outside.bin").exists()


def test_a_damaged_file_is_named_and_mended(tiny: dict[str, bytes], tmp_path: Path) -> None:
    folder = fetch("cifar10", data_dir=tmp_path)
    path = folder / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"data_batch_3.bin: expected SHA-256 .*Mend it with"):
        load_dataset("cifar10", "train", data_dir=tmp_path)
    assert load_dataset("cifar10", "test", data_dir=tmp_path)
    fetch("cifar10", data_dir=tmp_path)
    assert path.read_bytes() == tiny["data_batch_3.bin"]


def test_two_processes_fetch_at_once(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=fetch, args=("cifar10",), kwargs={"data_dir": tmp_path})
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(server.ranges) == 1
    assert set(verify("cifar10", data_dir=tmp_path).values()) == {None}


def test_fashion_mnist_needs_no_download_where_a_package_of_the_system_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_page = (("http://127.0.0.1:9/none.gz", 1),)
    entry = CATALOG["fashion_mnist"]
    entry = dataclasses.replace(entry, installed=FASHION_MNIST, urls=no_page)
    monkeypatch.setitem(CATALOG, "fashion_mnist", entry)
    train = load_dataset("fashion_mnist", "train", data_dir=tmp_path)
    test = load_dataset("fashion_mnist", "test", data_dir=tmp_path)
    assert train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes[9] == "Ankle boot"
    assert train.labels[:3].tolist() == [9, 0, 0]
    assert set(verify("fashion_mnist", data_dir=tmp_path).values()) == {None}
