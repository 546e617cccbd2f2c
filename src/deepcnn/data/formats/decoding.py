"""Decodes pictures and brings them to one form.

Pictures of any size, depth and colour are brought to one `Format`, by this rule:

- The first picture counts in an animation or a file of several pictures.
- Depth: 16-bit gray is divided by 256; the values of 32-bit integer and float pictures are
  clipped to 0 to 255.
- Transparency is laid over black.
- Colours: gray if every picture of the set is, else RGB; a palette counts as colour.
- The orientation that EXIF states is applied.
- Size: a picture of the format's size keeps its exact pixels. Any other is scaled. With crop, its
  aspect is kept until it covers the size; then it is cropped around its centre. With pad, its
  aspect is kept until it fits into the size; then black is added around it. With squeeze, each side
  is scaled by itself. The filter is Lanczos: it averages when it shrinks a picture, and it is
  smooth when it enlarges one; a box filter would make blocks.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from PIL import __version__ as pillow

from deepcnn.data.formats import heads
from deepcnn.data.formats.heads import Header
from deepcnn.errors import DataError
from deepcnn.settings import Fit
from deepcnn.shown import shown

# The only decoders that a file may reach. MPO, a JPEG of several pictures, is opened as JPEG.
DECODERS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
MAX_PIXELS = 2**26
MAX_BYTES = 5 * MAX_PIXELS  # of memory while one is decoded: RGB takes 4 a pixel, and a little more
_DEAR_FORMATS = {"WEBP": 20, "TIFF": 12}  # whose decoders hold a picture several times
_WHOLE = 2**16  # bytes of a file that are read at once
# To open a pipe would else wait for its writer. Windows has no such flag, but texts.
_TO_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_ROWS = 256  # of a picture that are converted at a time
_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
_TRANSPOSITIONS = {  # EXIF 2.32, section 4.6.4 A, tag 274; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# As `warnings.filterwarnings` enters it.
_IGNORE_PILLOW: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


Source = Path | str | bytes | BinaryIO  # a file by its path, its bytes, or open


@dataclass(frozen=True)
class Format:
    """The form to which every picture is brought, by the rule at the head of this module.

    `height` and `width` are at least 1, `channels` is 1 (gray) or 3 (RGB). `fit`: how pictures of
    other sizes get this size.
    """

    height: int
    width: int
    channels: int
    fit: Fit = "crop"


class BadPictureError(Exception):
    """A file that holds no picture; the argument is the reason, without the file's name."""


def ignore_warnings_of_pillow() -> None:
    """Hide Pillow's warnings, for example of broken metadata, and keep them from being errors.

    A filter is put in front for the whole process and left there. `warnings.catch_warnings` would
    later restore the earlier filters, and so undo changes by other threads. This module checks what
    the warnings are about: `opened` refuses large pictures itself.
    """
    if list(warnings.filters[:1]) != [_IGNORE_PILLOW]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: Exception) -> str:
    """Return why a file holds no picture."""
    if isinstance(error, UnidentifiedImageError):
        return f"expected the head of a picture of one of {', '.join(DECODERS)}, found none"
    if isinstance(error, Image.DecompressionBombError):
        return f"expected at most {MAX_PIXELS:,} pixels, found more ({error})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    what = " ".join(str(error).split())
    return f"cannot be decoded ({type(error).__name__}: {shown(what)})"


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """Open a picture, a file or its bytes, and check its header; no pixel is decoded yet.

    Raises BadPictureError for everything that goes wrong, also inside the `with` statement.
    """
    with reasons(), _file_of(source) as file, Image.open(file, formats=DECODERS) as picture:
        _check_size(picture)
        yield picture


def _check_size(picture: Image.Image) -> None:
    """Raise BadPictureError for a picture that, by its header, takes too much memory."""
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise BadPictureError(f"expected at most {MAX_PIXELS:,} pixels, found {pixels:,}")
    if picture.format in _DEAR_FORMATS:
        each = _DEAR_FORMATS[picture.format]
    elif picture.info.get("progressive"):
        each = 10  # all coefficients are in memory before the first pixel is
    else:
        each = 9 if picture.mode in ("I", "F") or picture.has_transparency_data else 5
    if pixels * each > MAX_BYTES:
        raise BadPictureError(
            f"expected at most {MAX_BYTES // each:,} pixels of {picture.format} in mode "
            f"{picture.mode}, which takes {each} bytes of memory for each, found {pixels:,}"
        )


@contextmanager
def reasons() -> Iterator[None]:
    """Raise BadPictureError for all that goes wrong with a picture in the `with` statement."""
    ignore_warnings_of_pillow()
    try:
        yield
    except BadPictureError:
        raise
    # Pillow's decoders let through whatever their own parsing of hostile bytes runs into: OSError,
    # SyntaxError, ValueError, struct.error, zlib.error, KeyError, MemoryError and more, and the
    # list changes with its versions. None of them is a fault of this program.
    except Exception as error:
        raise BadPictureError(_reason(error)) from error


