from __future__ import annotations

import csv
import io
import os
import struct
import tempfile
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import listings, pictures
from deepcnn.data.formats.listings import Listing
from deepcnn.data.formats.pictures import Format, Header, PictureShard
from deepcnn.data.shards import Shard
from deepcnn.errors import DataError

RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(listing: Listing) -> list[tuple[str, str]]:
    return [
        (path.relative_to(listing.root).as_posix(), listing.classes[label])
        for path, label in zip(listing.paths, listing.labels, strict=True)
    ]


def read(shard: Shard) -> NDArray[np.uint8]:
    ((images, _),) = shard.blocks(0, len(shard), len(shard))
    return images


def decoded(
    content: bytes, form: Format | None = None, suffix: str = ".png", **options: Any
) -> NDArray[np.uint8]:
    """Write one picture, read it back as a set of its own or in a given format."""
    with tempfile.TemporaryDirectory() as folder:
        listing = listings.list_classes(write(Path(folder), {f"a/x{suffix}": content}))
        shard, _ = pictures.prepare(listing, **options)
        image: NDArray[np.uint8] = read(PictureShard(listing, form or shard.form))[0]
        return image


ANY = pictures.encode(noise(4, 4))


# Real data, there and back


def test_real_images_come_back_from_class_folders(cifar10_test: Arrays, tmp_path: Path) -> None:
    count = 300
    for i in range(count):
        folder = tmp_path / cifar10_test.classes[cifar10_test.labels[i]]
        folder.mkdir(exist_ok=True)
        (folder / f"{i:05}.png").write_bytes(pictures.encode(cifar10_test.images[i]))
    listing = listings.list_classes(tmp_path, cifar10_test.classes)
    shard, bad = pictures.prepare(listing)
    assert bad == {}
    assert (shard.name, shard.shape, shard.seekable) == (str(tmp_path), (32, 32, 3), True)
    assert len(shard) == count
    parts = list(shard.blocks(0, count, 128))
    assert [len(images) for images, _ in parts] == [128, 128, 44]
    assert np.array_equal(np.concatenate([i for i, _ in parts]), cifar10_test.images[:count])
    assert np.array_equal(np.concatenate([k for _, k in parts]), cifar10_test.labels[:count])
    ((images, labels),) = shard.blocks(17, 20, 100)
    assert np.array_equal(images, cifar10_test.images[17:20])
    assert np.array_equal(labels, cifar10_test.labels[17:20])
    assert labels.dtype == np.int64
    labels[:] = 99  # the caller's own
    assert listing.labels.max() < 10
    assert list(shard.blocks(5, 5, 2)) == []


def test_real_images_come_back_from_a_table(cifar10_test: Arrays, tmp_path: Path) -> None:
    count = 120
    train = tmp_path / "train"
    train.mkdir()
    for i in range(count + 1):  # the last has no row
        (train / f"{i + 1}.png").write_bytes(pictures.encode(cifar10_test.images[i]))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "label"])
    for i in RNG.permutation(count):
        writer.writerow([i + 1, cifar10_test.classes[cifar10_test.labels[i]]])
    table = tmp_path / "trainLabels.csv"
    table.write_text(text.getvalue())
    listing = listings.list_table(table, train, cifar10_test.classes)
    shard, _ = pictures.prepare(listing)
    assert shard.name == str(train)
    assert np.array_equal(read(shard), cifar10_test.images[:count])
    assert np.array_equal(listing.labels, cifar10_test.labels[:count])
    found = listings.list_table(table, train).classes
    assert found == tuple(sorted(cifar10_test.classes))


# Class folders


def test_order_is_by_file_name_then_class_then_path(tmp_path: Path) -> None:
    files = ["b/2.png", "b/1.PNG", "a/2.png", "a/3.JPeG", "a/deep/er/0.webp", "a/z/2.png"]
    listing = listings.list_classes(write(tmp_path, dict.fromkeys(files, b"")))
    assert names(listing) == [
        ("a/deep/er/0.webp", "a"),
        ("b/1.PNG", "b"),
        ("a/2.png", "a"),
        ("a/z/2.png", "a"),
        ("b/2.png", "b"),
        ("a/3.JPeG", "a"),
    ]
    assert listing.labels.dtype == np.int64


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    files = ["a/x.png", "a/.x.png", "a/.d/x.png", ".git/x.png", "x.png", "a/x.txt", "a/png"]
    listing = listings.list_classes(write(tmp_path, dict.fromkeys(files, b"")))
    assert names(listing) == [("a/x.png", "a")]


