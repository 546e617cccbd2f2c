"""Folders of picture files: a folder for each class, or one flat folder with a table of labels.

Two forms in wide use. `list_classes` reads the one of torchvision's ImageFolder
(https://pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html): pictures of
class c lie below `root/c`. `list_table` reads the one of Kaggle's competitions
(https://www.kaggle.com/competitions/cifar-10/data): a CSV names each picture's label.

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

import csv
import errno
import io
import os
import re
import stat
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from deepcnn.data.shards import Blocks, Progress
from deepcnn.errors import DataError

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
)
# The only decoders that a file may reach. MPO, a JPEG of several pictures, is opened as JPEG.
DECODERS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
MAX_PIXELS = 2**26
MAX_SIDE = 128  # of a size that is chosen, not given
MAX_NAME_BYTES = 200
NAMED = 5  # bad files that an error names

ID_COLUMNS = frozenset({"id", "image", "file", "filename", "file_name", "path", "image_id"})
LABEL_COLUMNS = frozenset({"label", "class", "target", "category"})

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\%:*?"<>|]|\A\.|[. ]\Z')
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # longer ones are text to sort

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


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a set in reading order, none of them opened yet.

    `root`: what errors call the set; `paths`: N files; `labels`: int64 [N], indices into `classes`.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


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


def _shown(name: object) -> str:
    """Return a name as an error shows it: on one line, and in characters that can be printed."""
    text = str(name)
    return text if text.isprintable() else repr(text)


# Names of classes and folders


def folder_name(class_name: str) -> str:
    r"""Return a folder name for a class that is safe on every system; `class_name` undoes it.

    Percent signs, slashes, backslashes, control characters, any of `:*?"<>|`, a leading dot and
    a trailing dot or space become `%XX`, a byte of their UTF-8 each. Raises DataError for the empty
    name, one of more than 200 bytes in UTF-8, and one that UTF-8 cannot hold.
    """
    try:
        size = len(class_name.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"Class {class_name!r}: expected a name that can be written in UTF-8, found a lone "
            f"surrogate at character {error.start}. Rename the class."
        ) from error
    if not 0 < size <= MAX_NAME_BYTES:
        raise DataError(
            f"Class {class_name!r}: expected a name of 1 to {MAX_NAME_BYTES} bytes in UTF-8, found "
            f"{size}. Rename the class."
        )
    return _UNSAFE.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), class_name)


def class_name(folder: str) -> str:
    """Return the class whose folder `folder_name` called so; other percent signs stay."""

    def unescape(match: re.Match[str]) -> str:
        try:
            return bytes.fromhex(match[0].replace("%", "")).decode()
        except UnicodeDecodeError:
            return match[0]

    return _ESCAPED.sub(unescape, folder)


# Listing


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{_shown(folder)}: expected a folder that can be read, found: {error.strerror}. Check "
            "the path and its permissions."
        ) from error
    return sorted(found, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself leads to no folder
            return False
        raise DataError(
            f"{_shown(entry.path)}: expected a link that can be followed, found: {error.strerror}. "
            "Check the permissions of what it leads to."
        ) from error


def _label_of(classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each class: its position."""
    labels = {name: label for label, name in enumerate(classes)}
    if len(labels) < len(classes):
        twice = next(name for name, count in Counter(classes).items() if count > 1)
        raise DataError(f"Expected classes that differ, found {twice!r} twice. Name each once.")
    return labels


def _few(names: Sequence[str]) -> str:
    """Return the first few names, for an error."""
    return ", ".join(map(repr, names[:NAMED])) + (", …" if len(names) > NAMED else "")


def _class_folders(root: Path, classes: Sequence[str] | None) -> dict[Path, tuple[Path, str]]:
    """Return, for each class folder's real path, the folder and the class, in order of names."""
    known = None if classes is None else _label_of(classes)
    real_root = root.resolve()
    folders: dict[Path, tuple[Path, str]] = {}
    for entry in _entries(root):
        if not _is_folder(entry):
            continue
        path = root / entry.name
        real = path.resolve()
        if real_root.is_relative_to(real):  # a link that leads back up
            continue
        if real in folders:
            raise DataError(
                f"{_shown(path)}: expected a folder of its own for each class, found the same one "
                f"as {_shown(folders[real][0])}. Remove one of the two."
            )
        name = entry.name
        if known is not None:
            # A folder that `folder_name` named comes first: only then is its round trip exact.
            name = next((n for n in (class_name(name), name) if n in known), name)
            if name not in known:
                raise DataError(
                    f"{_shown(path)}: expected a folder of one of the {len(known):,} classes "
                    f"{_few(list(known))}, found {name!r}. Rename or remove it."
                )
        elif any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(
                f"{_shown(path)}: expected a class name in UTF-8, found other bytes. Rename the "
                "folder."
            )
        folders[real] = (path, name)
    if not folders:
        raise DataError(
            f"{_shown(root)}: expected a sub-folder for each class, with its pictures "
            f"({', '.join(SUFFIXES)}), found no sub-folder."
        )
    return folders


