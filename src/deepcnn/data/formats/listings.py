"""Lists of picture files with their labels, from class folders.

`list_classes` reads the form of torchvision's ImageFolder
(https://pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html): pictures of
class c lie below `root/c`. No picture is opened here; `pictures` does that.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.parts import Files, InParts
from deepcnn.errors import DataError
from deepcnn.shown import shown

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".jpe",
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
# What systems leave in folders and archives; no one's class.
LEFTOVERS = frozenset(
    ["__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"]
)

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\%:*?"<>|]|\A\.|[. ]\Z')
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a set in reading order, none of them opened yet.

    `root`: the name of the set in errors. `files`: N paths. `labels`: int64 [N], indices into
    `classes`. `others`: files beside them whose names are not those of pictures.
    """

    root: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    others: tuple[Path, ...] = ()

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The files as paths. Making them takes as long as listing the files."""
        return tuple(map(Path, self.files))

    @property
    def name(self) -> str:
        """The name of the set in errors."""
        return str(self.root)

    @property
    def seekable(self) -> bool:
        """Each picture is a file of its own."""
        return True

    def __len__(self) -> int:
        return len(self.files)

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`, at most `size` at a time; no file is opened."""
        for first in range(start, stop, size):
            some = slice(first, min(first + size, stop))
            yield Files(self.files[some], self.labels[some].tolist())

    def only(self, at: NDArray[np.int64]) -> Listing:
        """Return the pictures at these places, int64 [k]."""
        files = tuple(self.files[index] for index in at.tolist())
        return Listing(self.root, files, self.labels[at], self.classes)


@dataclass
class PassedOver:
    """Files beside pictures whose names are not those of pictures: how many, and the first few."""

    count: int = 0
    named: list[Path] = field(default_factory=list)
    heic: bool = False

    def add(self, path: Path) -> None:
        """Count a file."""
        self.count += 1
        self.named += [path] if self.count <= NAMED else []
        self.heic |= path.suffix.lower() in (".heic", ".heif")

    def __str__(self) -> str:
        kind = "file whose name ends" if self.count == 1 else "files whose names end"
        named = ", ".join(map(shown, self.named)) + (", …" if self.count > NAMED else "")
        advice = " Save .heic as JPEG first." if self.heic else ""
        return f"passed over {self.count:,} {kind} as no picture's does: {named}.{advice}"


def is_folder(path: str | Path) -> bool:
    """Tell whether a path is a folder, for any text, including empty and much too long ones."""
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


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in LEFTOVERS


# Names of classes and folders


def folder_name(class_name: str) -> str:
    r"""Return a folder name for a class that is safe on every system; `class_name` undoes it.

    These become `%XX` for each byte of their UTF-8: percent signs, slashes, backslashes, control
    characters, any of `:*?"<>|`, a leading dot, and a trailing dot or space. Raises DataError for
    an empty name, for one of more than 200 bytes in UTF-8, and for one that UTF-8 cannot hold.
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
    """Return the class to which `folder_name` gave this name; other percent signs stay."""

    def unescape(match: re.Match[str]) -> str:
        try:
            return bytes.fromhex(match[0].replace("%", "")).decode()
        except UnicodeDecodeError:
            return match[0]

    return _ESCAPED.sub(unescape, folder)


# Listing


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, by name, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(
            f"{shown(folder)}: expected a folder that can be read, found: {error.strerror}. Check "
            "the path and its permissions."
        ) from error
    return sorted(found, key=lambda entry: entry.name)


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
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


def label_of_each(classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each class: its position."""
    labels = {name: label for label, name in enumerate(classes)}
    if len(labels) < len(classes):
        twice = next(name for name, count in Counter(classes).items() if count > 1)
        raise DataError(f"Expected classes that differ, found {twice!r} twice. Name each once.")
    return labels


def few(names: Sequence[str]) -> str:
    """Return the first few names, for an error."""
    return ", ".join(map(repr, names[:NAMED])) + (", …" if len(names) > NAMED else "")


def _class_folders(root: Path, classes: Sequence[str] | None) -> dict[Path, tuple[Path, str]]:
    """Return, for each class folder's real path, the folder and the class, in order of names."""
    known = None if classes is None else label_of_each(classes)
    real_root = root.resolve()
    folders: dict[Path, tuple[Path, str]] = {}
    for entry in entries_of(root):
        if not leads_to_folder(entry):
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
                    f"{few(list(known))}, found {name!r}. Rename or remove it."
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
    """List the pictures of `root/class/…`, including those in deeper folders.

    The classes are the names of the sub-folders, in the order of their code points, or `classes`,
    which then must contain all of them. Only in the second case are names from `folder_name`
    converted back. A picture is a file with one of SUFFIXES, in upper or lower case. Other files
    and hidden files are skipped. The order is by file name, then class, then path, so names with
    running numbers keep their order. Links are followed. A folder that can be reached in several
    ways counts once, for the class in which it really lies, so loops end.

    Raises DataError if a folder cannot be read, if a class folder has no picture, or if there is no
    class folder.
    """
    folders = _class_folders(root, classes)
    if classes is None:
        classes = sorted(name for _, name in folders.values())
    label_of = label_of_each(classes)
    real_root = root.resolve()
    visited = {real_root, *real_root.parents}
    found: list[tuple[str, int, str]] = []
    others: list[Path] = []
    without = {path for path, _ in folders.values()}
    # Each folder with its real path and the class folder that it counts for. Links wait on the
    # right until all real folders are done, for where a folder really lies decides its class.
    pending = deque((path, real, path, label_of[name]) for real, (path, name) in folders.items())
    while pending:
        folder, real, top, label = pending.popleft()
        if real in visited:
            continue
        visited.add(real)
        for entry in entries_of(folder):
            if leads_to_folder(entry):
                path = folder / entry.name
                target = path.resolve() if entry.is_symlink() else real / entry.name
                if target not in folders:  # class folders count for themselves
                    add = pending.append if entry.is_symlink() else pending.appendleft
                    add((path, target, top, label))
            elif entry.name.lower().endswith(SUFFIXES):
                found.append((entry.name, label, entry.path))
                without.discard(top)
            else:
                others.append(folder / entry.name)
    if without:
        raise _without_pictures(min(without), len(without), others)
    found.sort()
    labels = np.array([label for _, label, _ in found], np.int64)
    files = tuple(path for *_, path in found)
    return Listing(root, files, labels, tuple(classes), tuple(sorted(others)))


def _without_pictures(folder: Path, count: int, others: Sequence[Path]) -> DataError:
    """Return the error for a class folder without a picture; it names what else is there."""
    there = [path for path in others if folder in path.parents]
    found, advice = "none", "Remove the folder, or add pictures."
    if there:
        found = f"{len(there):,} of other kinds, such as {shown(min(there).name)}"
        advice = "Save these as JPEG or PNG if they are pictures, or remove the folder."
    folders = f"{count:,} such class folder{'' if count == 1 else 's'}"
    return DataError(
        f"{shown(folder)}: expected at least one picture ({', '.join(SUFFIXES)}), found {found} "
        f"({folders}). {advice}"
    )