def test_every_suffix_is_listed(tmp_path: Path) -> None:
    listing = listings.list_classes(
        write(tmp_path, {f"a/x{suffix}": b"" for suffix in listings.SUFFIXES})
    )
    assert len(listing.paths) == 10


def test_classes_are_in_code_point_order_or_as_given(tmp_path: Path) -> None:
    odd = ["Zebra", "ant", "50%", "line\nbreak", "é", "日本", "10", "9", "%41"]
    write(tmp_path, {f"{name}/x.png": b"" for name in odd})
    assert listings.list_classes(tmp_path).classes == tuple(sorted(odd))
    given_order = (*odd, "without a folder")
    listing = listings.list_classes(tmp_path, given_order)
    assert listing.classes == given_order
    assert [path.parent.name for path in listing.paths] == [given_order[i] for i in listing.labels]
    with pytest.raises(DataError, match=r"Zebra: .* one of the 8 classes 'ant', .*found 'Zebra'"):
        listings.list_classes(tmp_path, odd[1:])
    with pytest.raises(DataError, match="found 'ant' twice"):
        listings.list_classes(tmp_path, [*odd, "ant"])


def test_folder_names_are_turned_back_only_for_given_classes(tmp_path: Path) -> None:
    odd = ["a/b", "a%2Fb", "..", "x:y"]
    write(tmp_path, {f"{listings.folder_name(name)}/{i}.png": b"" for i, name in enumerate(odd)})
    assert listings.list_classes(tmp_path, odd).labels.tolist() == [0, 1, 2, 3]
    assert "a%2Fb" in listings.list_classes(tmp_path).classes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/x.png": b"", "b/x.txt": b""}, r"b: expected at least one picture .*1 such"),
        ({"x.png": b""}, r"expected a sub-folder for each class.*found no sub-folder"),
    ],
)
def test_folders_of_another_form_are_refused(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        listings.list_classes(write(tmp_path, files))


def test_a_missing_root_and_a_file_as_root_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: .*No such file"):
        listings.list_classes(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: .*Not a directory"):
        listings.list_classes(tmp_path / "file")


@pytest.mark.parametrize("where", ["root", "root/a", "root/a/deep"])
def test_an_unreadable_folder_is_named(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"root/a/x.png": b"", "root/a/deep/x.png": b""})
    scandir = os.scandir

    def closed(folder: Path) -> Any:  # root may read all, so that no mode bits would do
        if Path(folder) == tmp_path / where:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=rf"{where}: .*Permission denied"):
        listings.list_classes(tmp_path / "root")


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, {"a/1.png": b"", "b/sub/2.png": b"", "c/3.png": b""})
    write(tmp_path, {"elsewhere/4.png": b"", "other/5.png": b"", "above.png": b""})
    (root / "a/loop").symlink_to(root / "a")
    (root / "a/up").symlink_to(root)
    (root / "a/far_up").symlink_to(tmp_path)
    (root / "a/again").symlink_to(root / "a/once")
    (root / "a/once").symlink_to(tmp_path / "elsewhere")
    (root / "a/of_b").symlink_to(root / "b/sub")  # lies in b
    (root / "a/of_c").symlink_to(root / "c")
    (root / "a/self").symlink_to("self")
    (root / "self.png").symlink_to("self.png")
    (root / "whole").symlink_to(root)
    (root / "d").symlink_to(tmp_path / "other")
    (root / "c/6.png").symlink_to(root / "a/1.png")
    (root / "c/none.txt").symlink_to("nowhere")
    listing = listings.list_classes(root)
    assert listing.classes == ("a", "b", "c", "d")
    assert names(listing) == [
        ("a/1.png", "a"),
        ("b/sub/2.png", "b"),
        ("c/3.png", "c"),
        ("a/again/4.png", "a"),
        ("d/5.png", "d"),
        ("c/6.png", "c"),
    ]


