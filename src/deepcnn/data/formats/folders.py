"""Pictures in folders: a folder for each class, or flat folders with a table of labels.

    pictures in class folders      SPLIT/class/*.png …, or class/*.png …
    pictures with a table          SPLIT*.csv or *labels*.csv, with the pictures in SPLIT/, images/
                                   or beside it

All splits get the classes, the size and the channels of the first split that exists.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from deepcnn.data.formats import decoding, label_tables, listings, preparing
from deepcnn.data.shards import Shape, ToWrite, by
from deepcnn.data.splits import (
    NAMES_OF_FOLDERS,
    NAMES_OF_SPLITS,
    SPLITS,
    Opener,
    Split,
    only_one,
    split_of,
)
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted
from deepcnn.settings import DataSpec
from deepcnn.shown import shown

NAME = "pictures in class folders"
NAME_WITH_TABLE = "pictures with a table"
MAX_FILE_NAME_BYTES = 255  # of the usual file systems
FLUSHES = 32  # at a time: they wait for the disk, which serves many at once

Found = tuple[dict[Split, Opener], tuple[str, ...]]  # splits and classes


def recognize_classes(
    path: Path, spec: DataSpec, classes: tuple[str, ...] | None, emit: Listener
) -> Found:
    """Return the splits and the classes of root/SPLIT/class, or root/class.

    `emit` hears of pictures that are left out, and of levels of folders that are joined. Raises
    DataError if there are no class folders, or if it is not clear to which split a folder belongs.
    """
    folders = _folders_of_splits(path)
    if folders and "train" not in folders:
        names = ", ".join(folder.name + "/" for folder in folders.values())
        raise DataError(
            f"{path}: expected a folder train/ beside {names}, found none. Add it, or name one of "
            f"the others: --data {next(iter(folders.values()))}"
        )
    found: dict[Split, listings.Listing] = {}
    for split, folder in (folders or {"train": path}).items():
        found[split] = listings.list_classes(folder, classes)
        classes = classes or found[split].classes
        _tell_levels(folder, found[split], emit)
        _tell_others(folder, found[split].others, emit)
    return _openers(found, spec, emit)


def recognize_tables(
    path: Path,
    tables: list[str],
    spec: DataSpec,
    classes: tuple[str, ...] | None,
    emit: Listener,
) -> Found:
    """Return the splits and the classes of the pictures in tables of labels."""
    folder = path.parent if path.is_file() else path
    by_split: dict[Split, Path] = {}
    for name in tables:
        only_one(by_split, split_of(name), folder / name, "table")
    found: dict[Split, listings.Listing] = {}
    for split in SPLITS:
        if split in by_split:
            names = [name for name, meant in NAMES_OF_SPLITS.items() if meant == split]
            places = [folder / name for name in (split, *names, "images", "")]
            place = next(p for p in places if p.is_dir())
            for said, listing in label_tables.list_table(by_split[split], place, classes).items():
                meant = said or split
                if meant in found:
                    raise DataError(
                        f"{by_split[split]}: expected rows of splits that no other table has, "
                        f"found some of the {meant} split. Name one table: --data PATH"
                    )
                found[meant] = listing
            classes = classes or next(iter(found.values())).classes
    if path.is_dir():
        _tell_unlabeled(folder, found, emit)
    return _openers({split: found[split] for split in SPLITS if split in found}, spec, emit)


def _tell_unlabeled(folder: Path, found: Mapping[Split, listings.Listing], emit: Listener) -> None:
    """Tell which folder of a split is left out because no table has labels for its pictures."""
    known = {listing.root for listing in found.values()}
    for entry in sorted(folder.iterdir()):
        split = NAMES_OF_FOLDERS.get(entry.name.lower())
        if entry.is_dir() and split and split not in found and entry not in known:
            count = sum(e.name.lower().endswith(listings.SUFFIXES) for e in entry.iterdir())
            if count:
                emit(
                    Noted(
                        f"left out {shown(entry)}: {count:,} pictures without a table of "
                        "their labels. What is on them: deepcnn predict RUN FOLDER"
                    )
                )


def _openers(lists: Mapping[Split, listings.Listing], spec: DataSpec, emit: Listener) -> Found:
    """Return the functions that open the splits, and the classes, which are the first split's."""
    parts = {split: partial(_alone, listing) for split, listing in lists.items()}
    return preparing.openers(parts, spec, emit), next(iter(lists.values())).classes


def _alone(listing: listings.Listing) -> tuple[listings.Listing]:
    return (listing,)


