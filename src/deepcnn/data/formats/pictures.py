"""Picture files, decoded and brought to one form.

Pictures of any size, depth and colour are brought to one `Format`, by this rule:

- Of an animation or a file of several pictures the first counts.
- Depth: 16-bit gray is divided by 256; the values of 32-bit integer and float pictures are
  clipped to 0 to 255.
- Transparency is laid over black.
- Colours: gray if every picture of the set is, else RGB; a palette counts as colour.
- The orientation that EXIF states is applied.
- Size: a picture of the format's size keeps its exact pixels. Another is scaled, its aspect kept,
  until it covers that size, and is cut to it around its centre. The filter is Lanczos: it averages
  where it shrinks a picture, and where it enlarges one it is smooth, where a box filter would make
  blocks.
"""

from __future__ import annotations

import io
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from deepcnn.data.formats.listings import NAMED, Listing, shown
from deepcnn.data.shards import Blocks, Progress
from deepcnn.errors import DataError

# The only decoders that a file may reach. MPO, a JPEG of several pictures, is opened as JPEG.
DECODERS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
MAX_PIXELS = 2**26
MAX_SIDE = 128  # of a size that is chosen, not given

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


@dataclass(frozen=True)
class Format:
    """What every picture is brought to, by the rule at the head of this module.

    `height` and `width` are at least 1, `channels` is 1 (gray) or 3 (RGB).
    """

    height: int
    width: int
    channels: int


class Header(NamedTuple):
    """What the head of a file says: its size, once upright, and whether it is gray."""

    height: int
    width: int
    gray: bool


class _BadPictureError(Exception):
    """A file that gives no picture; the argument is the reason, without the file's name."""


# Decoding


