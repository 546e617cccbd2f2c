from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepcnn.data.formats import npz
from deepcnn.data.shards import Block, ToWrite
from deepcnn.data.splits import SPLITS, Split
from deepcnn.errors import DataError
from tests.helpers.shards import (
    RANGES,
    check_early_closing,
    damaged,
    examples,
    message_id,
    peak_bytes,
    read,
)


def saved(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def packed(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def store(folder: Path, content: bytes, split: Split | None = None) -> npz.NpzShard:
    (folder / "x.npz").write_bytes(content)
    return npz.NpzShard(folder / "x.npz", split)


@pytest.mark.parametrize("save", [saved, packed])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_any_range_of_what_numpy_wrote(
    tmp_path: Path, save: Callable[..., bytes], channels: int
) -> None:
    images, labels = examples(7, *(5, 4, channels)[: 3 if channels else 2])
    shard = store(tmp_path, save(images=images, labels=labels, more=np.zeros(3)))
    assert (len(shard), shard.shape) == (7, (5, 4, channels or 1))
    assert shard.seekable == (save is saved)
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop].reshape(-1, *shard.shape))
        assert np.array_equal(numbers, labels[start:stop])


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u4", ">i8", "<u8", ">u8"])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("save", [saved, packed])
def test_labels_of_any_integers(
    tmp_path: Path, save: Callable[..., bytes], column: bool, dtype: str
) -> None:
    labels = np.array([3, 0, 120], dtype)
    column_or_not = labels[:, None] if column else labels
    shard = store(tmp_path, save(images=np.zeros((3, 2, 2), np.uint8), labels=column_or_not))
    assert read(shard)[1].tolist() == [3, 0, 120]


@pytest.mark.parametrize(
    ("images", "labels", "validation"),
    [
        ("{}_images", "{}_labels", "val"),
        ("{}_images", "{}_labels", "validation"),
        ("x_{}", "y_{}", "val"),
        ("x_{}", "y_{}", "validation"),
    ],
)
def test_splits_by_the_names_of_others(
    tmp_path: Path, images: str, labels: str, validation: str
) -> None:
    arrays: dict[str, NDArray[Any]] = {"x_other": np.zeros(2)}
    expected: dict[Split, NDArray[Any]] = {}
    names: dict[str, Split] = {"test": "test", validation: "validation", "train": "train"}
    for i, (name, split) in enumerate(names.items()):
        pixels, numbers = examples(3 + i, 2, 2, 3)
        arrays |= {images.format(name): pixels, labels.format(name): numbers[:, None]}
        expected[split] = pixels
    for split, pixels in expected.items():
        assert np.array_equal(read(store(tmp_path, saved(**arrays), split))[0], pixels)
    assert npz.splits(tmp_path / "x.npz") == ("train", "validation", "test")
    with pytest.raises(DataError, match=r"expected the arrays images and labels, found '"):
        store(tmp_path, saved(**arrays))
    del arrays[labels.format("test")]
    with pytest.raises(DataError, match=r"arrays of a split 'test', found '"):
        store(tmp_path, saved(**arrays), "test")
    assert npz.splits(tmp_path / "x.npz") == ("train", "validation")


def test_a_file_without_splits_is_any_split(tmp_path: Path) -> None:
    images, labels = examples(3, 2, 2, 3)
    content = saved(images=images, labels=labels)
    for split in (None, *SPLITS):
        assert np.array_equal(read(store(tmp_path, content, split))[0], images)
    assert npz.splits(tmp_path / "x.npz") == ()
    both = saved(images=images, labels=labels, x_train=images + 1, y_train=labels)
    assert np.array_equal(read(store(tmp_path, both))[0], images)
    assert np.array_equal(read(store(tmp_path, both, "train"))[0], images + 1)
    with pytest.raises(DataError, match="of a split 'test'"):
        store(tmp_path, both, "test")
    (tmp_path / "x.npz").write_bytes(saved(a=images))
    with pytest.raises(DataError, match=r"images and labels, or train_images .* found 'a'"):
        npz.splits(tmp_path / "x.npz")


