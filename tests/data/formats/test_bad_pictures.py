from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepcnn.data.formats import listings, pictures
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.listings import Listing
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.errors import DataError
from tests.helpers.pictures import ANY, COLOUR, GRAY, decoded, noise, read, saved, write


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
    assert isinstance(shard.listing, listings.Listing)
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
