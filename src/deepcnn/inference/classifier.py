"""A classifier: pictures in, names and probabilities out. It works without torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.formats.decoding import BadPictureError, Format, decode, fit, reasons
from deepcnn.data.formats.listings import SUFFIXES, PassedOver, is_folder, is_hidden
from deepcnn.errors import DataError
from deepcnn.inference.calibration import Calibration, Doubt, Floats, probabilities
from deepcnn.settings import Fit
from deepcnn.shown import shown

BATCH = 256  # pictures that are answered together

Pixels = NDArray[np.uint8]
One = str | Path | bytes | Image.Image | Pixels
Many = Iterable[One]


class Network(Protocol):
    """A network that answers: with torch, ONNX Runtime or OpenVINO."""

    def logits(self, images: Pixels) -> Floats:
        """Return the logits, float32 [N, classes], of images uint8 [N, H, W, C]."""


@dataclass(frozen=True)
class Prediction:
    """The answer for a picture.

    `source`: the picture's path, or its number if it has no path. `label`: the likeliest class,
    even if it is unsure. `probability`: that of the label. `probabilities`: float32 [classes], in
    the order of `Classifier.classes`. `unsure`: "error" if answers as unsure as this one are too
    often wrong, "unknown" if the picture is unlike everything in the training set, else None.
    """

    source: str
    label: str
    probability: float
    probabilities: Floats = field(repr=False, compare=False)
    unsure: Doubt = None


@dataclass(frozen=True)
class Unread:
    """A picture that could not be read, and why."""

    source: str
    error: str


class Classifier:
    """A trained network that answers about pictures; `deepcnn.load` opens one.

    `classes`: the names, in the order of the probabilities. `image_shape`: height, width and
    channels (1 for gray, 3 for RGB) of the images that the network takes.

    Every picture is brought to this shape in the same way as the training set's pictures. It is
    rotated as EXIF says, laid over black where it is transparent, and converted to gray or RGB.
    Then it is scaled, with its aspect kept, until it covers the size, and cropped around its
    centre. With another `fit` it is scaled as `DataSpec.fit` says. `form` holds the shape and the
    fit.
    """

    def __init__(
        self,
        network: Network,
        classes: tuple[str, ...],
        image_shape: tuple[int, int, int],
        calibration: Calibration | None = None,
        fit: Fit = "crop",
    ) -> None:
        self._network = network
        self.classes = classes
        self.image_shape = image_shape
        self.form = Format(*image_shape, fit)
        self.calibration = calibration

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        names = ", ".join(shown(name)[:30] for name in self.classes[:5])
        names += ", …" if len(self.classes) > 5 else ""
        return f"<Classifier of {len(self.classes)} classes ({names}), {height}×{width}×{channels}>"

    def probabilities(self, images: Pixels) -> Floats:
        """Return the probabilities, float32 [N, classes], of images uint8 [N, *image_shape]."""
        self._check(images)
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        return self._soften(self._network.logits(images))

    def predict(self, what: One | Many) -> Iterator[Prediction]:
        """Yield the answer for each picture, in order; memory does not grow with their number.

        `what`: a path, a folder (all pictures below it, by path), the bytes of a file, a PIL image,
        an array uint8 [H, W] or [H, W, C], or many of these. An array [N, H, W, C] holds many, too.

        A PIL image is used with the pixels that it has. The pixels of the same file may differ a
        little, since a large JPEG file is decoded at a fraction of its size.

        Raises DataError for a picture that cannot be read, naming it, and for anything else.
        """
        for found in self.try_predict(what):
            if isinstance(found, Unread):
                raise DataError(f"{shown(found.source)}: {found.error}")
            yield found

    def try_predict(self, what: One | Many, *, batch: int = BATCH) -> Iterator[Prediction | Unread]:
        """Yield the answer for each picture, or why it could not be read; see `predict`."""
        things = enumerate(_each(what))
        # each is read as it comes: pictures may be far larger than what is left of them
        while read := [(_name(one, i), self._read(one)) for i, one in islice(things, batch)]:
            images = [pixels for _, pixels in read if not isinstance(pixels, str)]
            names = [name for name, pixels in read if not isinstance(pixels, str)]
            answers = iter(self.answer(np.stack(images), names) if images else ())
            for name, pixels in read:
                yield Unread(name, pixels) if isinstance(pixels, str) else next(answers)

    def answer(self, images: Pixels, names: Sequence[str]) -> Iterator[Prediction]:
        """Yield the answer for each of the images uint8 [N, *image_shape], with these names."""
        self._check(images)
        if not len(images):
            return
        logits = self._network.logits(images)
        doubts: list[Doubt] = [None] * len(logits)
        if self.calibration is not None:
            doubts = self.calibration.doubts(images, logits)
        labels = logits.argmax(1).tolist()  # probabilities may be rounded to equal ones
        for name, label, chances, doubt in zip(
            names, labels, self._soften(logits), doubts, strict=True
        ):
            yield Prediction(name, self.classes[label], float(chances[label]), chances, doubt)

    def _soften(self, logits: Floats) -> Floats:
        return probabilities(logits, self.calibration.temperature if self.calibration else 1.0)

    def _read(self, one: One) -> Pixels | str:
        """Return the pixels of a picture, uint8 [*image_shape], or why there are none."""
        form = self.form
        try:
            if isinstance(one, np.ndarray):
                return self._from_array(one, form)
            self._check_channels()
            if isinstance(one, Image.Image):
                with reasons():
                    return fit(one, form)
            if one == "":
                raise BadPictureError("expected the path of a picture, found an empty one")
            return decode(io.BytesIO(one) if isinstance(one, bytes) else Path(one), form)
        except BadPictureError as error:
            return str(error)

    def _from_array(self, pixels: Pixels, form: Format) -> Pixels:
        if pixels.dtype == np.uint8 and pixels.shape == self.image_shape:
            return pixels
        flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        fits = flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4))
        if pixels.dtype != np.uint8 or not fits or not pixels.size:
            raise BadPictureError(
                "expected an image uint8 [height, width] or [height, width, 1, 3 or 4], found "
                f"{pixels.dtype} {list(pixels.shape)}"
            )
        self._check_channels()
        with reasons():
            return fit(Image.fromarray(flat), form)

    def _check_channels(self) -> None:
        """Raise BadPictureError if the network takes images that no picture can become."""
        if self.image_shape[2] not in (1, 3):
            raise BadPictureError(
                f"expected an array uint8 {list(self.image_shape)}: pictures are gray or RGB, and "
                f"this network takes {self.image_shape[2]} channels"
            )

    def _check(self, images: Pixels) -> None:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise DataError(
                f"images: expected uint8 [N, {', '.join(map(str, self.image_shape))}], found "
                f"{images.dtype} {list(images.shape)}"
            )


def pictures_below(folder: Path, passed: PassedOver | None = None) -> Iterator[Path]:
    """Yield the pictures in a folder and in all folders below it, by path, without hidden ones.

    Only the names in each folder on the way are held in memory. If a folder cannot be listed, the
    folder itself is yielded. A link to a folder that contains it is skipped. `passed` counts the
    other files.
    """
    return _below(folder, frozenset(), PassedOver() if passed is None else passed)


def _below(folder: Path, above: frozenset[str], passed: PassedOver) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        yield folder
        return
    for name in names:
        path = folder / name
        if is_folder(path):
            yield from _below(path, above | {real}, passed)
        elif name.lower().endswith(SUFFIXES):
            yield path
        elif not is_hidden(name):
            passed.add(path)


def _each(what: One | Many) -> Iterator[One]:
    """Yield pictures one by one; a folder becomes its pictures."""
    if isinstance(what, str | Path):
        yield from pictures_below(Path(what)) if is_folder(what) else [what]
    elif isinstance(what, bytes | Image.Image) or (isinstance(what, np.ndarray) and what.ndim < 4):
        yield what
    elif isinstance(what, np.ndarray) or _holds_others(what):
        for one in what:
            yield from _each(one)
    else:
        raise DataError(
            "expected a path, the bytes of a file, a PIL image, an array uint8, or several of "
            f"these, found {type(what).__name__}"
        )


def _holds_others(what: object) -> bool:
    """Tell whether something is iterated over for pictures; a tensor or a buffer is not."""
    is_values = isinstance(what, bytearray | memoryview) or hasattr(what, "__array__")
    return isinstance(what, Iterable) and not is_values


def _name(one: One, number: int) -> str:
    if isinstance(one, str | Path):
        return str(one)
    name = getattr(one, "filename", "")  # of a PIL image that was opened
    return os.fsdecode(name) if name else str(number)
