"""zip and tar archives of class folders, read like the folder to which they would unpack.

    pets.zip, pets.tar, pets.tar.gz or .tgz      SPLIT/class/*.png …, or class/*.png …, also in one
                                                 folder that holds all else

Nothing is unpacked to disk, and no name in an archive is used as a path. Links, devices, hidden
files and files that systems leave behind are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data import class_file
from deepcnn.data.formats import preparing, tar_file, zip_file
from deepcnn.data.formats.listings import (
    NAMED,
    SUFFIXES,
    class_name,
    few,
    is_hidden,
    label_of_each,
)
from deepcnn.data.formats.parts import InParts, OneByOne, gathered
from deepcnn.data.splits import NAMES_OF_FOLDERS, SPLITS, Opener, Split
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted
from deepcnn.settings import DataSpec
from deepcnn.shown import shown

NAME = "an archive of class folders"
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_ENTRIES = 2_000_000
MAX_NAMES_BYTES = 1 << 28  # of all names together
MAX_PICTURE_BYTES = 1 << 27
MAX_RATIO, MAX_MORE = 100, 1 << 26  # all files unpack to so many times the archive, and more

Entry = zip_file.Entry | tar_file.Entry
Parts = tuple[str, ...]  # the folders and the name of a file


@dataclass(frozen=True, eq=False)
class ArchivePictures:
    """Some pictures of an archive; see `pictures.Pictures`."""

    path: Path
    entries: tuple[Entry, ...]
    labels: NDArray[np.int64]
    seekable: bool

    @property
    def name(self) -> str:
        """What errors call them: the archive's path."""
        return str(self.path)

    def __len__(self) -> int:
        return len(self.entries)

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`; see `Pictures`."""
        return gathered(self._read(start, stop), size)

    def _read(self, start: int, stop: int) -> OneByOne:
        labels = self.labels[start:stop].tolist()
        with tar_file.opened(self.path, packed=not self.seekable) as file:
            for entry, label in zip(self.entries[start:stop], labels, strict=True):
                yield f"{self.path}: {entry.name}", _content(self.path, file, entry), label


def is_archive(path: Path) -> bool:
    """Tell by its name whether a path is a zip or tar archive."""
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def recognize(
    path: Path, spec: DataSpec, emit: Listener
) -> tuple[dict[Split, Opener], tuple[str, ...]]:
    """Return the splits and the classes of an archive. Its directory is read once.

    Raises DataError if it is damaged, too large, or holds no class folders.
    """
    packed = not path.name.lower().endswith(".zip") and tar_file.is_packed(path)
    classes: tuple[str, ...] | None = None
    files: dict[Parts, Entry] = {}
    others: list[str] = []
    with tar_file.opened(path, packed=packed) as file:
        for entry in _checked(path, _entries(path, file)):
            parts = _parts(path, entry.name)
            if any(map(is_hidden, parts)):
                continue
            if parts[-1] == class_file.CLASSES_FILE and len(parts) < 3:
                classes = class_file.parse(
                    _content(path, file, entry), f"{path}: {shown(entry.name)}"
                )
            elif not parts[-1].lower().endswith(SUFFIXES):
                others.append(entry.name)
            elif parts in files:
                raise DataError(
                    f"{path}: expected each file once, found {entry.name!r} again. Mend it."
                )
            else:
                files[parts] = entry
    _tell_others(path, others, emit)
    by_split = _by_split(path, _without_top(files))
    written = classes is not None
    if classes is None:
        classes = tuple(sorted({parts[0] for parts in next(iter(by_split.values()))}))
    found = {
        split: partial(_alone, _labeled(path, _renamed(some, written), classes, not packed))
        for split, some in by_split.items()
    }
    return preparing.openers(found, spec, emit), classes


def _alone(pictures: ArchivePictures) -> tuple[ArchivePictures]:
    return (pictures,)


def _entries(path: Path, file: object) -> Iterator[Entry]:
    if path.name.lower().endswith(".zip"):
        return iter(zip_file.entries(path, file))  # type: ignore[arg-type]
    return iter(tar_file.entries(path, file))  # type: ignore[arg-type]


def _content(path: Path, file: object, entry: Entry) -> bytes:
    if isinstance(entry, zip_file.Entry):
        return zip_file.content(path, file, entry)  # type: ignore[arg-type]
    return tar_file.content(path, file, entry)  # type: ignore[arg-type]


def _checked(path: Path, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Pass on entries as long as they are within the limits."""
    most = MAX_RATIO * path.stat().st_size + MAX_MORE
    total = names = 0
    for index, entry in enumerate(entries):
        total += entry.size
        names += len(entry.name)
        for value, largest, what in (
            (index + 1, MAX_ENTRIES, "files"),
            (entry.size, MAX_PICTURE_BYTES, f"bytes in {entry.name!r}"),
            (total, most, f"bytes in all, {MAX_RATIO} times its size and {MAX_MORE:,} more"),
            (names, MAX_NAMES_BYTES, "characters of names"),
        ):
            if value > largest:
                raise DataError(
                    f"{path}: expected at most {largest:,} {what}, found {value:,}. If you trust "
                    "the archive, unpack it and give the folder."
                )
        yield entry


def _parts(path: Path, name: str) -> Parts:
    """Return the folders and the name of a file; raises DataError for a name that leads outside."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(
            f"{path}: expected names inside the archive, with / between folders, found {name!r}. "
            "The archive may be hostile; do not use it unread."
        )
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(
            f"{path}: expected names in UTF-8, found other bytes in {name!r}. Pack it again."
        )
    return parts


def _without_top(files: dict[Parts, Entry]) -> dict[Parts, Entry]:
    """Return the files without the folders that hold all of them."""
    while files:
        tops = {parts[0] for parts in files}
        (top,) = tops if len(tops) == 1 else ("",)
        if not top or top.lower() in NAMES_OF_FOLDERS or min(map(len, files)) < 3:
            break
        files = {parts[1:]: entry for parts, entry in files.items()}
    return files


def _by_split(path: Path, files: dict[Parts, Entry]) -> dict[Split, dict[Parts, Entry]]:
    """Return the files of each split below its folder, in the order of SPLITS."""
    folders: dict[Split, str] = {}
    for name in sorted({parts[0] for parts in files if len(parts) > 2}):
        split = NAMES_OF_FOLDERS.get(name.lower())
        if split in folders:
            raise DataError(
                f"{path}: expected one folder for the {split} split, found {folders[split]} and "
                f"{name}. Pack one of them."
            )
        if split is not None:
            folders[split] = name
    if set(folders) == {"extra"}:
        folders = {}  # it may well be a class
    if folders and "train" not in folders:
        raise DataError(
            f"{path}: expected a folder train/ beside {', '.join(folders.values())}, found none."
        )
    found: dict[Split, dict[Parts, Entry]] = {}
    if folders:
        for split in SPLITS:
            if split in folders:
                found[split] = {p[1:]: e for p, e in files.items() if p[0] == folders[split]}
    else:
        found["train"] = files
    flat = [parts[0] for some in found.values() for parts in some if len(parts) == 1]
    if flat or not files:
        what = f"{len(flat):,} pictures in none, such as {shown(flat[0])}" if flat else "no picture"
        raise DataError(
            f"{path}: expected a folder for each class, with its pictures ({', '.join(SUFFIXES)}), "
            f"found {what}. Pack class folders; other forms of data are to be unpacked."
        )
    return found


def _renamed(files: dict[Parts, Entry], written: bool) -> dict[Parts, Entry]:
    """Return files with the names of their classes, if deepcnn has named the folders."""
    if not written:
        return files
    return {(class_name(parts[0]), *parts[1:]): entry for parts, entry in files.items()}


def _labeled(
    path: Path, files: dict[Parts, Entry], classes: Sequence[str], seekable: bool
) -> ArchivePictures:
    """Return pictures with the labels of their folders, ordered by name if the order is free."""
    label_of = label_of_each(classes)
    rows = []
    for parts, entry in files.items():
        if parts[0] not in label_of:
            raise DataError(
                f"{path}: expected folders of the {len(classes):,} classes {few(classes)}, found "
                f"{parts[0]!r}. Pack it without that folder."
            )
        rows.append((parts[-1], label_of[parts[0]], parts, entry))
    if seekable:
        rows.sort(key=lambda row: row[:3])
    labels = np.array([label for _, label, *_ in rows], np.int64)
    return ArchivePictures(path, tuple(entry for *_, entry in rows), labels, seekable)


def _tell_others(path: Path, others: Sequence[str], emit: Listener) -> None:
    """Tell which files are skipped."""
    if others:
        named = ", ".join(map(shown, others[:NAMED])) + (", …" if len(others) > NAMED else "")
        emit(Noted(f"{path}: passed over {len(others):,} files that are no pictures: {named}"))