def test_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for save in (saved, packed):
        path.write_bytes(save(classes=np.array(["cat", "Κόρη", ""])))
        assert npz.classes(path) == ("cat", "Κόρη", "")
    path.write_bytes(saved(classes=np.array(["cat", "dog"], ">U7")))
    assert npz.classes(path) == ("cat", "dog")
    path.write_bytes(saved(images=np.zeros(3)))
    assert npz.classes(path) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array(["a", "b"], object), "Python objects, which are pickles"),
        (np.array([b"a"]), r"dtype of kind U.*found \|S1 \[1\]"),
        (np.array([["a"]]), r"found <U1 \[1, 1\]"),
        (np.array([], "U1"), r"found <U1 \[0\]"),
        (np.zeros(70_000, "U1"), r"1 to 65,536 strings.*found <U1 \[70000\]"),
        (np.array([0x110000], "<u4").view("<U1"), "found 0x110000, which is no character"),
        (np.array([0xD800], "<u4").view("<U1"), "found 0xd800, which is no character"),
    ],
    ids=message_id,
)
def test_classes_of_another_kind_are_refused(
    tmp_path: Path, names: NDArray[Any], message: str
) -> None:
    (tmp_path / "x.npz").write_bytes(saved(classes=names))
    with pytest.raises(DataError, match=message):
        npz.classes(tmp_path / "x.npz")


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
LABELS = np.array([1, 0])
GOOD = saved(images=IMAGES, labels=LABELS, classes=np.array(["a", "b"]))
PACKED = packed(images=IMAGES, labels=LABELS)


def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Return an archive of .npy files with this content."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # about names that are there twice
        for name, content in members.items():
            archive.writestr(f"{name.rstrip('_')}.npy", content)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    """Return the beginning of an .npy file of uint8."""
    buffer = io.BytesIO()
    dictionary = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, dictionary)
    return buffer.getvalue()


def header(text: str, version: int = 1) -> bytes:
    """Return an .npy file of 24 bytes after this header."""
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + bytes(24)


def shaped(shape: str, descr: str = "'|u1'") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def with_images(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    return zipped(method, images=content, labels=npy(LABELS))


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


def encrypted() -> bytes:
    """Return an archive whose flags, in the member's header and in the directory, say so."""
    content = bytearray(GOOD)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        position = content.find(signature)
        content[position + offset] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a zip archive"),
        (npy(IMAGES), "expected a zip archive"),
        (GOOD[:-1], "not a whole .npz file"),
        (GOOD[:200], "not a whole .npz file"),
        (PACKED + b"x", "expected the end of the file after the zip"),
        (b"x" + GOOD, "expected a zip archive"),
        (changed(GOOD, b"images.npy", b"images.npz"), "arrays images and labels, found 'classes'"),
        (zipped(images=b"", labels=b"", images_=b""), "found several of 'images.npy'"),
        (changed(GOOD, IMAGES.tobytes(), bytes(24)), "Bad CRC-32 for file 'images.npy'"),
        (changed(GOOD, LABELS.tobytes(), bytes(16)), "Bad CRC-32 for file 'labels.npy'"),
        (PACKED[:60] + b"\xff\xff" + PACKED[62:], "not a whole .npz file .*invalid block type"),
        (encrypted(), "'images' is encrypted"),
        (with_images(npy(IMAGES), zipfile.ZIP_BZIP2), "found compression method 12"),
        (with_images(npy(IMAGES), zipfile.ZIP_LZMA), "found compression method 14"),
        (changed(GOOD, b"PK\3\4", b"PK\3\5"), "expected a zip archive"),
        (GOOD[:4] + changed(GOOD[4:], b"PK\3\4", b"PK\3\5"), "Bad magic number for file header"),
        (saved(images=IMAGES.astype(complex), labels=LABELS), r"\[N, .*found complex128 \[2, 2"),
        (saved(images=IMAGES[0, 0], labels=LABELS), r"found uint8 \[2, 3\]"),
        (saved(images=IMAGES[:0], labels=LABELS[:0]), r"at least one image, found uint8 \[0, 2"),
        (saved(images=np.zeros((2, 2, 2, 5), np.uint8), labels=LABELS), r"\[2, 2, 2, 5\]"),
        (saved(images=np.zeros((2, 65_536, 1), np.uint8), labels=LABELS), r"\[2, 65536, 1\]"),
        (saved(images=np.asfortranarray(IMAGES), labels=LABELS), "Fortran.*ascontiguousarray"),
        (saved(images=IMAGES, labels=LABELS[:1]), r"integers \[2\] or \[2, 1\].*int64 \[1\]"),
        (
            saved(images=IMAGES, labels=np.ones((2, 2), int)),
            r"\[2, 2\] as one-hot.*found 1, 1 for example 0",
        ),
        (saved(images=IMAGES, labels=LABELS.astype(float)), r"found float64 \[2\]"),
        (saved(images=IMAGES, labels=LABELS > 0), r"found bool \[2\]"),
        (saved(images=IMAGES, labels=-LABELS), r"found -1 for example 0 \(1 such"),
        (saved(images=IMAGES, labels=np.array([0, 2**63], ">u8")), f"found {2**63} for example 1"),
        (saved(images=np.array([{}, 1], object), labels=LABELS), "are pickles"),
        (with_images(b""), "cannot be read as one"),
        (with_images(shaped("(2, 2, 2, 4)")), r"declares uint8 \[2, 2, 2, 4\].*found 97"),
        (with_images(shaped("(-2, 2, 2, -3)")), r"declares uint8 \[-2, 2, 2, -3\]"),
        (with_images(shaped("(10**9,)")), "cannot be read as one"),
        (with_images(shaped("(2, 2, 2, 3)", "'O'")), "are pickles"),
        (with_images(shaped("(2, 2, 2, 3)", "'nonsense'")), "cannot be read as one"),
        (with_images(header("(" * 3000, 2)), "cannot be read as one"),
        (with_images(header(" " * 5000, 2)), "cannot be read as one"),
        (with_images(header("{}", 3)), r"version \(3, 0\)"),
    ],
    ids=message_id,
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.npz: .*{message}"):
        read(store(tmp_path, content))


