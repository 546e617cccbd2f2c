"""Lists of picture files with their labels: class folders, or a flat folder with a table.

Two forms in wide use. `list_classes` reads the one of torchvision's ImageFolder
(https://pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html): pictures of
class c lie below `root/c`. `list_table` reads the one of Kaggle's competitions
(https://www.kaggle.com/competitions/cifar-10/data): a CSV names each picture's label. No picture
is opened here; `pictures` does that.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

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
MAX_NAME_BYTES = 200
NAMED = 5  # files or names that an error lists
ID_COLUMNS = frozenset({"id", "image", "file", "filename", "file_name", "path", "image_id"})
LABEL_COLUMNS = frozenset({"label", "class", "target", "category"})

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\%:*?"<>|]|\A\.|[. ]\Z')
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # longer ones are text to sort


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a set in reading order, none of them opened yet.

    `root`: what errors call the set; `paths`: N files; `labels`: int64 [N], indices into `classes`.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What errors call the set."""
        return str(self.root)

    @property
    def seekable(self) -> bool:
        """Each picture is a file of its own."""
        return True

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> Generator[tuple[Path, Path, int], None, None]:
        """Yield the path of each picture as its place and as its file, and its label."""
        paths = self.paths[start:stop]
        yield from zip(paths, paths, self.labels[start:stop].tolist(), strict=True)

    def only(self, at: NDArray[np.int64]) -> Listing:
        """Return the pictures at these places, int64 [k]."""
        paths = tuple(self.paths[index] for index in at)
        return Listing(self.root, paths, self.labels[at], self.classes)


def shown(name: object) -> str:
    """Return a name as an error shows it: on one line, and in characters that can be printed."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is passed over: what is hidden, or added by macOS."""
    return name.startswith(".") or name == "__MACOSX"


def is_folder(path: str | Path) -> bool:
    """Tell whether a path is a folder, for any text: the empty one and much too long ones, too."""
    try:
        return path != "" and Path(path).is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Tell whether a path is a file, for any text."""
    try:
        return path.is_file()
    except OSError:
        return False


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
            found = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(
            f"{shown(folder)}: expected a folder that can be read, found: {error.strerror}. Check "
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
            f"{shown(entry.path)}: expected a link that can be followed, found: {error.strerror}. "
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
                f"{shown(path)}: expected a folder of its own for each class, found the same one "
                f"as {shown(folders[real][0])}. Remove one of the two."
            )
        name = entry.name
        if known is not None:
            # A folder that `folder_name` named comes first: only then is its round trip exact.
            name = next((n for n in (class_name(name), name) if n in known), name)
            if name not in known:
                raise DataError(
                    f"{shown(path)}: expected a folder of one of the {len(known):,} classes "
                    f"{_few(list(known))}, found {name!r}. Rename or remove it."
                )
        elif any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(
                f"{shown(path)}: expected a class name in UTF-8, found other bytes. Rename the "
                "folder."
            )
        folders[real] = (path, name)
    if not folders:
        raise DataError(
            f"{shown(root)}: expected a sub-folder for each class, with its pictures "
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
            f"{shown(min(without))}: expected at least one picture ({', '.join(SUFFIXES)}), found "
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
        raise DataError(f"{shown(table)}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{shown(table)}, line {line:,}: expected text in UTF-8, found the byte "
            f"0x{content[error.start]:02X} at offset {error.start:,}. Save the table as UTF-8."
        ) from error
    if "\0" in text:
        offset = text.index("\0")
        raise DataError(
            f"{shown(table)}, line {text.count(chr(10), 0, offset) + 1:,}: expected text, found a "
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
            f"{shown(table)}, line {reader.line_num:,}: expected comma-separated values, found: "
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


def number_first(text: str) -> tuple[bool, int, str]:
    """Order integers by value, and before all else."""
    number = _INTEGER.fullmatch(text)
    return number is None, int(text) if number else 0, text


def _checked_columns(
    table: Path, line: int, header: Sequence[str], pictures: Mapping[str, str]
) -> tuple[int, int]:
    """Return the places of the identifiers and of the labels in a table that has a header."""
    if len(header) < 2:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected a header of at least two columns, such as "
            f"id,label, found {len(header)}. Put the header first, and commas between the columns."
        )
    id_column, label_column = _columns(header)
    if header[id_column].strip().lower() not in ID_COLUMNS and header[id_column] in pictures:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected a header such as id,label, found the "
            f"picture {header[id_column]!r}. Put a header first."
        )
    return id_column, label_column


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
    names = {folder: _picture_names(folder)}
    id_column, label_column = _checked_columns(table, line, header, names[folder])
    lines: dict[Path, int] = {}
    found: list[tuple[tuple[str, bool, int, str], Path, str]] = []
    for line, row in rows:
        where = f"{shown(table)}, row {len(found) + 1:,} on line {line:,}"
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
        found.append(((str(path.parent), *number_first(stem)), path, label))
    if not found:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected rows after the header, found none."
        )
    if classes is None:
        classes = sorted({label for *_, label in found}, key=number_first)
    label_of = _label_of(classes)
    found.sort(key=lambda item: (item[0], item[1].name))
    labels = np.array([label_of[label] for *_, label in found], np.int64)
    return Listing(folder, tuple(path for _, path, _ in found), labels, tuple(classes))


def _picture(folder: Path, identifier: str, names: dict[Path, dict[str, str]], where: str) -> Path:
    """Return the file that an identifier means. `names` keeps what is known of each folder."""
    foreign = PureWindowsPath(identifier)  # takes slashes and backslashes alike
    if foreign.anchor or ".." in foreign.parts:
        raise DataError(
            f"{where}: expected the id of a picture inside {shown(folder)}, found {identifier!r}, "
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
            f"{where}: expected a picture for the id {identifier!r} in {shown(folder)}, found "
            "none. Add the picture or remove the row."
        ) from error