def _file_of(source: Source) -> AbstractContextManager[BinaryIO]:
    """Open a file, and read it whole if it is short, or take what is in memory or open already."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, (str, Path)):
        return nullcontext(source)
    try:
        number = os.open(source, _TO_READ)
    except OSError:
        _check_kind(os.stat(source))  # noqa: PTH116 (a Path takes as long as the call)
        raise
    keep = False
    try:
        status = os.fstat(number)
        _check_kind(status)
        content = os.read(number, _WHOLE)
        if len(content) == status.st_size:
            return io.BytesIO(content)
        os.lseek(number, 0, os.SEEK_SET)
        # An open file instead of its path keeps Pillow from mapping it into memory, where one that
        # shrinks meanwhile ends the process.
        keep = True
        return os.fdopen(number, "rb")
    finally:
        if not keep:
            os.close(number)


def _check_kind(status: os.stat_result) -> None:
    """Raise BadPictureError for what is no file, or an empty one."""
    if stat.S_ISDIR(status.st_mode):
        raise BadPictureError("expected a picture, found a folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        raise BadPictureError("expected a file, found something else, such as a pipe")
    if not status.st_size:
        raise BadPictureError("expected a picture, found an empty file")


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied, 1 to 8."""
    # TIFF pictures are turned by Pillow. Where there is no EXIF, asking for it would decode a PNG.
    if picture.format == "TIFF" or "exif" not in picture.info:
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF, which raises anything, takes nothing from the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bits(picture: Image.Image) -> NDArray[np.uint8]:
    """Return the values of a gray picture of more than 8 bits as uint8 [H, W]."""
    values = np.asarray(picture)
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I;16") or (picture.format == "PPM" and picture.mode == "I"):
        # Pillow holds 16-bit PGM in 32 bits.
        eight = (values >> 8).clip(0, 255).astype(np.uint8)
    else:
        eight = np.nan_to_num(values).clip(0, 255).astype(np.uint8)
    if isinstance(transparent, int):
        eight[values == transparent] = 0
    return eight


def converted(picture: Image.Image, channels: int) -> Image.Image:
    """Return a picture in mode L (1 channel) or RGB, without transparency."""
    mode = "L" if channels == 1 else "RGB"
    picture.load()  # even if nothing is to be converted, for this is what tells a truncated file
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _in_strips(picture, "L", lambda strip: Image.fromarray(_eight_bits(strip)))
    elif picture.has_transparency_data:
        picture = _in_strips(picture, mode, lambda strip: _over_black(strip).convert(mode))
    return picture if picture.mode == mode else picture.convert(mode)


def _over_black(picture: Image.Image) -> Image.Image:
    """Return a picture laid over black where it is transparent, in mode RGBA."""
    black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, picture.convert("RGBA"))


def _in_strips(
    picture: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Convert some rows of a picture at a time, so that memory holds no other copy of it."""
    found = Image.new(mode, picture.size)
    for top in range(0, picture.height, _ROWS):
        strip = picture.crop((0, top, picture.width, min(top + _ROWS, picture.height)))
        strip.format = picture.format
        found.paste(convert(strip), (0, top))
    return found


def turned(picture: Image.Image) -> bool:
    """Tell whether EXIF says that an open picture must be turned."""
    return _orientation(picture) != 1


def header_of(picture: Image.Image) -> Header:
    """Return what the header of an open picture says."""
    width, height = picture.size
    if _orientation(picture) >= 5:
        width, height = height, width
    gray = picture.mode in _GRAY_MODES or picture.mode.startswith("I;16")
    return Header(height, width, gray, picture.has_transparency_data)


def header(source: Source) -> Header:
    """Return what the header of a file, or of its bytes, says; no pixel is decoded.

    Raises BadPictureError if it is not a picture.
    """
    with reasons(), _file_of(source) as file:
        found = heads.common(file.read(heads.HEAD))
        if found is not None and 0 < 5 * found.height * found.width <= MAX_BYTES:
            return found
        file.seek(0)
        with opened(file) as picture:
            return header_of(picture)


def decode(source: Source, form: Format) -> NDArray[np.uint8]:
    """Return the pixels of a file, or of its bytes, uint8 [H, W, C], by this module's rule.

    Raises BadPictureError if it holds no picture.
    """
    with opened(source) as picture:
        size = 2 * max(form.height, form.width)
        # A large JPEG is decoded at half its size, a quarter or an eighth, which is faster, but no
        # smaller than twice what is needed: the rest is for the better filter. Other pictures stay.
        if min(picture.size) >= 2 * size:
            picture.draft(None, (size, size))
        return fit(picture, form)


def fit(picture: Image.Image, form: Format) -> NDArray[np.uint8]:
    """Return the pixels of an open picture, uint8 [H, W, C], by this module's rule."""
    orientation = _orientation(picture)
    image = converted(picture, form.channels)
    if orientation != 1:
        image = image.transpose(_TRANSPOSITIONS[orientation])
    if image.size != (form.width, form.height):
        image = _sized(image, (form.width, form.height), form.fit)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(form.height, form.width, form.channels)


def _sized(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(image, size, lanczos)
    return ImageOps.pad(image, size, lanczos) if fit == "pad" else image.resize(size, lanczos)


def encode(image: NDArray[np.uint8]) -> bytes:
    """Turn one image uint8 [H, W, C], gray (C = 1) or RGB (C = 3), into the bytes of a PNG.

    The same image gives the same bytes, with one version of Pillow. Raises DataError for other
    arrays.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise DataError(
            f"Expected an image uint8 [height, width, 1 or 3], found {image.dtype} "
            f"{list(image.shape)}. PNG files are written for gray and RGB images only."
        )
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def decoder() -> str:
    """Return the name of the decoder here; another one may give other pixels for the same JPEG."""
    jpeg = features.version_feature("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {pillow}, libjpeg {jpeg}"