def test_a_comment_of_the_archive_is_no_damage(tmp_path: Path) -> None:
    images, labels = examples(3, 2, 2, 1)
    buffer = io.BytesIO(saved(images=images, labels=labels))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"from the camera"
    found, _ = read(store(tmp_path, buffer.getvalue()))
    assert np.array_equal(found, images)


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    assert len(read(store(tmp_path, with_images(shaped("(2L, 2L, 2L, 3L)"))))[0]) == 2


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path: Path) -> None:
    for use in (npz.NpzShard, npz.splits, npz.classes):
        with pytest.raises(DataError, match="Is a directory"):
            use(tmp_path)
        with pytest.raises(DataError, match="none: cannot be read"):
            use(tmp_path / "none")


def test_the_checksum_of_images_is_compared_when_all_are_read(tmp_path: Path) -> None:
    images, labels = examples(7, 32, 32, 3)
    content = bytearray(saved(images=images, labels=labels))
    content[20_000] ^= 1
    shard = store(tmp_path, bytes(content))
    assert len(read(shard, 0, 6)[0]) == len(read(shard, 1, 7)[0]) == 6
    with pytest.raises(DataError, match=r"images of 'images.npy' and their checksum disagree"):
        read(shard)


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    images, labels = examples(7, 32, 32, 3)
    for save in (saved, packed):
        shard = store(tmp_path, save(images=images, labels=labels))
        (tmp_path / "x.npz").write_bytes(save(images=images[:2], labels=labels))
        with pytest.raises(DataError, match=r"x\.npz: "):
            read(shard)


