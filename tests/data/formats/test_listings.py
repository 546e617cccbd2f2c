from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepcnn.data.formats import label_tables, listings, pictures
from deepcnn.data.formats.listings import Listing
from deepcnn.errors import DataError
from tests.helpers.pictures import ANY, names, write

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
    assert len(listing.paths) == 12


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
        ({"a/x.png": b"", "b/.x": b""}, r"b: expected at least one picture .*found none \(1 such"),
        (
            {"a/x.png": b"", "b/2.heic": b"", "b/1.heic": b""},
            r"b: .*found 2 of other kinds, such as 1\.heic \(1 such class folder\)\. Save these",
        ),
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

    monkeypatch.setattr(os, "scandir", lambda _: nullcontext([Entry()]))
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


def listed(*arguments: Any) -> Listing:
    """List the pictures of a table that names no splits."""
    return label_tables.list_table(*arguments)[None]


def kaggle(root: Path, table: str | bytes, *files: str) -> tuple[Path, Path]:
    folder = root / "train"
    folder.mkdir(exist_ok=True)
    write(folder, dict.fromkeys(files, b""))
    path = root / "labels.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    return path, folder


def test_numeric_ids_are_read_in_order_and_labels_as_numbers(tmp_path: Path) -> None:
    table = "Image,Other,Category\r\n10,q,2\r\nx,q,10\r\n2,q,-1\r\n\r\n1,q,2\r\n"
    listing = listed(*kaggle(tmp_path, table, "1.JPG", "2", "10.png", "x.gif", "3.png"))
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
    listing = listed(*files)
    assert listing.classes == ("cat",)
    assert names(listing) == [("deep/2.png" if "deep" in row else "1.png", "cat")]


def test_a_whole_name_comes_before_a_suffix_and_png_before_jpeg(tmp_path: Path) -> None:
    files = ("1", "1.png", "2.jpg", "2.png", "3.png.gif", "3.png")
    table = "id,label\n1,a\n2,a\n3.png,a\n"
    listing = listed(*kaggle(tmp_path, table, *files))
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
        listed(*files)


def test_a_label_outside_the_given_classes_is_named(tmp_path: Path) -> None:
    files = kaggle(tmp_path, "id,label\n1,cow\n", "1.png")
    with pytest.raises(DataError, match="expected one of the labels 'cat', found 'cow' for the id"):
        listed(*files, ["cat"])
    assert listed(*files, ["cat", "cow"]).labels.tolist() == [1]


def test_a_missing_table_or_folder_is_named(tmp_path: Path) -> None:
    table, folder = kaggle(tmp_path, "id,label\n1,a\n", "1.png")
    with pytest.raises(DataError, match=r"none.csv: cannot be read \(No such file"):
        listed(tmp_path / "none.csv", folder)
    with pytest.raises(DataError, match="none: expected a folder"):
        listed(table, tmp_path / "none")


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
            listing = listed(*kaggle(Path(folder), content, "1.png", "2.png"))
        except DataError:
            return
        assert len(listing.paths) == len(listing.labels) > 0
        assert listing.labels.max() < len(listing.classes)
        assert all(path.is_file() for path in listing.paths)
