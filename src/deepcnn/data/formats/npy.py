"""NumPy's .npy: an array in each file; images and labels are in two files that belong together.

The files of a folder have the names of the arrays in an .npz, and hold the same: `images.npy` and
`labels.npy`; `train_images.npy` and `train_labels.npy`; `x_train.npy` and `y_train.npy`; for the
other splits alike; and `classes.npy`, if there is one. See `npz`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from deepcnn.data.formats.npz import NpzShard, classes_in, pairs_of
from deepcnn.data.formats.npz_archive import Member, read_header
from deepcnn.data.splits import SPLITS, Opener, Split
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted, ignore
from deepcnn.shown import shown

NAME = "NumPy arrays"
SUFFIX = ".npy"
NAMED = 5  # files, in an error or a note


class Files:
    """The .npy files of a folder, open for reading: a `Holder`. `members`: which of them."""

    def __init__(self, path: Path, members: frozenset[str], stack: ExitStack) -> None:
        self.path, self.members, self._stack = path, members, stack
        self.size = sum((path / f"{name}{SUFFIX}").stat().st_size for name in members)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, members: frozenset[str]) -> Iterator[Files]:
        """Open files as long as the context lasts; raises DataError if one cannot be read."""
        try:
            with ExitStack() as stack:
                yield cls(path, members, stack)
        except OSError as error:
            where = error.filename or path
            raise DataError(f"{where}: cannot be read ({error.strerror or error})") from error

    def member(self, key: str) -> Member:
        """Read an array's header, and check that the file is as long as the header declares."""
        name = f"{key}{SUFFIX}"
        stream = self._open(name)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        return replace(read_header(stream, size, str(self.path / name)), name=name)

    def open(self, member: Member) -> io.BufferedIOBase:
        """Open a file at its beginning."""
        return self._open(member.name)

    def at(self, member: Member, offset: int) -> io.BufferedIOBase:
        """Open a file at an offset."""
        stream = self._open(member.name)
        stream.seek(offset)
        return stream

    def _open(self, name: str) -> io.BufferedIOBase:
        file = self._stack.enter_context((self.path / name).open("rb"))
        return cast("io.BufferedIOBase", file)


def recognize(folder: Path, files: list[str], emit: Listener = ignore) -> dict[Split, Opener]:
    """Return the splits that files by these names hold.

    `emit` hears of arrays that belong to no split, and how images of types other than uint8 become
    uint8. Raises DataError if no two arrays belong together, if several pairs might be meant, or if
    there are also .npz files.
    """
    names = [name for name in files if name.endswith(SUFFIX)]
    keys = {name.removesuffix(SUFFIX) for name in names}
    archives = [name for name in files if name.endswith(".npz")]
    pairs = pairs_of(keys)
    if archives and pairs:
        raise _several(folder, f"{next(iter(pairs.values()))[0]}{SUFFIX}", archives[0])
    if archives or not names:
        return {}
    if not pairs:
        raise DataError(
            f"{folder}: expected images.npy and labels.npy, or for each split train_images.npy and "
            f"train_labels.npy, or x_train.npy and y_train.npy, found {_listed(names)}. Rename the "
            "files, and give the folder of both."
        )
    used = {key for pair in pairs.values() for key in pair}
    others = sorted(keys - used - {"classes"})
    again = pairs_of(others)
    if again or (None in pairs and len(pairs) > 1):
        two = [*pairs.values(), *again.values()]
        raise _several(folder, f"{two[0][0]}{SUFFIX}", f"{two[-1][0]}{SUFFIX}")
    if others:
        left = _listed([f"{key}{SUFFIX}" for key in others])
        emit(Noted(f"{shown(folder)}: left out {left}: arrays that are no images with labels"))

    def opener(split: Split | None, pair: tuple[str, str]) -> Opener:
        opened = partial(Files.opened, members=frozenset(pair))
        return lambda: (NpzShard(folder, split, emit, opened),)

    found = {split or "train": opener(split, pair) for split, pair in pairs.items()}
    return {split: found[split] for split in SPLITS if split in found}


def class_names(folder: Path, files: list[str]) -> tuple[str, ...] | None:
    """Return the names of the labels, or None."""
    members = frozenset({"classes"} if f"classes{SUFFIX}" in files else ())
    with Files.opened(folder, members) as arrays:
        return classes_in(arrays)


def _several(folder: Path, one: str, other: str) -> DataError:
    return DataError(
        f"{folder}: expected one set, found {one} and {other}, each of which may be meant. Move "
        "one of them away."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(map(shown, names[:NAMED])) + (", …" if len(names) > NAMED else "")