def test_a_class_folder_below_another_class_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": b"", "a/sub/2.png": b""})
    (tmp_path / "b").symlink_to(tmp_path / "a/sub")
    assert names(listings.list_classes(tmp_path)) == [("a/1.png", "a"), ("b/2.png", "b")]


def test_one_folder_for_two_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": b""})
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=r"b: expected a folder of its own.*same one as .*a\."):
        listings.list_classes(tmp_path)


def test_a_link_that_may_not_be_followed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        name = "link"
        path = str(tmp_path / "link")

        def is_dir(self) -> bool:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listings, "_entries", lambda _: [Entry()])
    with pytest.raises(DataError, match=r"link: .*Permission denied"):
        listings.list_classes(tmp_path)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    os.mkdir(root + b"/a")  # noqa: PTH102
    Path(os.fsdecode(root + b"/a/\xff.png")).write_bytes(ANY)
    Path(os.fsdecode(root + b"/a/\xfe.png")).write_bytes(b"text")
    listing = listings.list_classes(tmp_path)
    shard, bad = pictures.prepare(listing, skip_bad=True)
    assert (len(shard), len(bad)) == (1, 1)
    with pytest.raises(DataError) as caught:
        pictures.prepare(listing)
    str(caught.value).encode()  # can be printed
    os.mkdir(root + b"/\xff")  # noqa: PTH102
    with pytest.raises(DataError, match=r"expected a class name in UTF-8"):
        listings.list_classes(tmp_path)


# Names of folders


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
@example("..")
@example(".")
@example("a b ")
@example("CON/\\\x00%00%zz\x85é/é%")
def test_folder_names_round_trip(name: str) -> None:
    folder = listings.folder_name(name)
    assert listings.class_name(folder) == name
    assert not set(folder) & set('/\\:*?"<>|\x00\n\x7f')
    assert folder[0] != "."
    assert folder[-1] not in ". "
    assert folder.isprintable() or not name.isprintable()


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101, "\ud800"])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(DataError, match=r"Class .*Rename the class"):
        listings.folder_name(name)


def test_plain_names_stay_and_foreign_escapes_too() -> None:
    assert listings.folder_name("Großer Hund.2") == "Großer Hund.2"
    assert listings.folder_name("a/b%") == "a%2Fb%25"
    assert listings.folder_name("é" * 100) == "é" * 100
    assert listings.class_name("100%") == "100%"
    assert listings.class_name("%FF%2F") == "%FF%2F"


# Tables


def kaggle(root: Path, table: str | bytes, *files: str) -> tuple[Path, Path]:
    folder = root / "train"
    folder.mkdir(exist_ok=True)
    write(folder, dict.fromkeys(files, b""))
    path = root / "labels.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    return path, folder


def test_numeric_ids_are_read_in_order_and_labels_as_numbers(tmp_path: Path) -> None:
    table = "Image,Other,Category\r\n10,q,2\r\nx,q,10\r\n2,q,-1\r\n\r\n1,q,2\r\n"
    listing = listings.list_table(
        *kaggle(tmp_path, table, "1.JPG", "2", "10.png", "x.gif", "3.png")
    )
    assert listing.classes == ("-1", "2", "10")
    assert names(listing) == [("1.JPG", "2"), ("2", "-1"), ("10.png", "2"), ("x.gif", "10")]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id,label", "1,cat"),
        ("label,id", "cat,1"),
        ("x,FileName", "cat,1"),
        ("Class,y", "cat,1"),
        ("x,y", "1,cat"),
        ("x,y,target,image_id", "?,?,cat,1.png"),
        ('" path ",Label', '"1","cat"'),
        ("\ufeffid,file,label", "1,?,cat"),
        ("id,label", "./1.png,cat"),
        ("id,label", "deep/2,cat"),
    ],
)
def test_columns_are_found_by_their_headers(header: str, row: str, tmp_path: Path) -> None:
    files = kaggle(tmp_path, f"{header}\n{row}\n", "1.png", "deep/2.png")
    listing = listings.list_table(*files)
    assert listing.classes == ("cat",)
    assert names(listing) == [("deep/2.png" if "deep" in row else "1.png", "cat")]