def list_classes(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """List the pictures of `root/class/…`, those in deeper folders included.

    The classes are the names of the sub-folders, in order of their code points, or `classes`, which
    then must have all of them; only then are names that `folder_name` made turned back. A picture
    is a file with one of SUFFIXES, in any case. Other files and hidden ones are passed over. The
    order is by file name, then class, then path, so that names written with running numbers keep
    their order. Links are followed; a folder that several ways lead to counts once, for the class
    that it really lies in, so that loops end.

    Raises DataError where a folder cannot be read, a class folder has no picture, or there is none.
    """
    folders = _class_folders(root, classes)
    if classes is None:
        classes = sorted(name for _, name in folders.values())
    label_of = _label_of(classes)
    real_root = root.resolve()
    visited = {real_root, *real_root.parents}
    found: list[tuple[str, int, str]] = []
    without = {path for path, _ in folders.values()}
    # Each folder with its real path and the class folder that it counts for. Links wait on the
    # right until all real folders are done, for where a folder really lies decides its class.
    pending = deque((path, real, path, label_of[name]) for real, (path, name) in folders.items())
    while pending:
        folder, real, top, label = pending.popleft()
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(folder):
            path = folder / entry.name
            if _is_folder(entry):
                target = path.resolve() if entry.is_symlink() else real / entry.name
                if target not in folders:  # class folders count for themselves
                    add = pending.append if entry.is_symlink() else pending.appendleft
                    add((path, target, top, label))
            elif entry.name.lower().endswith(SUFFIXES):
                found.append((entry.name, label, str(path)))
                without.discard(top)
    if without:
        raise DataError(
            f"{_shown(min(without))}: expected at least one picture ({', '.join(SUFFIXES)}), found "
            f"none ({len(without):,} such class folders). Remove the folder, or add pictures."
        )
    found.sort()
    labels = np.array([label for _, label, _ in found], np.int64)
    return Listing(root, tuple(Path(path) for *_, path in found), labels, tuple(classes))


def _read_table(table: Path) -> str:
    """Return the text of a CSV file."""
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DataError(f"{_shown(table)}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{_shown(table)}, line {line:,}: expected text in UTF-8, found the byte "
            f"0x{content[error.start]:02X} at offset {error.start:,}. Save the table as UTF-8."
        ) from error
    if "\0" in text:
        offset = text.index("\0")
        raise DataError(
            f"{_shown(table)}, line {text.count(chr(10), 0, offset) + 1:,}: expected text, found a "
            "NUL byte. The file is damaged, or not a CSV in UTF-8."
        )
    return text


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file that are not blank, with the line on which each ends."""
    reader = csv.reader(io.StringIO(_read_table(table), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{_shown(table)}, line {reader.line_num:,}: expected comma-separated values, found: "
            f"{error}. Mend the line."
        ) from error


def _columns(header: Sequence[str]) -> tuple[int, int]:
    """Return the places of the identifiers and of the labels."""
    names = [name.strip().lower() for name in header]
    named = next((i for i, name in enumerate(names) if name in ID_COLUMNS), None)
    label = next((i for i, name in enumerate(names) if name in LABEL_COLUMNS), None)
    if label is None:
        label = 0 if named == 1 else 1
    if named is None:
        named = 1 if label == 0 else 0
    return named, label


def _picture_names(folder: Path) -> dict[str, str]:
    """Return the file name that each identifier stands for: a file name, whole or without suffix.

    A whole name comes first, then the suffixes in the order of SUFFIXES.
    """
    names = [entry.name for entry in _entries(folder) if not _is_folder(entry)]
    found = {name: name for name in names}
    for suffix in SUFFIXES:
        for name in names:
            if name.lower().endswith(suffix):
                found.setdefault(name[: -len(suffix)], name)
    return found


def _number_first(text: str) -> tuple[bool, int, str]:
    """Order integers by value, and before all else."""
    number = _INTEGER.fullmatch(text)
    return number is None, int(text) if number else 0, text


def list_table(table: Path, folder: Path, classes: Sequence[str] | None = None) -> Listing:
    """List the pictures of a flat folder whose labels a table holds.

    `table` is a CSV in UTF-8, with or without byte order mark, with a header of two columns or
    more. Identifiers stand in the first column whose header is one of ID_COLUMNS (in any case),
    else in the first; labels in the first of LABEL_COLUMNS, else in the second. Where those two
    fall together, the identifiers or labels without a known header move to the other. The
    identifier `1` means the file `1`, or `1.png` and so on, in the order of SUFFIXES. It may name a
    deeper folder, with slashes, but none outside. Pictures without a row are passed over.

    The classes are `classes`, or the distinct labels: integers by value, then the others by code
    points. The order is by identifier without suffix, likewise. Raises DataError, naming file and
    line, for a table that is not of that form, a row whose picture is missing or already named, and
    a label that is not among `classes`.
    """
    known = None if classes is None else _label_of(classes)
    rows = _rows(table)
    line, header = next(rows, (1, []))
    if len(header) < 2:
        raise DataError(
            f"{_shown(table)}, line {line:,}: expected a header of at least two columns, such as "
            f"id,label, found {len(header)}. Put the header first, and commas between the columns."
        )
    id_column, label_column = _columns(header)
    names = {folder: _picture_names(folder)}
    if header[id_column].strip().lower() not in ID_COLUMNS and header[id_column] in names[folder]:
        raise DataError(
            f"{_shown(table)}, line {line:,}: expected a header such as id,label, found the "
            f"picture {header[id_column]!r}. Put a header first."
        )
    lines: dict[Path, int] = {}
    found: list[tuple[tuple[str, bool, int, str], Path, str]] = []
    for line, row in rows:
        where = f"{_shown(table)}, row {len(found) + 1:,} on line {line:,}"
        if len(row) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} columns as in the header, found {len(row)}. Mend "
                "the line; a comma inside a column needs quotes around it."
            )
        identifier, label = row[id_column], row[label_column]
        path = _picture(folder, identifier, names, where)
        if path in lines:
            raise DataError(
                f"{where}: expected each picture once, found the id {identifier!r} again, which "
                f"line {lines[path]:,} has. Remove one of the two rows."
            )
        if not label or (known is not None and label not in known):
            expected = "a label" if known is None else f"one of the labels {_few(list(known))}"
            raise DataError(
                f"{where}: expected {expected}, found {label!r} for the id {identifier!r}. Mend or "
                "remove the row."
            )
        lines[path] = line
        stem = path.stem if path.name.lower().endswith(SUFFIXES) else path.name
        found.append(((str(path.parent), *_number_first(stem)), path, label))
    if not found:
        raise DataError(
            f"{_shown(table)}, line {line:,}: expected rows after the header, found none."
        )
    if classes is None:
        classes = sorted({label for *_, label in found}, key=_number_first)
    label_of = _label_of(classes)
    found.sort(key=lambda item: (item[0], item[1].name))
    labels = np.array([label_of[label] for *_, label in found], np.int64)
    return Listing(folder, tuple(path for _, path, _ in found), labels, tuple(classes))


def _picture(folder: Path, identifier: str, names: dict[Path, dict[str, str]], where: str) -> Path:
    """Return the file that an identifier means. `names` keeps what is known of each folder."""
    foreign = PureWindowsPath(identifier)  # takes slashes and backslashes alike
    if foreign.anchor or ".." in foreign.parts:
        raise DataError(
            f"{where}: expected the id of a picture inside {_shown(folder)}, found {identifier!r}, "
            "which leads out of it. The table may be hostile; do not use it unread."
        )
    inside = PurePosixPath(identifier)
    parent = folder / inside.parent
    if parent not in names:
        try:
            names[parent] = _picture_names(parent)
        except DataError as error:
            raise DataError(f"{where}: the id {identifier!r} cannot be found. {error}") from error
    try:
        return parent / names[parent][inside.name]
    except KeyError as error:
        raise DataError(
            f"{where}: expected a picture for the id {identifier!r} in {_shown(folder)}, found "
            "none. Add the picture or remove the row."
        ) from error


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
    return f"cannot be decoded ({type(error).__name__}: {_shown(what)})"


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
                        f"{_shown(path)}: {error}. Mend or remove the file, or leave such files "
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
        named = "; ".join(f"{_shown(path)}: {bad[path]}" for path in list(bad)[:NAMED])
        advice = (
            "No picture is left."
            if skip_bad
            else "Mend or remove them, or leave them out with --skip-bad."
        )
        raise DataError(
            f"{_shown(listing.root)}: {len(bad):,} of {len(listing.paths):,} files give no "
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
