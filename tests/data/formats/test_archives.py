"""Archives of class folders give what the folder gives, by whichever program they were written."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from deepcnn.data.formats import archives, inflated, zip_file
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers import foreign
from tests.helpers.pictures import ANY, write
from tests.helpers.shards import RANGES, damaged, peak_bytes, read

TREE = {
    f"train/{foreign.NAMES[label]}/deep/{i % 3}{'x' * i}.png": content
    for i, (label, content) in enumerate(zip(foreign.LABELS, foreign.FILES, strict=True))
}
TREE |= {f"test/{name}/1.png": ANY for name in foreign.NAMES}
TREE |= {"train/cat/notes.txt": b"x", "__MACOSX/train/cat/._1.png": b"x", "train/dog/.a.png": b"x"}


def by_zip(folder: Path, target: Path) -> None:
    if shutil.which("zip"):  # Info-ZIP; else what Python has
        subprocess.run(
            ["zip", "-qr", target.absolute(), folder.name], cwd=folder.parent, check=True
        )
    else:
        shutil.make_archive(str(target.with_suffix("")), "zip", folder.parent, folder.name)


def by_python(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder))


def by_tar(folder: Path, target: Path) -> None:
    packing = "z" if target.name.endswith("gz") else ""
    subprocess.run(
        ["tar", f"c{packing}f", target.absolute(), folder.name], cwd=folder.parent, check=True
    )


@pytest.mark.parametrize(
    ("name", "pack", "seekable"),
    [
        ("pets.zip", by_zip, True),
        ("PETS.ZIP", by_python, True),
        ("pets.tar", by_tar, True),
        ("pets.tar.gz", by_tar, False),
        ("pets.tgz", by_tar, False),
    ],
)
def test_an_archive_is_the_folder_that_it_would_unpack_to(
    tmp_path: Path, name: str, pack: Callable[[Path, Path], None], seekable: bool
) -> None:
    folder = write(tmp_path / "pets", TREE)
    pack(folder, tmp_path / name)
    heard: list[Event] = []
    data = open_dataset(tmp_path / name, emit=heard.append)
    same = open_dataset(folder)
    assert (data.own_splits, data.classes) == (("train", "test"), foreign.NAMES)
    for split in data.own_splits:
        (shard,) = data.split(split).shards
        expected = same.split(split).load()
        assert shard.seekable == seekable
        found = data.split(split).load()
        order = np.arange(len(expected))
        if not seekable:  # the archive's own order, which is that of no other
            order = np.array(
                [
                    next(j for j, image in enumerate(expected.images) if np.array_equal(image, one))
                    for one in found.images
                ]
            )
            if split == "train":
                assert sorted(order.tolist()) == list(range(7))
        assert np.array_equal(found.images, expected.images[order])
        if split == "train":  # the test images are all the same
            assert np.array_equal(found.labels, expected.labels[order])
            for start, stop, size in RANGES:
                assert np.array_equal(read(shard, start, stop, size)[0], found.images[start:stop])
        assert sorted(found.labels.tolist()) == sorted(expected.labels.tolist())
    note, rule = [event.text for event in heard if isinstance(event, Noted)]
    assert "2 of 7 pictures have other proportions than 6×5" in rule
    assert "passed over 1 files that are no pictures:" in note
    assert "notes.txt" in note
    assert not list(tmp_path.rglob("*.png")) or sorted(tmp_path.iterdir()) == sorted(
        [folder, tmp_path / name]
    )


def test_names_that_deepcnn_wrote_are_turned_back(tmp_path: Path) -> None:
    files = {"b%2Fc/1.png": ANY, "a/2.png": ANY}
    by_python(write(tmp_path / "plain", files), tmp_path / "plain.zip")
    assert open_dataset(tmp_path / "plain.zip").classes == ("a", "b%2Fc")
    by_python(
        write(tmp_path / "own", {**files, "classes.json": b'["b/c", "a"]'}), tmp_path / "own.zip"
    )
    found = load_dataset(tmp_path / "own.zip", "train")
    assert (found.classes, found.labels.tolist()) == (("b/c", "a"), [0, 1])


def test_names_of_classes_lie_beside_the_classes_and_not_within_them(tmp_path: Path) -> None:
    files = {"all/b/1.png": ANY, "all/a/2.png": ANY, "all/a/classes.json": b'["x", "y"]'}
    by_python(write(tmp_path / "plain", files), tmp_path / "x.zip")
    assert open_dataset(tmp_path / "x.zip").classes == ("a", "b")


def test_zip_with_sizes_of_64_bits(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(ANY)
    content = (tmp_path / "x.zip").read_bytes()
    at = content.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", content, at + 10)
    end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
    end += b"PK\x06\x07" + struct.pack("<IQI", 0, at, 1)
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, NONE, NONE, 0)
    (tmp_path / "x.zip").write_bytes(content[:at] + end)
    assert len(zipfile.ZipFile(tmp_path / "x.zip").namelist()) == 2
    assert len(load_dataset(tmp_path / "x.zip", "train")) == 2


NONE = 0xFFFFFFFF


@pytest.mark.parametrize("name", ["../x/1.png", "/x/1.png", "a/../../1.png", "a\\..\\1.png"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, ANY)
    with tarfile.open(tmp_path / "x.tar", "w") as other:
        info = tarfile.TarInfo(name)
        info.size = len(ANY)
        other.addfile(info, io.BytesIO(ANY))
    for path in (tmp_path / "x.zip", tmp_path / "x.tar"):
        with pytest.raises(DataError, match=r"x\.(zip|tar): expected names inside the archive"):
            open_dataset(path)


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", {"cat/1.png": ANY, "dog/2.png": ANY})
    (folder / "cat" / "passwd.png").symlink_to("/etc/passwd")
    os.link(folder / "cat" / "1.png", folder / "dog" / "hard.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    by_tar(folder, tmp_path / "pets.tar")
    assert len(open_dataset(tmp_path / "pets.tar").split("train")) == 2
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("cat/1.png", ANY)
        info = zipfile.ZipInfo("cat/passwd.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert len(open_dataset(tmp_path / "pets.zip").split("train")) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": ANY, "2.png": ANY}, "2 pictures in none, such as 2.png"),
        ({"notes.txt": b""}, "expected a folder for each class.*found no picture"),
        ({"test/a/1.png": ANY, "val/a/1.png": ANY}, "a folder train/ beside val, test|test, val"),
        ({"train/a/1.png": ANY, "training/b/1.png": ANY}, "one folder for the train split"),
        ({"train/a/1.png": ANY, "test/b/1.png": ANY}, "1 classes 'a', found 'b'"),
    ],
)
def test_archives_of_another_form_are_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    by_python(write(tmp_path / "some", files), tmp_path / "x.zip")
    with pytest.raises(DataError, match=rf"x\.zip: .*{message}"):
        open_dataset(tmp_path / "x.zip")


def bomb(path: Path, size: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(size))
    return path


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "x.zip", 1 << 22)
    for name, value, what in (
        ("MAX_MORE", 0, "bytes in all"),
        ("MAX_ENTRIES", 0, "files"),
        ("MAX_PICTURE_BYTES", 99, "bytes in 'cat/1.png'"),
        ("MAX_NAMES_BYTES", 3, "characters of names"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, value)
            with pytest.raises(DataError, match=rf"x\.zip: expected at most .*{what}"):
                open_dataset(path)
    monkeypatch.setattr(zip_file, "MAX_DIRECTORY_BYTES", 9)
    with pytest.raises(DataError, match="a directory of at most 9 bytes"):
        open_dataset(path)


def test_a_size_that_lies_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "x.zip", 1 << 22)
    content = path.read_bytes().replace(struct.pack("<I", 1 << 22), struct.pack("<I", 1000))
    path.write_bytes(content)
    assert peak_bytes(lambda: load_dataset(path, "train")) < 1 << 20
    with pytest.raises(DataError, match=r"x\.zip: .*'cat/1\.png' of another length"):
        load_dataset(path, "train")
    long = tarfile.TarInfo("cat/1.png")
    long.pax_headers = {"comment": "x" * (1 << 21)}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(long)
    with pytest.raises(DataError, match=r"x\.tar: expected headers of at most"):
        open_dataset(tmp_path / "x.tar")
    monkeypatch.setattr(inflated, "MAX_MORE", 0)
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        zeros = tarfile.TarInfo("cat/1.txt")
        zeros.size = 1 << 22
        archive.addfile(zeros, io.BytesIO(bytes(1 << 22)))
    with pytest.raises(DataError, match=r"x\.tgz: expected a file that unpacks to at most"):
        open_dataset(tmp_path / "x.tgz")


def test_a_file_said_to_lie_beyond_the_archive_takes_no_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.zip", 1 << 10)
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    for place in (at + 20, at + 42):  # packed size, start
        path.write_bytes(content[:place] + struct.pack("<I", 1 << 30) + content[place + 4 :])
        assert peak_bytes(lambda: load_dataset(path, "train")) < 1 << 20
        with pytest.raises(DataError, match=r"x\.zip: .*'cat/1\.png' said to lie beyond"):
            load_dataset(path, "train")


def archive_of(ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cat/1.png", ANY)
            archive.writestr("dog/2.png", ANY)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if ending == ".tgz" else "w") as other:
            for name in ("cat/1.png", "dog/2.png"):
                info = tarfile.TarInfo(name)
                info.size = len(ANY)
                other.addfile(info, io.BytesIO(ANY))
    return buffer.getvalue()


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
def test_any_archive_gives_pictures_or_the_one_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"any{ending}"

    @settings(max_examples=60, deadline=None)
    @given(damaged(archive_of(ending)))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = load_dataset(path, "train")
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            return
        assert len(found) in (1, 2)

    check()