def test_a_whole_name_comes_before_a_suffix_and_png_before_jpeg(tmp_path: Path) -> None:
    files = ("1", "1.png", "2.jpg", "2.png", "3.png.gif", "3.png")
    table = "id,label\n1,a\n2,a\n3.png,a\n"
    listing = listings.list_table(*kaggle(tmp_path, table, *files))
    assert [path.name for path in listing.paths] == ["1", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"labels.csv, line 1: expected a header of at least two columns.*found 0"),
        ("id;label\n1;a\n", "line 1: expected a header.*found 1"),
        ("id,label\n", "line 1: expected rows after the header, found none"),
        ("1,cat\n2,dog\n", "line 1: expected a header such as id,label, found the picture '1'"),
        ("id,label\n1,a\n7,b\n", "row 2 on line 3: expected a picture for the id '7'"),
        ("id,label\n,a\n", "row 1 on line 2: expected a picture for the id ''"),
        ("id,label\n.,a\n", "expected a picture for the id '.'"),
        ("id,label\n1,a\n1,a\n", "row 2 on line 3: .*found the id '1' again, which line 2 has"),
        ("id,label\n1,a\n1.png,a\n", "found the id '1.png' again"),
        ("id,label\n1\n", "row 1 on line 2: expected 2 columns as in the header, found 1"),
        ("id,label\n1,a,b\n", "found 3"),
        ("id,label\n1,\n", "row 1 on line 2: expected a label, found '' for the id '1'"),
        ("id,label\n../1,a\n", r"row 1 on line 2: .*found '../1', which leads out of it"),
        ("id,label\nx/../../1,a\n", "leads out of it"),
        ("id,label\n/etc/passwd,a\n", "leads out of it"),
        ("id,label\n..\\1,a\n", "leads out of it"),
        ("id,label\nC:\\1,a\n", "leads out of it"),
        ("id,label\nno/1,a\n", r"row 1 on line 2: the id 'no/1' cannot be found.*No such file"),
        (f"id,label\n{'x' * 300}/1,a\n", "row 1 on line 2: .*cannot be found.*too long"),
        (b"id,label\n1,a\n2,\xff\n", "line 3: expected text in UTF-8, found the byte 0xFF"),
        ("id,label\n1,a\n".encode("utf-16"), "line 1: expected text in UTF-8"),
        ("id,label\n1,a\0\n", "line 2: .*found a NUL byte"),
        (f"id,label\n1,{'x' * 200_000}\n", "line 2: .*field larger than field limit"),
        ('id,label\n1,"a\n', "line 2: expected comma-separated values, found: unexpected end"),
        ('id,label\n1,"a"b\n', "line 2: expected comma-separated values"),
    ],
)
def test_tables_of_another_form_are_refused(
    table: str | bytes, message: str, tmp_path: Path
) -> None:
    files = kaggle(tmp_path, table, "1.png", "2.png")
    with pytest.raises(DataError, match=rf"labels.csv.*{message.removeprefix('labels.csv')}"):
        listings.list_table(*files)


def test_a_label_outside_the_given_classes_is_named(tmp_path: Path) -> None:
    files = kaggle(tmp_path, "id,label\n1,cow\n", "1.png")
    with pytest.raises(DataError, match="expected one of the labels 'cat', found 'cow' for the id"):
        listings.list_table(*files, ["cat"])
    assert listings.list_table(*files, ["cat", "cow"]).labels.tolist() == [1]


def test_a_missing_table_or_folder_is_named(tmp_path: Path) -> None:
    table, folder = kaggle(tmp_path, "id,label\n1,a\n", "1.png")
    with pytest.raises(DataError, match=r"none.csv: cannot be read \(No such file"):
        listings.list_table(tmp_path / "none.csv", folder)
    with pytest.raises(DataError, match="none: expected a folder"):
        listings.list_table(table, tmp_path / "none")


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text('id,label"\n\r123./\\: ab\0', max_size=40).map(str.encode),
        st.text('12a,"\n./', max_size=30).map(lambda rows: b"id,label\n" + rows.encode()),
    )
)
def test_any_table_gives_a_listing_or_the_one_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            listing = listings.list_table(*kaggle(Path(folder), content, "1.png", "2.png"))
        except DataError:
            return
        assert len(listing.paths) == len(listing.labels) > 0
        assert listing.labels.max() < len(listing.classes)
        assert all(path.is_file() for path in listing.paths)


