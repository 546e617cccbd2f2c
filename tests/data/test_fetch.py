from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
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

from deepcnn.data import catalog, download
from deepcnn.data import open as datasets
from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CIFAR10, File
from deepcnn.data.formats import cifar
from deepcnn.data.open import load_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Fetched, SourceFailed


def test_the_real_cifar10(cifar10_train: Arrays, cifar10_test: Arrays) -> None:
    for arrays, count in ((cifar10_train, 50_000), (cifar10_test, 10_000)):
        assert arrays.images.shape == (count, 32, 32, 3)
        assert np.bincount(arrays.labels).tolist() == [count // 10] * 10
        assert arrays.classes[6] == "frog"
    assert cifar10_train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert cifar10_test.labels[:5].tolist() == [3, 8, 8, 0, 6]


def test_validation_is_held_out_by_class_and_always_the_same(cifar10_folder: Path) -> None:
    root = cifar10_folder.parent
    train, held_out, again = (
        load_dataset("cifar10", split, validation_size=5000, data_dir=root)
        for split in ("train", "validation", "validation")
    )
    assert len(train) == 45_000
    assert np.bincount(held_out.labels).tolist() == [500] * 10
    assert np.array_equal(held_out.images, again.images)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in held_out.images)


def test_without_validation_split_it_says_how_to_get_one() -> None:
    with pytest.raises(DataError, match="--validation-size 5000"):
        load_dataset("synthetic", "validation")
    with pytest.raises(DataError, match="expected 0 to 8191, found 8192"):
        load_dataset("synthetic", "train", validation_size=8192)


def test_synthetic_is_the_same_everywhere_and_its_splits_differ() -> None:
    train, test = load_dataset("synthetic", "train"), load_dataset("synthetic", "test")
    assert train.images.shape == (8192, 32, 32, 3)
    assert test.images.shape == (512, 32, 32, 3)
    digest = hashlib.sha256(train.images.tobytes() + test.images.tobytes()).hexdigest()
    assert digest == SYNTHETIC_SHA256
    assert not np.array_equal(train.images[0], test.images[0])


SYNTHETIC_SHA256 = "00551db71b762e5cd60eca23754fcc6b90b882563d7e13e7aa54e728bc0c1287"


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"cifar10, .*synthetic or a path.*Did you mean cifar10\?"):
        load_dataset("cifar-10", "train")


# A small stand-in with the layout of CIFAR-10 lets us fetch, damage and interrupt quickly.


def tiny_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    names = [file.name for file in CIFAR10.files]
    return {
        name: cifar.encode(
            rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), np.arange(4, dtype=np.int64)
        )
        for name in names
    }


