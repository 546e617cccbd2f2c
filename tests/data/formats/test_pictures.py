from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import decoding, label_tables, listings, pictures
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.heads import Header
from deepcnn.errors import DataError
from tests.helpers.pictures import ANY, COLOUR, GRAY, decoded, noise, read, saved, write

# Real data, there and back


def test_real_images_come_back_from_class_folders(cifar10_test: Arrays, tmp_path: Path) -> None:
    count = 300
    for i in range(count):
        folder = tmp_path / cifar10_test.classes[cifar10_test.labels[i]]
        folder.mkdir(exist_ok=True)
        (folder / f"{i:05}.png").write_bytes(decoding.encode(cifar10_test.images[i]))
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
        (train / f"{i + 1}.png").write_bytes(decoding.encode(cifar10_test.images[i]))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "label"])
    for i in np.random.default_rng(0).permutation(count):
        writer.writerow([i + 1, cifar10_test.classes[cifar10_test.labels[i]]])
    table = tmp_path / "trainLabels.csv"
    table.write_text(text.getvalue())
    listing = label_tables.list_table(table, train, cifar10_test.classes)[None]
    shard, _ = pictures.prepare(listing)
    assert shard.name == str(train)
    assert np.array_equal(read(shard), cifar10_test.images[:count])
    assert np.array_equal(listing.labels, cifar10_test.labels[:count])
    found = label_tables.list_table(table, train)[None].classes
    assert found == tuple(sorted(cifar10_test.classes))


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


# Encoding


@pytest.mark.parametrize("channels", [1, 3])
def test_encoding_is_exact_and_always_the_same(channels: int) -> None:
    pixels = noise(9, 7, channels)
    content = decoding.encode(pixels)
    assert content == decoding.encode(pixels.copy(order="F"))
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
        decoding.encode(image)