# The choice of a format


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32), (32, 32), (8, 8)], (32, 32)),
        ([(32, 32), (8, 9), (9, 8)], (8, 9)),
        ([(9, 8), (8, 9)], (8, 9)),
        ([(2, 50), (9, 9)], (9, 9)),
        ([(300, 401)], (96, 128)),
        ([(256, 128)], (128, 64)),
        ([(128, 129)], (127, 128)),
        ([(375, 500)], (96, 128)),
        ([(128, 128)], (128, 128)),
        ([(10_000, 1)], (128, 1)),
    ],
)
def test_the_size_is_the_most_frequent(
    sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    headers = [Header(*size, gray=True) for size in sizes]
    assert pictures.choose_format(headers) == Format(*expected, 1)
    colour = [*headers, Header(1, 1, gray=False)] if len(sizes) > 1 else headers
    assert pictures.choose_format(colour, (200, 7)) == Format(200, 7, 3 if len(sizes) > 1 else 1)


GRAY = Image.fromarray(noise(6, 5, 1)[:, :, 0])
COLOUR = Image.fromarray(noise(6, 5))


@pytest.mark.parametrize(
    ("image", "form", "channels"),
    [
        (GRAY, "PNG", 1),
        (GRAY.convert("1"), "PNG", 1),
        (GRAY.convert("LA"), "PNG", 1),
        (GRAY.convert("I;16"), "PNG", 1),
        (GRAY.convert("I"), "TIFF", 1),
        (GRAY.convert("F"), "TIFF", 1),
        (GRAY.convert("I"), "PPM", 1),
        (COLOUR, "PNG", 3),
        (COLOUR.convert("P"), "PNG", 3),
        (COLOUR.convert("RGBA"), "PNG", 3),
        (COLOUR.convert("CMYK"), "TIFF", 3),
        (COLOUR.convert("YCbCr"), "TIFF", 3),
        (COLOUR.convert("LAB"), "TIFF", 3),
    ],
)
def test_one_channel_if_all_are_gray(image: Image.Image, form: str, channels: int) -> None:
    shape = (6, 5, channels)
    assert decoded(saved(image, form)).shape == shape
    assert decoded(saved(image, form), skip_bad=True).shape == shape


def test_one_colour_picture_makes_the_set_colour(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": saved(GRAY), "b/2.png": saved(COLOUR)})
    shard, _ = pictures.prepare(listings.list_classes(tmp_path))
    images = read(shard)
    assert np.array_equal(images[0], np.repeat(np.asarray(GRAY)[..., None], 3, axis=2))
    assert np.array_equal(images[1], np.asarray(COLOUR))


# Pixels


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_the_same_size_are_exact(form: str, channels: int) -> None:
    pixels = noise(6, 5, channels)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    found = decoded(saved(image, form, lossless=True) if form == "WEBP" else saved(image, form))
    if form == "WEBP":  # which knows no gray
        assert np.array_equal(found, np.broadcast_to(pixels, (6, 5, 3)))
    else:
        assert np.array_equal(found, pixels)


def test_the_suffix_need_not_fit_the_content() -> None:
    assert np.array_equal(decoded(saved(COLOUR, "BMP"), suffix=".jpg"), np.asarray(COLOUR))


def test_sixteen_bits_are_divided_and_others_clipped() -> None:
    deep = np.array([[0, 255, 256, 1000], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], np.uint16)
    eight = (deep // 256).astype(np.uint8)[..., None]
    assert np.array_equal(decoded(saved(Image.fromarray(deep))), eight)
    for order in ("<u2", ">u2"):
        assert np.array_equal(decoded(saved(Image.fromarray(deep.astype(order)), "TIFF")), eight)
    pgm = b"P5 4 2 65535\n" + deep.astype(">u2").tobytes()
    assert np.array_equal(decoded(pgm, suffix=".pgm"), eight)
    wide = np.array([[-5, 0, 7, 255, 256, 2**31 - 1]], np.int32)
    clipped = [0, 0, 7, 255, 255, 255]
    assert decoded(saved(Image.fromarray(wide), "TIFF")).ravel().tolist() == clipped
    floats = np.array([[-np.inf, -1, 7.9, 255, np.inf, np.nan]], np.float32)
    found = decoded(saved(Image.fromarray(floats), "TIFF")).ravel().tolist()
    assert found == [0, 0, 7, 255, 255, 0]


def test_transparency_is_laid_over_black() -> None:
    pixels = noise(6, 5, 4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    found = decoded(saved(Image.fromarray(pixels))).astype(int)
    assert not found[0].any()
    assert np.array_equal(found[1], pixels[1, :, :3])
    exact = pixels[..., :3].astype(int) * pixels[..., 3:] / 255
    assert np.abs(found - exact).max() <= 1

    with_alpha = Image.merge("LA", [GRAY, Image.new("L", GRAY.size, 255)])
    assert np.array_equal(decoded(saved(with_alpha))[..., 0], np.asarray(GRAY))

    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    palette.putpalette([9, 8, 7, 250, 251, 252, 30, 40, 50])
    black = [[9, 8, 7], [0, 0, 0], [30, 40, 50]]
    assert decoded(saved(palette, transparency=1))[0].tolist() == black
    assert decoded(saved(palette, "GIF", transparency=1))[0].tolist() == black
    some = decoded(saved(palette, transparency=bytes([255, 0, 128])))[0].tolist()
    assert some == [[9, 8, 7], [0, 0, 0], [15, 20, 25]]
    assert decoded(saved(palette))[0].tolist() == [[9, 8, 7], [250, 251, 252], [30, 40, 50]]


@pytest.mark.parametrize("form", ["L", "RGB", "I;16"])
def test_one_transparent_colour_becomes_black(form: str) -> None:
    values = np.array([[10, 20, 30]], np.uint8)
    if form == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 256)
    else:
        image = Image.fromarray(values).convert(form)
    key = {"L": 20, "RGB": (20, 20, 20), "I;16": 20 * 256}[form]
    found = decoded(saved(image, transparency=key))
    assert found[0, :, 0].tolist() == [10, 0, 30]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_of_exif_is_applied(form: str, orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255  # bright where the camera's top left is
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(saved(Image.fromarray(pixels), form, exif=exif))
    assert found.shape == ((32, 16, 3) if orientation in (5, 6, 7, 8) else (16, 32, 3))
    corners = {2: (0, -1), 3: (-1, -1), 4: (-1, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    bright = corners.get(orientation, (0, 0))
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert (found[corner] > 200).all() == (corner == bright)


@pytest.mark.parametrize("exif", [b"", b"neither II nor MM", b"II*\0\xff\xff\xff\xff"])
def test_broken_exif_takes_nothing_from_the_picture(exif: bytes) -> None:
    content = saved(COLOUR, exif=b"Exif\0\0" + exif)
    assert np.array_equal(decoded(content), np.asarray(COLOUR))


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    for form in ("GIF", "WEBP", "PNG", "TIFF", "MPO"):
        content = saved(frames[0], form, save_all=True, append_images=frames[1:])
        found = decoded(content).astype(int)
        assert (np.abs(found - [255, 0, 0]) <= 3).all(), form


def test_another_size_is_covered_and_cut_around_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, :24], wide[:, 24:40], wide[:, 40:] = 50, 100, 200
    assert (decoded(saved(Image.fromarray(wide)), Format(16, 16, 3))[:, 1:-1] == 100).all()
    assert (decoded(saved(Image.fromarray(wide)), Format(8, 8, 3))[:, 2:-2] == 100).all()
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    found = decoded(saved(Image.fromarray(tall)), Format(32, 32, 3))
    assert found.shape == (32, 32, 3)
    assert (found[7:-7] == 100).all()
    thin = decoded(saved(Image.new("RGB", (3_000, 1), "white")), Format(32, 32, 3))
    assert (thin == 255).all()


def test_a_given_size_overrides_the_chosen_one() -> None:
    assert decoded(ANY, image_size=(5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("side", [32, 64, 128, 500])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(
    orientation: int, side: int, cifar10_test: Arrays
) -> None:
    mosaic = cifar10_test.images[:768].reshape(24, 32, 32, 32, 3).swapaxes(1, 2)
    large = Image.fromarray(mosaic.reshape(768, 1024, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    height, width = side * 3 // 4, side
    form = Format(height, width, 3) if orientation == 1 else Format(width, height, 3)
    jpeg = saved(large, "JPEG", exif=exif)
    quick = decoded(jpeg, form).astype(int)
    whole = decoded(saved(Image.open(io.BytesIO(jpeg)), exif=exif), form).astype(int)
    assert np.abs(quick - whole).mean() < 1.5


# Bad files


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks)


BODY = chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))
WHOLE_JPEG = saved(Image.fromarray(noise(40, 40)), "JPEG")
WHOLE_PNG = saved(Image.fromarray(noise(40, 40)))
BAD_HEADS = {
    "empty": (b"", "expected a picture, found an empty file"),
    "text": (b"hello, world", "expected the head of a picture of one of PNG, JPEG, .*found none"),
    "pdf": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "found none"),
    "bomb": (png(60_000, 60_000, BODY), "expected at most 67,108,864 pixels, found more .*3600000"),
    "warned": (png(12_000, 12_000, BODY), "at most 67,108,864 pixels, found 144,000,000"),
    "large": (png(8_192, 8_193, BODY), "at most 67,108,864 pixels, found 67,117,056"),
    "gif bomb": (b"GIF89a" + b"\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\1\0\0;", "pixels"),
    "zTXt bomb": (png(4, 4, TEXT_BOMB, BODY), "Decompressed data too large"),
    "head of jpeg": (WHOLE_JPEG[:100], "cannot be|found none"),
}
BAD_BODIES = {
    "truncated png": (WHOLE_PNG[:-1000], "truncated"),
    "truncated jpeg": (WHOLE_JPEG[:-200], "truncated"),
    "no data": (png(4, 4, chunk(b"IEND", b"")), "cannot be decoded"),
    "little data": (png(4, 4, BODY), "truncated|cannot be decoded"),
    "late zTXt bomb": (WHOLE_PNG[:-12] + TEXT_BOMB + chunk(b"IEND", b""), "too large"),
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_a_bad_head_is_found_at_once(case: str, tmp_path: Path) -> None:
    content, reason = BAD_HEADS[case]
    listing = listings.list_classes(write(tmp_path, {"a/bad.png": content, "a/good.png": ANY}))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"1 of 2 files .*bad.png: .*{reason}.*--skip-bad"):
        pictures.prepare(listing)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    check_skipped(listing, reason)
    shard = PictureShard(listing, Format(4, 4, 3))  # that nobody inspected
    with pytest.raises(DataError, match=rf"bad.png: .*{reason}.*--skip-bad"):
        read(shard)


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_is_found_when_skipped_or_decoded(case: str, tmp_path: Path) -> None:
    content, reason = BAD_BODIES[case]
    listing = listings.list_classes(write(tmp_path, {"a/bad.png": content, "a/good.png": ANY}))
    shard, bad = pictures.prepare(listing)
    assert bad == {}
    with pytest.raises(DataError, match=rf"bad.png: .*{reason}.*--skip-bad"):
        read(shard)
    check_skipped(listing, reason)


def check_skipped(listing: Listing, reason: str) -> None:
    shard, bad = pictures.prepare(listing, skip_bad=True)
    ((path, found),) = bad.items()
    assert path.name == "bad.png"
    with pytest.raises(DataError, match=reason):
        raise DataError(found)
    assert [path.name for path in shard.listing.paths] == ["good.png"]
    assert shard.listing.labels.tolist() == [0]
    assert read(shard).shape == (1, 4, 4, 3)


def test_files_that_are_none_are_bad(tmp_path: Path) -> None:
    write(tmp_path, {"a/good.png": ANY})
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "a/dangling.png").symlink_to("nowhere")
    (tmp_path / "a/self.png").symlink_to("self.png")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    shard, bad = pictures.prepare(listings.list_classes(tmp_path), skip_bad=True)
    assert len(shard) == 1
    assert {path.name: reason for path, reason in bad.items()} == {
        "pipe.png": "expected a file, found something else, such as a pipe",
        "zero.png": "expected a file, found something else, such as a pipe",
        "dangling.png": "cannot be read (No such file or directory)",
        "self.png": "cannot be read (Too many levels of symbolic links)",
    }


def test_the_first_five_bad_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, {f"a/{i}.png": b"" for i in range(7)} | {"a/x.png": ANY})
    listing = listings.list_classes(tmp_path)
    with pytest.raises(
        DataError, match=r"7 of 8 .*0.png: .*4.png: [^;]*; …\. .*--skip-bad"
    ) as info:
        pictures.prepare(listing)
    assert "5.png" not in str(info.value)
    assert len(pictures.prepare(listing, skip_bad=True)[1]) == 7


def test_no_picture_left_is_an_error(tmp_path: Path) -> None:
    listing = listings.list_classes(write(tmp_path, {"a/1.png": b"", "a/2.png": b"x"}))
    with pytest.raises(DataError, match=r"2 of 2 files give no picture: .*No picture is left"):
        pictures.prepare(listing, skip_bad=True)


def test_a_skipped_picture_has_no_say_in_the_format(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": saved(GRAY), "a/2.png": WHOLE_PNG[:-1000]})
    write(tmp_path, {"a/3.png": WHOLE_PNG[:-1000]})
    shard, bad = pictures.prepare(listings.list_classes(tmp_path), skip_bad=True)
    assert (shard.shape, len(bad)) == ((6, 5, 1), 2)


def test_an_odd_error_of_a_decoder_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    listing = listings.list_classes(write(tmp_path, {"a/x.png": ANY}))
    shard, _ = pictures.prepare(listing)
    monkeypatch.setattr(Image.Image, "load", fails)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fails)
    with pytest.raises(DataError, match=r"x.png: cannot be decoded \(MemoryError: \)"):
        read(shard)


def test_warnings_of_pillow_stay_inside(tmp_path: Path) -> None:
    # EXIF that ends early, of which Pillow warns when it is opened
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x03\x01\x12\0\x03\0\0\0\x01\0\x06"
    content = saved(Image.new("L", (6, 4)), "JPEG", exif=exif)
    listing = listings.list_classes(write(tmp_path, {"a/x.jpg": content}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shard, _ = pictures.prepare(listing)
        read(shard)
        warnings.warn("not Pillow's", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["not Pillow's"]


VALID = [
    (suffix, saved(image, form, **options))
    for image in (COLOUR, GRAY, COLOUR.convert("P"), GRAY.convert("I;16"))
    for suffix, form, options in (
        (
            ".png",
            "PNG",
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"},
        ),
        (".gif", "GIF", {}),
        (".bmp", "BMP", {}),
        (".webp", "WEBP", {}),
        (".tif", "TIFF", {}),
        (".tiff", "TIFF", {"compression": "tiff_lzw"}),
        (".jpg", "JPEG", {}),
        (".pgm", "PPM", {}),
    )
    if image.mode in ("L", "RGB") or suffix in (".png", ".gif", ".tif")
    if (image.mode, suffix) != ("I;16", ".gif")
]


@st.composite
def hostile(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix, content = draw(st.sampled_from(VALID))
    if draw(st.integers(0, 4)) == 0:
        head = draw(st.integers(0, 16))
        return suffix, content[:head] + draw(st.binary(max_size=200))
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return suffix, bytes(changed[: draw(st.integers(len(content) // 2, len(content)))])


@settings(max_examples=200, deadline=None)
@given(hostile(), st.booleans())
def test_any_file_gives_pixels_or_the_one_error(picture: tuple[str, bytes], skip_bad: bool) -> None:
    suffix, content = picture
    try:
        image = decoded(content, suffix=suffix, image_size=(6, 5), skip_bad=skip_bad)
    except DataError:
        return
    assert image.shape in ((6, 5, 1), (6, 5, 3))


def test_valid_files_are_valid() -> None:
    for suffix, content in VALID:
        assert decoded(content, suffix=suffix, skip_bad=True).size


# Encoding


@pytest.mark.parametrize("channels", [1, 3])
def test_encoding_is_exact_and_always_the_same(channels: int) -> None:
    pixels = noise(9, 7, channels)
    content = pictures.encode(pixels)
    assert content == pictures.encode(pixels.copy(order="F"))
    assert content.startswith(b"\x89PNG")
    assert np.array_equal(decoded(content), pixels)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_other_arrays_are_not_encoded(image: Any) -> None:
    with pytest.raises(DataError, match="Expected an image uint8"):
        pictures.encode(image)