def tiny_archive(files: dict[str, bytes], prefix: str = "cifar-10-batches-bin/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; breaks off after `limit` bytes of each of the first `failures` answers."""

    content = b""
    limit = 0
    failures = 0
    resumes = True
    ranges: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted and server.resumes else 0
        self.send_response(206 if start else 200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.failures:
            server.failures -= 1
            body = body[: server.limit]
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


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
    monkeypatch.setitem(catalog.DATASETS, "cifar10", stand_in)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return files


def test_fetching_from_the_home_page(tiny: dict[str, bytes], tmp_path: Path) -> None:
    heard: list[Event] = []
    arrays = load_dataset("cifar10", "train", data_dir=tmp_path, emit=heard.append)
    assert len(arrays) == 20
    assert Fetched("cifar10", str(tmp_path / "cifar-10-batches-bin")) in heard
    assert set(datasets.verify("cifar10", data_dir=tmp_path).values()) == {None}
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {*tiny, "cifar-10-batches-bin", ".cifar-10-batches-bin.lock"}


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_goes_on_or_starts_afresh(
    tiny: dict[str, bytes], server: Server, tmp_path: Path, resumes: bool
) -> None:
    server.failures, server.limit, server.resumes = 1, 1000, resumes
    with pytest.raises(DataError, match="connection ended after 1,000 of"):
        datasets.fetch("cifar10", data_dir=tmp_path)
    assert not list((tmp_path / "cifar-10-batches-bin").iterdir())
    datasets.fetch("cifar10", data_dir=tmp_path)
    assert server.ranges == [None, "bytes=1000-"]
    assert set(datasets.verify("cifar10", data_dir=tmp_path).values()) == {None}


def test_what_the_server_sends_is_verified(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    wrong = dict(tiny)
    wrong["data_batch_2.bin"] = bytes(len(wrong["data_batch_2.bin"]))
    server.content = tiny_archive(wrong)
    dataset = catalog.DATASETS["cifar10"]
    catalog.DATASETS["cifar10"] = dataclasses.replace(
        dataset, urls=((dataset.urls[0][0], len(server.content)),)
    )
    heard: list[Event] = []
    with pytest.raises(DataError, match=r"data_batch_2.bin: expected SHA-256"):
        datasets.fetch("cifar10", data_dir=tmp_path, emit=heard.append)
    assert any(isinstance(event, SourceFailed) for event in heard)
    assert not list((tmp_path / "cifar-10-batches-bin").iterdir())


def test_without_any_source_it_says_what_to_place_where(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    server.content = b"short"
    with pytest.raises(DataError) as error:
        datasets.fetch("cifar10", data_dir=tmp_path)
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
        place = datasets.fetch("cifar10", data_dir=tmp_path / str(number), source=source)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == tiny
    assert server.ranges == []


def test_from_the_sheets_of_the_npm_package(tiny: dict[str, bytes], tmp_path: Path) -> None:
    """The package's form: sheets as PNG and labels as JSON, rebuilt into the binary files."""
    folder = tmp_path / "package"
    folder.mkdir()
    for sheet_file in tiny:
        images, _ = cifar.decode(tiny[sheet_file], classes=10, name="")
        picture = Image.fromarray(images.reshape(len(images), 1024, 3))
        picture.save(folder / sheet_file.replace(".bin", ".png"))
    (folder / "train_lables.json").write_text(json.dumps([0, 1, 2, 3] * 5))
    (folder / "test_lables.json").write_text(json.dumps([0, 1, 2, 3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_CIFAR10_RECORDS", 4)
        place = datasets.fetch("cifar10", data_dir=tmp_path / "data", source=folder)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == tiny
        (folder / "test_lables.json").write_text(json.dumps([0, 1, 2, 10]))
        with pytest.raises(DataError, match=r"test_lables.json: expected 4 labels of 0 to 9"):
            datasets.fetch("cifar10", data_dir=tmp_path / "other", source=folder)


def test_hostile_archives_are_refused(tiny: dict[str, bytes], tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(DataError, match="not a regular file"):
        datasets.fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    archive.write_bytes(tiny_archive({"../../../outside.bin": b"x"}))
    with pytest.raises(DataError, match="expected it to hold"):
        datasets.fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    large = dict(tiny)
    large["data_batch_1.bin"] = bytes(40_000_000)
    archive.write_bytes(tiny_archive(large))
    with pytest.raises(DataError, match="expected at most 30,730,000 bytes, found 40,000,000"):
        datasets.fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    archive.write_bytes(tiny_archive(tiny)[:-2000])
    with pytest.raises(DataError, match="expected a whole tar archive"):
        datasets.fetch("cifar10", data_dir=tmp_path / "data", source=archive)
    with pytest.raises(DataError, match="there is no such file"):
        datasets.fetch("cifar10", data_dir=tmp_path / "data", source=tmp_path / "nowhere")
    assert not (tmp_path.parent / "outside.bin").exists()


def test_a_damaged_file_is_named_and_mended(tiny: dict[str, bytes], tmp_path: Path) -> None:
    folder = datasets.fetch("cifar10", data_dir=tmp_path)
    path = folder / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"data_batch_3.bin: expected SHA-256 .*Mend it with"):
        load_dataset("cifar10", "train", data_dir=tmp_path)
    assert load_dataset("cifar10", "test", data_dir=tmp_path)
    datasets.fetch("cifar10", data_dir=tmp_path)
    assert path.read_bytes() == tiny["data_batch_3.bin"]


def test_two_processes_fetch_at_once(
    tiny: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=datasets.fetch, args=("cifar10",), kwargs={"data_dir": tmp_path})
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(server.ranges) == 1
    assert set(datasets.verify("cifar10", data_dir=tmp_path).values()) == {None}


def test_a_folder_of_binary_files_is_a_data_set(tmp_path: Path) -> None:
    for name, content in tiny_files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "batches.meta.txt").write_text("a\nb\nc\nd\n")
    arrays = load_dataset(tmp_path, "train")
    assert len(arrays) == 20
    assert arrays.classes == ("a", "b", "c", "d")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"expected a folder of class folders"):
        load_dataset(empty, "train")


def test_npm_that_fails_is_a_source_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho no such package >&2\nexit 3\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(download.SourceUnavailableError, match="status 3: no such package"):
        download.from_npm("x@1", tmp_path, size=10, progress=lambda *_: None)


def test_arrays_refuse_what_does_not_fit() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match=r"expected uint8 \[N, height, width, channels\]"):
        Arrays(images[0], np.zeros(2, np.int64), ("a",))
    with pytest.raises(
        DataError, match=r"expected int64 \[2\], one for each image, found int64 \[3\]"
    ):
        Arrays(images, np.zeros(3, np.int64), ("a",))
    with pytest.raises(
        DataError, match="expected 0 to 0, the index of a class, found 1 for example 1"
    ):
        Arrays(images, np.array([0, 1]), ("a",))