@pytest.mark.parametrize("save", [saved, packed])
def test_closing_early_closes_the_file(
    tmp_path: Path, save: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = examples(7, 2, 2, 3)
    content = save(images=images, labels=labels)
    check_early_closing(lambda: store(tmp_path, content), monkeypatch)


@pytest.mark.parametrize(
    "shape", ["(2147483647, 8192, 8192)", "(4294967296, 4294967296, 4294967296)", "(0, 2, 2)"]
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_lying_header_takes_no_memory(tmp_path: Path, shape: str, method: int) -> None:
    images = with_images(shaped(shape), method)
    labels = zipped(method, images=npy(IMAGES), labels=shaped(shape.replace(")", ", 1)")))
    long = with_images(b"\x93NUMPY\2\0" + b"\xff" * 4, method)
    directory = bytearray(with_images(npy(IMAGES), method))
    position = directory.find(b"PK\1\2")
    directory[position + 20 : position + 28] = b"\xfe" * 8  # both sizes of the first member
    for content in (images, labels, long, bytes(directory)):
        assert peak_bytes(lambda content=content: store(tmp_path, content)) < 2**20  # type: ignore[misc]


def test_a_lying_directory_takes_no_memory(tmp_path: Path) -> None:
    count = 10**8
    members = {"images": header_of((count, 1, 1)), "labels": header_of((count,))}
    content = bytearray(zipped(zipfile.ZIP_DEFLATED, **members))
    position = -1
    for header in members.values():
        position = content.find(b"PK\1\2", position + 1)
        content[position + 24 : position + 28] = (len(header) + count).to_bytes(4, "little")
    assert peak_bytes(lambda: store(tmp_path, bytes(content))) < 2**20


def test_a_deflated_array_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w") as file:
            file.write(header_of((600, 400, 500)))
            for _ in range(120):
                file.write(bytes(10**6))
        archive.writestr("labels.npy", npy(np.zeros(600, int)))
    content = path.read_bytes()
    position = content.find(b"PK\1\2") + 16  # the checksum of the images, in the directory
    path.write_bytes(content[:position] + bytes(4) + content[position + 4 :])
    shard = npz.NpzShard(path)
    assert peak_bytes(lambda: list(shard.blocks(500, 600, 100))) < 25e6  # a block of 20 MB


def split_up(images: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> list[Block]:
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]


def written(blocks: list[Block], count: int, shape: tuple[int, int, int] = (5, 4, 3)) -> bytes:
    buffer = io.BytesIO()
    npz.write(buffer, ToWrite(count, shape, ("cat", "Κόρη"), blocks))
    return buffer.getvalue()


def test_numpy_reads_what_was_written_and_so_does_the_reader(tmp_path: Path) -> None:
    images, labels = examples(7, 5, 4, 3)
    content = written(split_up(images, labels, 3), 7)
    with np.load(io.BytesIO(content)) as found:
        assert sorted(found) == ["classes", "images", "labels"]
        assert np.array_equal(found["images"], images)
        assert np.array_equal(found["labels"], labels)
        assert found["labels"].dtype == np.int64
        assert found["classes"].tolist() == ["cat", "Κόρη"]
    shard = store(tmp_path, content)
    assert shard.seekable
    assert np.array_equal(read(shard)[0], images)
    assert npz.classes(tmp_path / "x.npz") == ("cat", "Κόρη")
    assert written(split_up(images, labels, 2), 7) == content
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def test_writing_another_number_or_shape_is_refused() -> None:
    images, labels = examples(7, 5, 4, 3)
    with pytest.raises(DataError, match=r"expected 8 examples to write, found 7$"):
        written(split_up(images, labels, 3), 8)
    with pytest.raises(DataError, match="expected 5 examples to write, found 6 or more"):
        written(split_up(images, labels, 3), 5)
    with pytest.raises(DataError, match=r"expected 3 images of \[5, 4, 1\]"):
        written(split_up(images, labels, 3), 7, (5, 4, 1))


def check_any(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        path.write_bytes(content)
        for use in (npz.splits, npz.classes):
            try:
                found = use(path)
            except DataError:
                continue
            assert found is None or all(isinstance(name, str) for name in found)
        try:
            shard = npz.NpzShard(path)
            images, labels = read(shard)
        except DataError:
            return
        assert len(images) == len(labels) == len(shard) > 0
        assert labels.min() >= 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100).map(lambda rest: b"PK\3\4" + rest) | damaged(GOOD) | damaged(PACKED))
def test_any_bytes_give_examples_or_the_one_error(content: bytes) -> None:
    check_any(content)


@settings(max_examples=200, deadline=None)
@given(
    damaged(npy(IMAGES)) | damaged(npy(IMAGES)[:100]) | st.text(max_size=60).map(header),
    damaged(npy(LABELS)) | st.just(npy(LABELS)),
    damaged(npy(np.array(["a", "b"]))),
)
def test_any_arrays_give_examples_or_the_one_error(
    images: bytes, labels: bytes, classes: bytes
) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        check_any(zipped(method, images=images, labels=labels, classes=classes))