def _ignore_warnings_of_pillow() -> None:
    """Keep Pillow's warnings, of broken metadata for example, from the user, or from being errors.

    A filter is put in front for the whole process and left there. `warnings.catch_warnings` would
    restore the filters of the moment, and so undo what other threads changed meanwhile. What the
    warnings are about is checked here: `_opened` refuses large pictures itself.
    """
    if list(warnings.filters[:1]) != [_IGNORE_PILLOW]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: Exception) -> str:
    """Return why a file gives no picture."""
    if isinstance(error, UnidentifiedImageError):
        return f"expected the head of a picture of one of {', '.join(DECODERS)}, found none"
    if isinstance(error, Image.DecompressionBombError):
        return f"expected at most {MAX_PIXELS:,} pixels, found more ({error})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    what = " ".join(str(error).split())
    return f"cannot be decoded ({type(error).__name__}: {shown(what)})"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture and check its head; decode no pixel yet.

    Raises _BadPictureError for whatever goes wrong, also inside the `with` statement.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
            raise _BadPictureError("expected a file, found something else, such as a pipe")
        if not status.st_size:
            raise _BadPictureError("expected a picture, found an empty file")
        # An open file instead of its path keeps Pillow from mapping it into memory, where one that
        # shrinks meanwhile ends the process.
        with path.open("rb") as file, Image.open(file, formats=DECODERS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _BadPictureError(
                    f"expected at most {MAX_PIXELS:,} pixels, found "
                    f"{picture.width * picture.height:,}"
                )
            yield picture
    except _BadPictureError:
        raise
    # Pillow's decoders let through whatever their own parsing of hostile bytes runs into: OSError,
    # SyntaxError, ValueError, struct.error, zlib.error, KeyError, MemoryError and more, and the
    # list changes with its versions. None of them is a fault of this program.
    except Exception as error:
        raise _BadPictureError(_reason(error)) from error


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


def _converted(picture: Image.Image, channels: int) -> Image.Image:
    """Return a picture in mode L or RGB, without transparency."""
    mode = "L" if channels == 1 else "RGB"
    picture.load()  # even if nothing is to be converted, for this is what tells a truncated file
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = Image.fromarray(_eight_bits(picture))
    elif picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return picture if picture.mode == mode else picture.convert(mode)


def _header(picture: Image.Image) -> Header:
    width, height = picture.size
    if _orientation(picture) >= 5:
        width, height = height, width
    gray = picture.mode in _GRAY_MODES or picture.mode.startswith("I;16")
    return Header(height, width, gray)


def _decode(path: Path, form: Format) -> NDArray[np.uint8]:
    """Return the pixels of a file, uint8 [H, W, C], by the rule at the head of this module."""
    with _opened(path) as picture:
        orientation = _orientation(picture)
        size = (form.width, form.height)
        # A large JPEG is decoded at half its size, a quarter or an eighth, which is faster, but no
        # smaller than twice what is needed: the rest is for the better filter. Other pictures stay.
        picture.draft(None, (2 * max(size), 2 * max(size)))
        image = _converted(picture, form.channels)
        if orientation != 1:
            image = image.transpose(_TRANSPOSITIONS[orientation])
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(form.height, form.width, form.channels)


def inspect(
    listing: Listing, *, decode: bool = False, progress: Progress | None = None
) -> tuple[Listing, list[Header], dict[Path, str]]:
    """Return the pictures that can be read, their headers, and for each other file the reason.

    Only headers are read, or with `decode` whole files: then none that is returned is truncated.
    """
    _ignore_warnings_of_pillow()
    headers: list[Header] = []
    good: list[int] = []
    bad: dict[Path, str] = {}
    for index, path in enumerate(listing.paths):
        try:
            with _opened(path) as picture:
                header = _header(picture)
                if decode:
                    _converted(picture, 1 if header.gray else 3)
        except _BadPictureError as error:
            bad[path] = str(error)
        else:
            good.append(index)
            headers.append(header)
        if progress is not None and index % 100 == 99:
            progress(index + 1, len(listing.paths))
    if bad:
        paths = tuple(listing.paths[index] for index in good)
        listing = replace(listing, paths=paths, labels=listing.labels[good])
    return listing, headers, bad


def choose_format(headers: Iterable[Header], image_size: tuple[int, int] | None = None) -> Format:
    """Choose what the pictures of a set are brought to; there is at least one.

    One channel if all are gray, else three. The height and width are `image_size`, or else those
    that most pictures have, among several the smallest area, then the smallest height. Where a side
    of that is above MAX_SIDE, it is scaled down until its longest side is MAX_SIDE.
    """
    headers = list(headers)
    channels = 1 if all(header.gray for header in headers) else 3
    if image_size is not None:
        return Format(*image_size, channels)
    counts = Counter((header.height, header.width) for header in headers)
    height, width = min(counts, key=lambda size: (-counts[size], size[0] * size[1], size[0]))
    longest = max(height, width)
    if longest > MAX_SIDE:
        height = max(1, round(height * MAX_SIDE / longest))
        width = max(1, round(width * MAX_SIDE / longest))
    return Format(height, width, channels)


@dataclass(frozen=True, eq=False)
class PictureShard:
    """A listing as a `Shard`: each picture is decoded when it is read, by the head's rule.

    A block holds its own arrays, and while it is made one decoded file, of at most MAX_PIXELS.
    """

    listing: Listing
    form: Format

    @property
    def name(self) -> str:
        """The root of the listing."""
        return str(self.listing.root)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.form.height, self.form.width, self.form.channels

    @property
    def seekable(self) -> bool:
        """Each picture is a file of its own."""
        return True

    def __len__(self) -> int:
        return len(self.listing.paths)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield images uint8 [k, H, W, C] and labels int64 [k]; see `Shard.blocks`.

        Raises DataError, naming the file, for one that cannot be decoded.
        """
        # No threads: small pictures gain nothing, for most of their time is Pillow's Python code.
        for first in range(start, stop, size):
            _ignore_warnings_of_pillow()
            last = min(first + size, stop)
            images = np.empty((last - first, *self.shape), np.uint8)
            for image, path in zip(images, self.listing.paths[first:last], strict=True):
                try:
                    image[...] = _decode(path, self.form)
                except _BadPictureError as error:
                    raise DataError(
                        f"{shown(path)}: {error}. Mend or remove the file, or leave such files "
                        "out with --skip-bad."
                    ) from error
            yield images, self.listing.labels[first:last].copy()


def prepare(
    listing: Listing,
    *,
    form: Format | None = None,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[PictureShard, dict[Path, str]]:
    """Inspect the pictures of a listing, choose their format, and return the shard that reads them.

    `form`: the format, where another split of the set has settled it; else it is chosen, with
    `image_size` (height and width) if given; see `choose_format`. With `skip_bad` every file is
    decoded once, and those that fail are left out and returned with the reason. Without, only
    headers are read: a bad one raises DataError here, and a truncated file when it is decoded.
    Raises DataError too where no picture is left.
    """
    good, headers, bad = inspect(listing, decode=skip_bad, progress=progress)
    if not headers or (bad and not skip_bad):
        named = "; ".join(f"{shown(path)}: {bad[path]}" for path in list(bad)[:NAMED])
        advice = (
            "No picture is left."
            if skip_bad
            else "Mend or remove them, or leave them out with --skip-bad."
        )
        raise DataError(
            f"{shown(listing.root)}: {len(bad):,} of {len(listing.paths):,} files give no "
            f"picture: {named}{'; …' if len(bad) > NAMED else ''}. {advice}"
        )
    return PictureShard(good, form or choose_format(headers, image_size)), bad


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
