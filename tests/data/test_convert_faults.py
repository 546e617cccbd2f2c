"""Conversion that is refused, or fails midway, leaves nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.convert import FORMS, Form, convert
from deepcnn.data.formats import cifar
from deepcnn.data.splits import Split
from deepcnn.errors import DataError
from deepcnn.events import Event
from tests.helpers.conversion import (
    assert_same,
    contents,
    converted,
    load,
    made,
    splits_of,
    store_npz,
)

pytestmark = pytest.mark.usefixtures("fast_disk")
FSYNC = os.fsync
FIRST = made(20, 32, 32, 3)
REFUSED: list[tuple[str, dict[Split, Arrays], dict[str, Any], str]] = [
    (
        "cifar",
        splits_of(made(20, 28, 28, 1)),
        {},
        r"^cifar: expected images of 32×32×3, found 28×28×1; choose tfrecord, npz, folder or csv$",
    ),
    (
        "cifar",
        splits_of(made(20, 32, 32, 4), made(3, 32, 32, 4)),
        {},
        r"^cifar: expected images of 32×32×3, found 32×32×4; choose tfrecord or npz$",
    ),
    (
        "cifar",
        splits_of(made(20, 32, 32, 3, classes=tuple(map(str, range(257))))),
        {},
        r"^cifar: expected at most 256 classes, found 257; choose tfrecord, npz, folder or csv$",
    ),
    (
        "folder",
        splits_of(made(20, 5, 7, 2)),
        {},
        r"^folder: expected images with 1 or 3 channels, found 5×7×2; choose tfrecord or npz$",
    ),
    (
        "folder",
        splits_of(FIRST, made(3, 32, 31, 3)),
        {},
        r"validation\.npz: expected images of 32×32×3, as the train split has .* found 32×31×3",
    ),
    (
        "folder",
        splits_of(made(20, 32, 32, 3, classes=("a", ""))),
        {},
        r"^folder: Class '': expected a name .* class; choose tfrecord, npz, cifar or csv$",
    ),
    (
        "folder",
        splits_of(made(20, 5, 5, 3, classes=("a", "x" * 201))),
        {},
        r"^folder: Class 'xxx.* 1 to 200 bytes in .* found 201\..*; choose tfrecord, npz or csv$",
    ),
    (
        "folder",
        splits_of(made(20, 5, 5, 3, classes=("a", "%" * 100))),
        {},
        r"^folder: expected class names that make folder names of at most 255 bytes, found 300",
    ),
    (
        "folder",
        {"test": FIRST},
        {},
        r"^folder: expected a train split, found only test; choose tfrecord, npz, cifar or csv$",
    ),
    (
        "npz",
        splits_of(made(20, 5, 5, 3, classes=("a", "b", "x" * 2**23))),
        {},
        r"^npz: expected class names that take at most 67,108,864 bytes.*; choose tfrecord or csv$",
    ),
    ("tfrecord", splits_of(FIRST), {"shards": 0}, r"^shards: expected at least 1, found 0$"),
    ("folder", splits_of(FIRST), {"shards": 2}, r"^shards: expected 1, as a folder"),
    (
        "npz",
        splits_of(FIRST, made(6, 32, 32, 3)),
        {"shards": 7},
        r"^shards: expected at most 6, the number of validation examples, found 7$",
    ),
    (
        "csv",
        splits_of(made(20, 5, 7, 3)),
        {},
        r"^csv: expected square images of at least 4 by 4, with 1 or 3 channels, found 5×7×3; ",
    ),
    ("csv", splits_of(made(20, 3, 3, 1)), {}, r"^csv: expected square .* found 3×3×1; choose "),
    ("csv", splits_of(made(20, 5, 5, 2)), {}, r"^csv: .* found 5×5×2; choose tfrecord or npz$"),
    ("csv", splits_of(made(2, 1500, 1500, 1)), {}, r"^csv: expected images that take a line of"),
    (
        "zip",
        splits_of(FIRST),
        {},
        r"^to: expected tfrecord, npz, folder, cifar or csv, found 'zip'$",
    ),
    ("npz", splits_of(FIRST), {"validation_size": 20}, r"^validation_size: expected 0 to 19"),
    (
        "npz",
        splits_of(FIRST, FIRST),
        {"validation_size": 2},
        r"^validation_size: expected 0, as .* has a validation split of its own, found 2$",
    ),
    (
        "npz",
        {"test": FIRST},
        {"validation_size": 2},
        r"a train split, found only test\. Name",
    ),
]


@pytest.mark.parametrize(
    ("to", "splits", "options", "message"), REFUSED, ids=[case[-1] for case in REFUSED]
)
@pytest.mark.parametrize("empty", [False, True])
def test_refused_beforehand(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: Form,
    splits: dict[Split, Arrays],
    options: dict[str, Any],
    message: str,
    empty: bool,
) -> None:
    start = store_npz(tmp_path / "start", splits)
    before = contents(tmp_path)
    if empty:
        (tmp_path / "x").mkdir()
        before["x"] = b""

    def no_directory(self: Path, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"{self} made before all is checked")

    monkeypatch.setattr(Path, "mkdir", no_directory)
    with pytest.raises(DataError, match=message):
        converted(start, tmp_path / "x", to, **options)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("full", r"full: expected a directory that is new or empty, found other files\. Nothing"),
        ("file", r"file: expected a directory that is new or empty, found a file"),
        ("loop", r"loop: (cannot be read|cannot be written)"),
        ("start", r"start: expected a directory that is new or empty, found other files"),
        ("start/x", r"start/x: expected a place outside of the source .*start\. Choose another"),
        ("link/x", r"start/x: expected a place outside of the source"),
        ("file/x", r"x: cannot be written"),
        ("x" * 250, r"xxx: cannot be written \(File name too long\)"),
    ],
)
def test_targets_that_are_refused(tmp_path: Path, target: str, message: str) -> None:
    start = store_npz(tmp_path / "start", splits_of(FIRST))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/.hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("start")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        convert(start, tmp_path / target, "tfrecord")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "full/.hidden").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = store_npz(tmp_path / "start", splits_of(FIRST))
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "x")
    with pytest.raises(DataError, match="found the root of a file system; name a directory in it"):
        convert(start, tmp_path / "x", "npz")
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize("kind", ["empty", "link", "dangling", "deep", "home", "beside"])
def test_targets_that_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    start = store_npz(tmp_path / "start", splits_of(FIRST))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("there")
    monkeypatch.setenv("HOME", str(tmp_path))
    source = start / "train.npz" if kind == "beside" else start
    target = {"deep": tmp_path / "a/b/c", "home": Path("~/x"), "beside": start / "x"}.get(
        kind, tmp_path / kind
    )
    convert(source, target, "tfrecord")
    assert_same(load(target.expanduser()), splits_of(FIRST))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [(20, 19, r"'labels' as integers \[20\].* found int64 \[19\]"), (19, 20, r"\[19\].*\[20\]")],
)
def test_counts_that_disagree(tmp_path: Path, images: int, labels: int, message: str) -> None:
    (tmp_path / "start").mkdir()
    np.savez(
        tmp_path / "start/train.npz",
        images=FIRST.images[:images],
        labels=FIRST.labels[:labels],
    )
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "start", tmp_path / "x", "tfrecord")
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


def test_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start/data_batch_1.bin").write_bytes(cifar.TEN.encode(FIRST.images, FIRST.labels))
    (tmp_path / "start/batches.meta.txt").write_text("a b c d e f g h b j")
    with pytest.raises(DataError, match="expected names that differ, found 'b' twice"):
        convert(tmp_path / "start", tmp_path / "x", "tfrecord")
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_source_leaves_nothing(
    tmp_path: Path, real: dict[Split, Arrays], to: Form, split: Split
) -> None:
    start = tmp_path / "start"
    convert(store_npz(tmp_path / "first", real), start, "tfrecord")
    content = bytearray((start / f"{split}.tfrecords").read_bytes())
    content[-100] ^= 1
    (start / f"{split}.tfrecords").write_bytes(content)
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    for target in ("new", "empty", "a/b"):
        with pytest.raises(DataError, match="checksum disagree"):
            convert(start, tmp_path / target, to)
        assert contents(tmp_path) == before


class Stop(BaseException):
    """As when the user interrupts, or a listener fails."""


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("at", [0, 2])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, cifar_folder: Path, to: Form, at: int
) -> None:
    events: list[Event] = []

    def listener(event: Event) -> None:
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".x.")
        assert hidden.name.endswith(".tmp")
        events.append(event)
        if len(events) > at:
            raise Stop

    with pytest.raises(Stop):
        convert(cifar_folder, tmp_path / "x", to, emit=listener)
    assert len(events) == at + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", FORMS)
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, cifar_folder: Path, monkeypatch: pytest.MonkeyPatch, to: Form
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"x: cannot be written \(No space left .* free space"):
        convert(cifar_folder, tmp_path / "x", to)
    assert list(tmp_path.iterdir()) == []


def test_another_that_came_first_is_kept(tmp_path: Path, cifar_folder: Path) -> None:
    def listener(event: Event) -> None:
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x/file").write_text("mine")

    with pytest.raises(DataError, match="x: cannot be written"):
        convert(cifar_folder, tmp_path / "x", "npz", emit=listener)
    assert contents(tmp_path) == {"x/file": b"mine"}


@pytest.mark.parametrize("to", FORMS)
def test_all_is_on_the_disk_before_it_appears(
    tmp_path: Path, cifar_folder: Path, monkeypatch: pytest.MonkeyPatch, to: Form
) -> None:
    flushed: set[int] = set()
    before: set[int] = set()

    def fsync(handle: int) -> None:
        FSYNC(handle)
        flushed.add(os.fstat(handle).st_ino)

    plain = Path.replace

    def replace(self: Path, target: Path) -> Path:
        before.clear()
        before.update(flushed)
        return plain(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    convert(cifar_folder, tmp_path / "a/x", to)
    written = [tmp_path / "a/x", *(tmp_path / "a/x").rglob("*")]
    assert {path.stat().st_ino for path in written} <= before
    assert {tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino} <= flushed
