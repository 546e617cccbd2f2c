from __future__ import annotations

import errno
import itertools
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.data import open as datasets
from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CIFAR10
from deepcnn.data.convert import FORMS, Form, convert
from deepcnn.data.formats import cifar, listings, tfrecord
from deepcnn.data.layouts import SPLITS, Split
from deepcnn.data.open import load_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted, Reading
from tests.test_idx import FASHION_MNIST, examples

COUNTS: dict[Split, int] = {"train": 200, "validation": 41, "test": 60}
ODD_NAMES = (
    *("größe ✓", "a\nb", "c/d", "c\\d", "50%", "%41", "A", "%2541", ".hidden", "dot."),
    *(" space ", "cat", "Cat", "train", "test", "\x00nul", "no example", "{}\u2028"),
)


FSYNC = os.fsync


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the disk but the one that is about it."""
    monkeypatch.setattr(os, "fsync", os.fstat)


def load(path: str | Path) -> dict[Split, Arrays]:
    return {split: load_dataset(path, split) for split in datasets.splits(path)}


def assert_same(found: dict[Split, Arrays], expected: dict[Split, Arrays]) -> None:
    assert list(found) == list(expected)
    for split, arrays in expected.items():
        assert found[split].classes == arrays.classes
        assert np.array_equal(found[split].labels, arrays.labels)
        assert np.array_equal(found[split].images, arrays.images)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files by path, and of each folder without any, b""."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def store_npz(folder: Path, splits: dict[Split, Arrays]) -> Path:
    """Write splits as NumPy would, without help of what is tested here."""
    folder.mkdir()
    for split, arrays in splits.items():
        np.savez(folder / f"{split}.npz", images=arrays.images, labels=arrays.labels)
        (folder / "classes.json").write_text(json.dumps(arrays.classes))
    return folder


def made(count: int, *shape: int, classes: tuple[str, ...] = CIFAR10.classes) -> Arrays:
    images, labels = examples(count, *shape)
    return Arrays(images, labels % len(classes), classes)


@pytest.fixture(scope="module")
def real(cifar10_test: Arrays) -> dict[Split, Arrays]:
    """Some hundred real images; the test split has no frog, and the training split no ship."""
    train = cifar10_test.select(cifar10_test.labels != 8)
    test = cifar10_test.select(cifar10_test.labels != 6)
    return {
        "train": train.select(slice(0, 200)),
        "validation": cifar10_test.select(slice(1000, 1041)),
        "test": test.select(slice(2000, 2060)),
    }


@pytest.fixture(scope="module")
def cifar_folder(real: dict[Split, Arrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    for split, arrays in real.items():
        name = "data_batch_1" if split == "train" else f"{split}_batch"
        (folder / f"{name}.bin").write_bytes(cifar.encode(arrays.images, arrays.labels))
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10.classes) + "\n\n")
    return folder


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMS, FORMS)))
def test_round_trips(
    tmp_path: Path, cifar_folder: Path, real: dict[Split, Arrays], first: Form, second: Form
) -> None:
    assert convert(cifar_folder, tmp_path / "a", first) == COUNTS
    assert convert(tmp_path / "a", tmp_path / "b", second) == COUNTS
    assert_same(load(tmp_path / "a"), real)
    assert_same(load(tmp_path / "b"), real)
    convert(tmp_path / "b", tmp_path / "c", "cifar")
    for path in cifar_folder.glob("*.bin"):
        assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("to", FORMS)
def test_the_same_data_give_the_same_bytes(tmp_path: Path, cifar_folder: Path, to: Form) -> None:
    convert(cifar_folder, tmp_path / "a", to)
    convert(cifar_folder, tmp_path / "b", to)
    convert(tmp_path / "a", tmp_path / "c", to)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("shape", "forms"),
    [
        ((28, 28, 1), ("tfrecord", "npz", "folder")),
        ((5, 7, 3), ("tfrecord", "npz", "folder")),
        ((7, 5, 1), ("tfrecord", "npz", "folder")),
        ((1, 1, 3), ("tfrecord", "npz", "folder")),
        ((4, 3, 2), ("tfrecord", "npz")),
        ((4, 3, 4), ("tfrecord", "npz")),
    ],
)
def test_images_of_any_shape(tmp_path: Path, shape: tuple[int, ...], forms: tuple[Form]) -> None:
    splits: dict[Split, Arrays] = {"train": made(30, *shape), "test": made(11, *shape)}
    before = store_npz(tmp_path / "start", splits)
    for form in (*forms, *forms[::-1]):  # each to the next, and back
        after = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        assert convert(before, after, form) == {"train": 30, "test": 11}
        assert_same(load(after), splits)
        before = after


def test_fashion_mnist(tmp_path: Path) -> None:
    convert(FASHION_MNIST, tmp_path / "npz", "npz")
    found = load(tmp_path / "npz")
    assert [len(arrays) for arrays in found.values()] == [60_000, 10_000]
    for split, arrays in found.items():
        expected = load_dataset(FASHION_MNIST, split)
        assert arrays.classes == tuple("0123456789")
        assert np.array_equal(arrays.images, expected.images)
        assert np.array_equal(arrays.labels, expected.labels)


def test_a_named_set_with_the_original_files(tmp_path: Path, cifar10_folder: Path) -> None:
    root = cifar10_folder.parent
    told: list[Event] = []
    counts = convert(
        *("cifar10", tmp_path / "x", "cifar"), shards=5, data_dir=root, emit=told.append
    )
    assert counts == {"train": 50_000, "test": 10_000}
    for file in CIFAR10.files:
        assert (tmp_path / "x" / file.name).read_bytes() == (
            cifar10_folder / file.name
        ).read_bytes()
    assert (tmp_path / "x/batches.meta.txt").read_text().split() == list(CIFAR10.classes)
    reading = [event for event in told if isinstance(event, Reading)]
    assert [event for event in reading if event.done == event.total] == [
        Reading("train", 50_000, 50_000),
        Reading("test", 10_000, 10_000),
    ]
    assert len(reading) > 50
    assert reading == sorted(reading, key=lambda event: (event.what == "test", event.done))


@pytest.mark.parametrize("shards", [1, 3])
def test_shards(tmp_path: Path, real: dict[Split, Arrays], shards: int) -> None:
    store_npz(tmp_path / "start", real)
    many = tuple(f"-{i:05}-of-00003" for i in range(3)) if shards > 1 else ("",)
    expected = {
        "tfrecord": {f"{split}{part}.tfrecords" for split in SPLITS for part in many},
        "npz": {f"{split}{part}.npz" for split in SPLITS for part in many},
        "cifar": {
            "test_batch.bin",
            "batches.meta.txt",
            *(f"data_batch_{i + 1}.bin" for i in range(shards)),
            *([f"validation_batch_{i}.bin" for i in (1, 2, 3)] if shards > 1 else []),
            *(["validation_batch.bin"] if shards == 1 else []),
        },
    }
    forms: tuple[Form, ...] = ("tfrecord", "npz", "cifar")
    for form in forms:
        target = tmp_path / form
        assert convert(tmp_path / "start", target, form, shards=shards) == COUNTS
        names = {path.name for path in target.iterdir()}
        assert names == expected[form] | {"classes.json"}
        assert_same(load(target), real)
        parts = datasets.open_dataset(target, "train").shards
        assert [len(part) for part in parts] == ([66, 67, 67] if shards > 1 else [200])


def test_a_shard_for_each_example_and_blocks_across_shards(tmp_path: Path) -> None:
    splits: dict[Split, Arrays] = {"train": made(2500, 2, 3, 1)}
    store_npz(tmp_path / "start", splits)
    convert(tmp_path / "start", tmp_path / "x", "npz", shards=11)
    parts = datasets.open_dataset(tmp_path / "x", "train").shards
    assert {len(part) for part in parts} == {227, 228}
    assert_same(load(tmp_path / "x"), splits)
    convert(tmp_path / "x/train-00000-of-00011.npz", tmp_path / "y", "tfrecord", shards=227)
    first: dict[Split, Arrays] = {"train": splits["train"].select(slice(0, 227))}
    assert_same(load(tmp_path / "y"), first)
    assert {len(part) for part in datasets.open_dataset(tmp_path / "y", "train").shards} == {1}


def test_blocks_and_shards_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: dict[Split, Arrays] = {"train": made(13, 2, 3, 1)}
    start = store_npz(tmp_path / "start", splits)
    for size, shards in itertools.product([1, 3, 4, 5, 13], [1, 2, 3, 13]):
        monkeypatch.setattr("deepcnn.data.source.BLOCK_BYTES", 6 * size)
        target = tmp_path / f"{size} {shards}"
        convert(start, target, "npz", shards=shards)
        parts = datasets.open_dataset(target, "train").shards
        expected = {1: [13], 2: [6, 7], 3: [4, 4, 5], 13: [1] * 13}[shards]
        assert [len(part) for part in parts] == expected
        assert_same(load(target), splits)


@pytest.mark.parametrize("choice", ["first", "stratified"])
@pytest.mark.parametrize("to", FORMS)
def test_validation_from_train(
    tmp_path: Path, real: dict[Split, Arrays], to: Form, choice: Any
) -> None:
    whole = real["train"]
    start = store_npz(tmp_path / "start", {"train": whole, "test": real["test"]})
    options = {"validation_size": 30, "validation_choice": choice, "validation_seed": 7}
    counts = convert(start, tmp_path / "x", to, **options)
    assert counts == {"train": 170, "validation": 30, "test": 60}
    found = load(tmp_path / "x")
    assert_same({"test": found["test"]}, {"test": real["test"]})
    if choice == "first":
        assert_same(
            found,
            {**real, "train": whole.select(slice(30, None))}
            | {"validation": whole.select(slice(30))},
        )
        return
    place = {image.tobytes(): i for i, image in enumerate(whole.images)}
    train, validation = (
        [place[image.tobytes()] for image in found[split].images]
        for split in ("train", "validation")
    )
    assert train == sorted(train)
    assert validation == sorted(validation) != list(range(30))
    assert sorted(train + validation) == list(range(200))
    share = np.bincount(found["validation"].labels, minlength=10)
    assert np.abs(share - np.bincount(whole.labels, minlength=10) * 30 / 200).max() <= 1
    convert(start, tmp_path / "other", to, **{**options, "validation_seed": 8})
    assert contents(tmp_path / "other") != contents(tmp_path / "x")


@pytest.mark.parametrize("to", FORMS)
def test_names_of_classes(tmp_path: Path, to: Form) -> None:
    arrays = made(170, 32, 32, 3, classes=ODD_NAMES)
    without = arrays.select(arrays.labels != ODD_NAMES.index("no example"))
    splits: dict[Split, Arrays] = {"train": without, "test": without.select(slice(0, 3))}
    start = store_npz(tmp_path / "start", splits)
    convert(start, tmp_path / "x", to)
    assert_same(load(tmp_path / "x"), splits)
    convert(tmp_path / "x", tmp_path / "y", "npz")
    assert_same(load(tmp_path / "y"), splits)
    assert json.loads((tmp_path / "x/classes.json").read_bytes()) == list(ODD_NAMES)
    assert "größe ✓".encode() in (tmp_path / "x/classes.json").read_bytes()
    assert not (tmp_path / "x/batches.meta.txt").exists()
    if to == "folder":
        assert (tmp_path / "x/train/a%0Ab/003.png").is_file() == (without.labels[3] == 1)
        used = {listings.folder_name(ODD_NAMES[label]) for label in without.labels}
        assert {path.name for path in (tmp_path / "x/train").iterdir()} == used


def test_large_pictures_are_as_they_were_with_their_size(tmp_path: Path) -> None:
    splits: dict[Split, Arrays] = {"train": made(3, 20, 150, 3)}
    start = store_npz(tmp_path / "start", splits)
    told: list[Event] = []
    convert(start, tmp_path / "x", "folder", emit=told.append)
    notes = [event.text for event in told if isinstance(event, Noted)]
    assert len(notes) == 1
    assert "above 128 are scaled down" in notes[0]
    assert "20 by 150" in notes[0]
    assert load_dataset(tmp_path / "x", "train").shape == (17, 128, 3)
    sized = load_dataset(tmp_path / "x", "train", image_size=(20, 150))
    assert np.array_equal(sized.images, splits["train"].images)
    convert(tmp_path / "x", tmp_path / "y", "npz", image_size=(20, 150))
    assert_same(load(tmp_path / "y"), splits)


def test_bad_pictures_are_left_out_and_told_once(tmp_path: Path, cifar_folder: Path) -> None:
    convert(cifar_folder, tmp_path / "x", "folder")
    bad = sorted((tmp_path / "x/train").rglob("*.png"), key=lambda path: path.name)[5]
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(DataError, match="--skip-bad"):
        convert(tmp_path / "x", tmp_path / "y", "tfrecord")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    told: list[Event] = []
    counts = convert(tmp_path / "x", tmp_path / "y", "npz", skip_bad=True, emit=told.append)
    assert counts == {**COUNTS, "train": 199}
    (note,) = [event.text for event in told if isinstance(event, Noted)]
    assert note.startswith(f"left out {bad}: ")


# What is refused, or fails midway, leaves nothing.


def splits_of(arrays: Arrays, *others: Arrays) -> dict[Split, Arrays]:
    return dict(zip(SPLITS, (arrays, *others), strict=False))


FIRST = made(20, 32, 32, 3)
REFUSED: list[tuple[str, dict[Split, Arrays], dict[str, Any], str]] = [
    (
        "cifar",
        splits_of(made(20, 28, 28, 1)),
        {},
        r"^cifar: expected images of 32×32×3, found 28×28×1; choose tfrecord, npz or folder$",
    ),
    (
        "cifar",
        splits_of(FIRST, made(3, 32, 32, 4)),
        {},
        r"^cifar: expected images of 32×32×3, found 32×32×4; choose tfrecord or npz$",
    ),
    (
        "cifar",
        splits_of(made(20, 32, 32, 3, classes=tuple(map(str, range(257))))),
        {},
        r"^cifar: expected at most 256 classes, found 257; choose tfrecord, npz or folder$",
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
        r"one shape in all splits, found 32×32×3 and, in validation, 32×31×3; choose tfrecord or",
    ),
    (
        "folder",
        splits_of(made(20, 32, 32, 3, classes=("a", ""))),
        {},
        r"^folder: Class '': expected a name .* Rename the class; choose tfrecord, npz or cifar$",
    ),
    (
        "folder",
        splits_of(made(20, 5, 5, 3, classes=("a", "x" * 201))),
        {},
        r"^folder: Class 'xxx.* 1 to 200 bytes in UTF-8, found 201\..*; choose tfrecord or npz$",
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
        r"^folder: expected a train split, found only test; choose tfrecord, npz or cifar$",
    ),
    (
        "npz",
        splits_of(made(20, 5, 5, 3, classes=("a", "b", "x" * 2**23))),
        {},
        r"^npz: expected class names that take at most 67,108,864 bytes.*; choose tfrecord$",
    ),
    ("tfrecord", splits_of(FIRST), {"shards": 0}, r"^shards: expected at least 1, found 0$"),
    ("folder", splits_of(FIRST), {"shards": 2}, r"^shards: expected 1, as a folder"),
    (
        "npz",
        splits_of(FIRST, made(6, 32, 32, 3)),
        {"shards": 7},
        r"^shards: expected at most 6, the number of validation examples, found 7$",
    ),
    ("zip", splits_of(FIRST), {}, r"^to: expected tfrecord, npz, folder or cifar, found 'zip'$"),
    ("npz", splits_of(FIRST), {"validation_size": 20}, r"^validation_size: expected 0 to 19"),
    ("npz", splits_of(FIRST), {"validation_size": -1}, r"^validation_size: expected 0 to 19"),
    (
        "npz",
        splits_of(FIRST, FIRST),
        {"validation_size": 2},
        r"^validation_size: expected 0, as .* has a validation split of its own, found 2$",
    ),
    ("npz", {"test": FIRST}, {"validation_size": 2}, r"expected a train split, found only test$"),
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
        convert(start, tmp_path / "x", to, **options)
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
    (tmp_path / "start/data_batch_1.bin").write_bytes(cifar.encode(FIRST.images, FIRST.labels))
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


@pytest.mark.parametrize(
    ("shape", "count", "forms"),
    [
        ((32, 32, 3), 4000, ("tfrecord", "npz", "cifar")),
        ((512, 512, 3), 16, ("tfrecord", "npz", "folder")),
    ],
)
def test_memory_is_bounded(
    tmp_path: Path, shape: tuple[int, int, int], count: int, forms: tuple[Form]
) -> None:
    """Five shards, in all 60 MB, are one file under five names."""
    (tmp_path / "start").mkdir()
    images = np.arange(count * np.prod(shape), dtype=np.uint32).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    first = tmp_path / "start/train-0.tfrecords"
    first.write_bytes(tfrecord.encode(images.reshape(count, *shape), labels))
    assert 5 * first.stat().st_size > 60e6
    for i in range(1, 5):
        os.link(first, tmp_path / f"start/train-{i}.tfrecords")
    (tmp_path / "start/classes.json").write_text(json.dumps(CIFAR10.classes))
    del images
    for form in forms:
        tracemalloc.start()
        try:
            assert convert(tmp_path / "start", tmp_path / form, form) == {"train": 5 * count}
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()
