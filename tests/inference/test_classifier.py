from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import listings
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.errors import DataError
from deepcnn.inference.calibration import Calibration
from deepcnn.inference.classifier import Classifier, Prediction, Unread, pictures_below
from tests.helpers.pictures import noise, read, saved, write

Pixels = NDArray[np.uint8]
CLASSES = ("red", "green", "blue")
RED, GREEN, BLUE = (Image.new("RGB", (12, 10), colour) for colour in CLASSES)
GREEN_PNG = saved(GREEN)


class Brightest:
    """Stands for a network: the class is the brightest channel. It keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Pixels] = []

    def logits(self, images: Pixels) -> NDArray[np.float32]:
        self.asked.append(images)
        means = images.mean((1, 2), dtype=np.float32) / 25
        return np.asarray(means if images.shape[3] == 3 else np.repeat(means, 3, axis=1))


def classifier(
    *shape: int, calibration: Calibration | None = None
) -> tuple[Classifier, list[Pixels]]:
    """A classifier, and a list of the blocks of images that its network sees."""
    height, width, channels = shape or (8, 8, 3)
    network = Brightest()
    return Classifier(network, CLASSES, (height, width, channels), calibration), network.asked


def seen(what: Any, *shape: int) -> Pixels:
    """What the network sees of one picture."""
    ours, asked = classifier(*shape)
    (_,) = ours.predict(what)
    ((image,),) = asked
    return np.asarray(image)


def labels(what: Any) -> list[str]:
    return [found.label for found in classifier()[0].predict(what)]


# All that may be asked about


def test_paths_texts_bytes_and_images_give_the_same_pixels(
    tmp_path: Path, cifar10_test: Arrays
) -> None:
    for i, image in enumerate(cifar10_test.images[:5]):
        path = tmp_path / f"{i}.png"
        picture = Image.fromarray(image).resize((21 + i, 34))
        picture.save(path)
        expected = seen(path, 32, 32, 3)
        for what in (str(path), path.read_bytes(), picture, np.asarray(picture), [path], (path,)):
            assert np.array_equal(seen(what, 32, 32, 3), expected)
        with Image.open(path) as opened:
            assert np.array_equal(seen(opened, 32, 32, 3), expected)
        picture.resize((32, 32)).save(path)  # pixels of the right size stay as they are
        assert np.array_equal(seen(path, 32, 32, 3), np.asarray(picture.resize((32, 32))))


def test_a_folder_means_all_pictures_below_it_by_path(tmp_path: Path) -> None:
    files = ["b.png", "a/z.JPG", "a/y/x.gif", "c.txt", ".hidden.png", ".d/e.png", "a-.png"]
    write(tmp_path, dict.fromkeys(files, GREEN_PNG))
    found = list(classifier()[0].predict(tmp_path))
    assert [Path(f.source).relative_to(tmp_path).as_posix() for f in found] == [
        "a/y/x.gif",
        "a/z.JPG",
        "a-.png",
        "b.png",
    ]
    assert {f.label for f in found} == {"green"}
    (tmp_path / "empty").mkdir()
    assert list(classifier()[0].predict(tmp_path / "empty")) == []


def test_a_link_to_a_folder_above_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"set/a/1.png": GREEN_PNG, "other/2.png": GREEN_PNG})
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "other")
    (tmp_path / "set" / "c.png").symlink_to(tmp_path / "set" / "c.png")
    names = [path.relative_to(tmp_path).as_posix() for path in pictures_below(tmp_path / "set")]
    assert names == ["set/a/1.png", "set/b/2.png", "set/c.png"]


def test_a_folder_that_cannot_be_listed_is_an_unread_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a/1.png": GREEN_PNG, "b/2.png": GREEN_PNG})
    plain = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr("os.scandir", scandir)
    unread, known = classifier()[0].try_predict(tmp_path)
    assert unread == Unread(
        str(tmp_path / "a"), "expected a picture, found a folder that cannot be listed"
    )
    assert known.source == str(tmp_path / "b" / "2.png")


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_images_of_every_mode_are_brought_to_rgb(mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 20, dtype=np.uint8), (10, 1)))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(ramp).astype(np.uint16) << 8)
    else:
        image = ramp.convert("RGBA" if mode == "RGBa" else "RGB" if mode == "HSV" else "L")
        image = image.convert("LA" if mode == "PA" else mode).convert(mode)
    assert image.mode == mode
    found = seen(image, 10, 12, 3)
    expected = np.asarray(ramp if mode != "1" else image.convert("L"))
    assert np.abs(found.astype(int) - expected[:, :, None]).max() <= (0 if mode != "HSV" else 1)
    assert seen(image, 10, 12, 1).shape == (10, 12, 1)


def test_transparency_lies_over_black_and_palettes_are_colours() -> None:
    clear = Image.new("RGBA", (12, 10), (255, 255, 255, 0))
    assert seen(clear).max() == 0
    half = Image.new("RGBA", (12, 10), (200, 100, 0, 128))
    assert np.abs(seen(half)[0, 0].astype(int) - [100, 50, 0]).max() <= 1
    palette = GREEN.quantize(4)
    assert palette.mode == "P"
    assert np.array_equal(seen(palette)[0, 0], (0, 128, 0))
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert seen(palette).max() == 0
    array = np.zeros((5, 5, 4), np.uint8)
    array[..., :3] = 255
    assert seen(array).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int) -> None:
    image = Image.fromarray(noise(10, 12))
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda x: x.transpose(1, 0, 2)[::-1],
    }[orientation](noise(10, 12))
    assert np.array_equal(seen(buffer.getvalue(), *turned.shape), turned)
    with Image.open(buffer) as opened:
        assert np.array_equal(seen(opened, *turned.shape), turned)
        assert opened.size == (12, 10)  # it is the caller's, and stays as it was


def test_arrays_of_every_shape_are_taken() -> None:
    gray = noise(10, 12, 1)
    assert np.array_equal(seen(gray[:, :, 0], 10, 12, 1), gray)
    assert np.array_equal(seen(gray, 10, 12, 1), gray)
    assert np.array_equal(seen(gray, 10, 12, 3), gray.repeat(3, 2))
    assert np.array_equal(seen(noise(10, 12), 10, 12, 3), noise(10, 12))
    strange = noise(20, 24)[::-2, ::2, ::-1]  # of no order in memory
    assert np.array_equal(seen(strange, 10, 12, 3), strange)
    assert np.array_equal(seen(strange, 5, 5, 3), seen(strange.copy(), 5, 5, 3))
    many = np.stack([np.asarray(image) for image in (RED, BLUE, GREEN)])
    assert labels(many) == ["red", "blue", "green"]
    assert labels(list(many)) == ["red", "blue", "green"]
    assert labels(many[:, :8, :8]) == ["red", "blue", "green"]
    assert labels(many[:0]) == []
    assert labels(many[None]) == ["red", "blue", "green"]


def test_many_of_any_kind_are_taken_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, {"set/1.png": saved(RED), "set/2.png": saved(GREEN), "x.png": saved(BLUE)})
    stack = np.stack([np.asarray(BLUE), np.asarray(RED)])
    nested: Any = [GREEN, [stack, tmp_path / "set"], (str(tmp_path / "x.png"),), [], saved(RED)]
    expected = ["green", "blue", "red", "red", "green", "blue", "red"]
    assert labels(nested) == expected
    assert labels(iter(nested)) == expected
    assert labels(one for one in nested) == expected
    assert labels([]) == []
    sources = [found.source for found in classifier()[0].predict(nested)]
    files = [tmp_path / "set" / "1.png", tmp_path / "set" / "2.png", tmp_path / "x.png"]
    assert sources == ["0", "1", "2", *map(str, files), "6"]
    with Image.open(tmp_path / "x.png") as opened:
        assert next(classifier()[0].predict(opened)).source == str(tmp_path / "x.png")


# The same pixels as those of a training


def test_pictures_are_brought_to_size_as_the_training_sets_are(
    tmp_path: Path, cifar10_test: Arrays
) -> None:
    """Bit for bit, whether they are asked for by path or by their bytes."""
    image = Image.fromarray(cifar10_test.images[0])
    exif = image.getexif()
    exif[0x0112] = 6
    sixteen = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    files = {
        "a/1.png": saved(image.resize((33, 32))),
        "a/2.png": saved(image.resize((7, 91))),
        "a/3.jpg": saved(image.resize((301, 200)), "JPEG"),  # decoded at a fraction of its size
        "a/4.jpeg": saved(image.resize((61, 37)), "JPEG", exif=exif),
        "b/5.gif": saved(image.resize((50, 33)).quantize(16), "GIF"),
        "b/6.png": saved(clear.resize((45, 46))),
        "b/7.png": saved(sixteen.resize((35, 29), Image.Resampling.NEAREST)),
        "b/8.webp": saved(image.resize((3, 5)), "WEBP", lossless=True),
        "b/9.bmp": saved(image, "BMP"),
    }
    listing = listings.list_classes(write(tmp_path, files))
    for channels in (1, 3):
        expected = read(PictureShard(listing, Format(32, 32, channels)))
        for what in (tmp_path, listing.paths, map(str, listing.paths), files.values()):
            ours, asked = classifier(32, 32, channels)
            list(ours.predict(what))
            assert np.array_equal(np.concatenate(asked), expected)


# Order, memory and errors


def test_order_is_kept_and_pictures_are_answered_in_blocks() -> None:
    images: list[Any] = [RED, GREEN, BLUE, b"none", GREEN, BLUE, b"none"]
    ours, asked = classifier()
    found = list(ours.try_predict(images, batch=3))
    assert [type(each) for each in found] == [
        Unread if one == b"none" else Prediction for one in images
    ]
    expected = ["red", "green", "blue", "green", "blue"]
    assert [each.label for each in found if isinstance(each, Prediction)] == expected
    assert [each.source for each in found] == list("0123456")
    assert list(map(len, asked)) == [3, 2]  # of the last block nothing could be read


def test_pictures_are_asked_for_as_they_are_answered_and_not_kept() -> None:
    given: list[weakref.ref[Image.Image]] = []

    def pictures() -> Iterator[Image.Image]:
        while True:
            assert sum(one() is not None for one in given) <= 1
            image = Image.new("RGB", (50, 50), "red")
            given.append(weakref.ref(image))
            yield image
            del image

    answers = classifier()[0].try_predict(pictures(), batch=4)
    for _ in range(9):
        assert isinstance(next(answers), Prediction)
    assert len(given) == 12


def test_pictures_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    good = saved(Image.fromarray(noise(40, 40)))
    write(
        tmp_path,
        {"cut.png": good[:900], "empty.png": b"", "text.png": b"no picture", "ok.png": good},
    )
    os.mkfifo(tmp_path / "pipe.png")
    found = {Path(each.source).name: each for each in classifier()[0].try_predict(tmp_path)}
    assert isinstance(found.pop("ok.png"), Prediction)
    reasons = {name: each.error for name, each in found.items() if isinstance(each, Unread)}
    assert reasons == {
        "cut.png": reasons["cut.png"],
        "empty.png": "expected a picture, found an empty file",
        "pipe.png": "expected a file, found something else, such as a pipe",
        "text.png": reasons["text.png"],
    }
    assert reasons["cut.png"].startswith("cannot be decoded (OSError: ")
    assert reasons["text.png"].startswith("expected the head of a picture of one of PNG, JPEG,")


@pytest.mark.parametrize("name", ["none.png", "a" * 300, "a" * 5000, "nul\0.png", "", "a/b/c.png"])
def test_names_of_no_file_are_unread(name: str) -> None:
    (unread,) = classifier()[0].try_predict(name)
    assert isinstance(unread, Unread)
    assert unread.source == name
    with pytest.raises(DataError, match=r": (cannot be|expected)"):
        list(classifier()[0].predict(name))


def test_predict_answers_until_what_cannot_be_read(tmp_path: Path) -> None:
    hostile = tmp_path / "\x1b[31m.png"
    answers = classifier()[0].predict([RED, GREEN, hostile, BLUE])
    assert [next(answers).label, next(answers).label] == ["red", "green"]
    with pytest.raises(DataError, match=r"cannot be read \(No such file") as raised:
        next(answers)
    assert str(raised.value).isprintable()


def test_an_opened_image_that_is_cut_short_is_unread(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(noise(40, 40)))
    with Image.open(io.BytesIO(whole[:900])) as opened:
        (unread,) = classifier()[0].try_predict(opened)
    assert isinstance(unread, Unread)
    assert "cannot be decoded" in unread.error


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 8, 8, 2), np.uint8),
    ],
)
def test_other_arrays_are_unread(array: NDArray[Any]) -> None:
    (unread,) = classifier()[0].try_predict(array)
    assert isinstance(unread, Unread)
    assert unread.error.startswith("expected an image uint8 [height, width] or ")
    assert f"{array.dtype} " in unread.error


@pytest.mark.parametrize("what", [None, 3, 1.5, [[1]], bytearray(b"x"), memoryview(b"x"), object()])
def test_what_is_no_picture_is_refused(what: Any) -> None:
    with pytest.raises(DataError, match="expected a path, the bytes of a file, a PIL image"):
        list(classifier()[0].predict(what))


def test_a_network_of_other_channels_takes_arrays_alone(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": GREEN_PNG})
    ours = Classifier(Brightest(), CLASSES, (8, 8, 2))
    for what in (tmp_path / "a.png", GREEN, GREEN_PNG, np.zeros((9, 9, 3), np.uint8)):
        (unread,) = ours.try_predict(what)
        assert isinstance(unread, Unread)
        assert "this network takes 2 channels" in unread.error
    (found,) = Classifier(Brightest(), CLASSES, (8, 8, 1)).predict(np.zeros((8, 8, 1), np.uint8))
    assert found.label == "red"


# Answers


def test_an_answer_has_the_likeliest_class_and_all_probabilities() -> None:
    ours, _ = classifier(calibration=Calibration(1, False, "test", 10, temperature=2.0))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    logits = images.mean((1, 2)) / 25 / 2.0
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(ours.probabilities(images), expected, rtol=1e-4)
    for found, chances in zip(ours.predict(images), expected, strict=True):
        np.testing.assert_allclose(found.probabilities, chances, rtol=1e-4)
        assert found.label == CLASSES[int(chances.argmax())]
        assert found.probability == found.probabilities.max()
        assert found.unsure is None
    plain, _ = classifier()
    assert not np.allclose(plain.probabilities(images), expected, rtol=1e-2)


def test_doubts_are_those_of_the_calibration() -> None:
    calibration = Calibration(1, False, "test", 10, least_probability=0.5, least_energy=2.5)
    ours, _ = classifier(calibration=calibration)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = 60, 60, 50
    images[2] = 255, 0, 0
    assert [found.unsure for found in ours.predict(images)] == ["unknown", "error", None]
    assert [found.unsure for found in classifier()[0].predict(images)] == [None] * 3


def test_no_images_have_no_answers() -> None:
    ours, asked = classifier()
    none = np.zeros((0, 8, 8, 3), np.uint8)
    assert ours.probabilities(none).shape == (0, 3)
    assert list(ours.answer(none, [])) == []
    assert asked == []


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32)]
)
def test_probabilities_of_other_arrays_are_refused(images: Pixels) -> None:
    with pytest.raises(DataError, match=r"images: expected uint8 \[N, 8, 8, 3\], found "):
        classifier()[0].probabilities(images)


def test_what_is_shown_fits_on_a_line() -> None:
    names = ("z", "\x1b[31m", *(f"{'long' * 40}{i}" for i in range(98)))
    ours = Classifier(Brightest(), names, (8, 9, 3))
    assert len(repr(ours)) < 250
    assert repr(ours).isprintable()
    assert repr(ours).startswith("<Classifier of 100 classes (z, '\\x1b[31m', longlong")
    assert repr(ours).endswith(", …), 8×9×3>")
    assert repr(classifier()[0]) == "<Classifier of 3 classes (red, green, blue), 8×8×3>"
    (found,) = classifier()[0].predict(RED)
    assert "probabilities" not in repr(found)
    assert repr(found).startswith("Prediction(source='0', label='red', probability=0.99")


def test_predictions_can_be_compared_and_counted() -> None:
    first, second = classifier()[0].predict([RED, RED])
    (again,) = classifier()[0].predict([RED])
    assert first == again
    assert first != second
    assert len({first, again, second}) == 2