def _folders_of_splits(path: Path) -> dict[Split, Path]:
    """Return the folders of root/SPLIT/class by split, in the order of SPLITS."""
    found: dict[Split, Path] = {}
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            split = NAMES_OF_FOLDERS.get(entry.name.lower())
            if split is not None and entry.is_dir() and _folders(entry):
                only_one(found, split, entry, "folder")
        if "train" not in found:
            found.pop("extra", None)  # it may well be a class
    elif not path.is_file():
        raise DataError(f"{path}: expected a folder, found none")
    if not found and path.is_dir():
        _refuse_flat(path)
    if not found and (not path.is_dir() or not _folders(path)):
        raise DataError(
            f"{path}: expected a folder of class folders with pictures, or files of a format that "
            "`deepcnn data convert --help` lists; found neither"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _refuse_flat(path: Path) -> None:
    """Raise DataError if pictures lie in a folder, or in its splits, without any labels."""
    splits = [e for e in _folders(path) if e.name.lower() in NAMES_OF_FOLDERS]
    others = len(_folders(path)) - len(splits)
    for folder in [*splits, path] if not others else []:
        names = sorted(
            e.name for e in folder.iterdir() if e.name.lower().endswith(listings.SUFFIXES)
        )
        if names:
            raise DataError(
                f"{shown(folder)}: expected a folder for each class, or a table of "
                f"labels, found {len(names):,} pictures directly in it, such as "
                f"{shown(names[0])}. Move them into folders named like their classes, or "
                "write a table beside them, labels.csv: its first line path,label, then a line "
                "for each picture."
            )


def _tell_others(root: Path, others: Sequence[Path], emit: Listener) -> None:
    """Tell which files are skipped."""
    passed = listings.PassedOver()
    for path in others:
        passed.add(path.relative_to(root))
    if others:
        emit(Noted(f"{shown(root)}: {passed}"))


def _tell_levels(root: Path, listing: listings.Listing, emit: Listener) -> None:
    """Tell to which classes pictures in folders below the class folders belong."""
    depth = len(root.parts) + 1  # of class folders
    holding = map(Path, {os.path.dirname(file) for file in listing.files})  # noqa: PTH120 (many)
    deeper = {folder for folder in holding if len(folder.parts) > depth}
    if deeper:
        example = min(deeper).relative_to(root)
        count = len(listing.classes)
        classes = "the only class" if count == 1 else f"the {count:,} classes"
        emit(
            Noted(
                f"{root}: found pictures in {len(deeper):,} folders below the class folders, such "
                f"as {shown(example)}. They count to {classes} "
                "of the first level; if the deeper folders are the classes, move these up."
            )
        )


def holds_pictures(root: Path) -> bool:
    """Tell whether root/class or root/SPLIT/class holds a picture, without looking any further."""
    for folder in _folders(root):
        is_split = folder.name.lower() in (*NAMES_OF_FOLDERS, "images")
        for place in _folders(folder) if is_split else [folder]:
            if any(e.suffix.lower() in listings.SUFFIXES for e in place.iterdir()):
                return True
    return False


def _folders(path: Path) -> list[Path]:
    return [e for e in path.iterdir() if e.is_dir() and not listings.is_hidden(e.name)]


# Writing


def why_not(shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> str | None:
    """Return why pictures in class folders cannot hold these images and classes, or None."""
    first = next(iter(shapes.values()))
    for split, shape in shapes.items():
        if shape[2] not in (1, 3):
            return f"expected images with 1 or 3 channels, found {by(shape)}"
        if shape != first:  # on reading, all would be brought to one shape
            return (
                f"expected images of one shape in all splits, found {by(first)} and, in {split}, "
                f"{by(shape)}"
            )
    if "train" not in shapes:
        return f"expected a train split, found only {', '.join(shapes)}"
    for name in classes:
        try:
            size = len(listings.folder_name(name).encode())
        except DataError as error:
            return str(error).rstrip(".")
        if size > MAX_FILE_NAME_BYTES:
            return (
                f"expected class names that make folder names of at most {MAX_FILE_NAME_BYTES} "
                f"bytes, found {size} for {name!r}"
            )
    return None


def write(folder: Path, part: ToWrite) -> None:
    """Write examples as folder/class/index.png; a class without an example gets no folder."""
    digits = len(str(part.count - 1))
    folders = [folder / listings.folder_name(name) for name in part.classes]
    folder.mkdir()
    made: set[int] = set()
    index = 0
    with ThreadPoolExecutor(FLUSHES) as pool:
        for images, labels in part.blocks:
            paths = []
            for image, label in zip(images, labels.tolist(), strict=True):
                if label not in made:
                    folders[label].mkdir()
                    made.add(label)
                path = folders[label] / f"{index:0{digits}}.png"
                path.write_bytes(decoding.encode(image))
                paths.append(path)
                index += 1
            list(pool.map(flush, paths))  # one after another takes several times as long


def flush(path: Path) -> None:
    """Bring a file to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
