"""Conversion of a data set, with all of its splits, to another format.

What `convert` writes is read back by `layouts.find` with the same images, labels, classes and order
of examples, and the same data set gives the same bytes. Of N shards, shard i holds the examples
from ⌊i·n/N⌋ to ⌊(i+1)·n/N⌋:

    tfrecord   SPLIT.tfrecords, or SPLIT-00000-of-00004.tfrecords …
    npz        SPLIT.npz, or SPLIT-00000-of-00004.npz …
    cifar      data_batch_1.bin …, test_batch.bin, and validation_batch.bin or
               validation_batch_1.bin …; the test split is one file, as in the original
    folder     SPLIT/class/INDEX.png, with the index in the split, its digits as many for all

Beside them `classes.json` holds the names of the classes, and for cifar `batches.meta.txt` too.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from deepcnn import atomic
from deepcnn.data import datasets
from deepcnn.data.formats import cifar, listings, npz, pictures, tfrecord
from deepcnn.data.layouts import CLASSES_FILE, MAX_CLASSES, SPLITS, Split
from deepcnn.data.shards import Block
from deepcnn.data.source import Source
from deepcnn.errors import DataError
from deepcnn.events import Event, Listener, Noted, Reading, ignore

Form = Literal["tfrecord", "npz", "folder", "cifar"]
FORMS: tuple[Form, ...] = get_args(Form)

MAX_FILE_NAME_BYTES = 255  # of the usual file systems
FLUSHES = 32  # at a time: they wait for the disk, which serves many at once


def convert(
    source: str | Path,
    target: Path,
    to: Form,
    *,
    validation_size: int = 0,
    validation_choice: Literal["stratified", "first"] = "stratified",
    validation_seed: int = 0,
    shards: int = 1,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> dict[Split, int]:
    """Write a data set into the new directory `target`; return the number of examples by split.

    `source` is what `datasets.open_dataset` takes, as are `validation_size` and what follows it,
    but `shards`: the number of files of a split. All splits that the source has are written, and
    "validation", taken from "train", where `validation_size` is not 0. `emit` hears `Reading` for
    each split.

    Examples are read and written block by block, so the data set may be larger than memory; of
    npz files the labels are in memory. `target` may be an empty directory. It appears whole, as
    the last act, or not at all: until then all is in a hidden directory beside it, which is removed
    where something fails or the user interrupts.

    Raises DataError, before anything is written, where `target` is in the way or in the source,
    or the format cannot hold the data; later where the source is damaged, or the disk is full.
    """
    _check_settings(to, shards)
    target = Path(os.path.realpath(target.expanduser()))
    _check_target(target, source)
    emit = _once(emit)
    own = datasets.splits(source, data_dir=data_dir, emit=emit)
    if validation_size and "validation" in own:
        raise DataError(
            f"validation_size: expected 0, as {source} has a validation split of its own, found "
            f"{validation_size}"
        )
    sources = {
        split: datasets.open_dataset(
            source,
            split,
            validation_size=validation_size,
            validation_choice=validation_choice,
            validation_seed=validation_seed,
            image_size=image_size,
            skip_bad=skip_bad,
            data_dir=data_dir,
            emit=emit,
        )
        for split in SPLITS
        if split in own or (split == "validation" and validation_size)
    }
    names = {split: _file_names(to, split, shards) for split in sources}
    classes = next(iter(sources.values())).classes
    _check_classes(classes)
    _check_fit(to, sources)
    for split, examples in sources.items():
        if len(names[split]) > len(examples):
            raise DataError(
                f"shards: expected at most {len(examples):,}, the number of {split} examples, "
                f"found {shards:,}"
            )
    if to == "folder":
        _note_scaling(next(iter(sources.values())), target, emit)
    try:
        with _appearing(target) as folder:
            _write_classes(folder, classes, to)
            for split, examples in sources.items():
                with closing(examples.blocks()) as blocks:
                    told = _told(blocks, split, len(examples), emit)
                    if to == "folder":
                        _write_pictures(folder / split, examples, told)
                    else:
                        _write_shards([folder / name for name in names[split]], to, examples, told)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Nothing is left of it; free "
            "space, or choose another place."
        ) from error
    return {split: len(examples) for split, examples in sources.items()}


# Checks before anything is written


def _check_settings(to: str, shards: int) -> None:
    if to not in FORMS:
        raise DataError(f"to: expected {_either(FORMS)}, found {to!r}")
    if shards < 1:
        raise DataError(f"shards: expected at least 1, found {shards}")
    if to == "folder" and shards > 1:
        raise DataError(f"shards: expected 1, as a folder of pictures has none, found {shards}")


def _check_target(target: Path, source: str | Path) -> None:
    """Raise DataError where `target`, an absolute path, may not be written."""
    try:
        if target.is_dir():
            found = "other files" if any(target.iterdir()) else None
            if target.is_mount():  # over which no directory can be renamed
                found = found or "the root of a file system; name a directory in it"
        else:
            found = "a file" if target.exists() else None
    except OSError as error:
        raise DataError(f"{target}: cannot be read ({error.strerror})") from error
    if found:
        raise DataError(
            f"{target}: expected a directory that is new or empty, found {found}. Nothing is "
            "overwritten; choose another, or remove it."
        )
    # Among a source's files the new ones could be taken for part of it ever after.
    root = Path(source).expanduser()
    named = str(source) in datasets.NAMES
    if not named and root.is_dir() and target.is_relative_to(root.resolve()):
        raise DataError(f"{target}: expected a place outside of the source {root}. Choose another.")


def _check_classes(classes: tuple[str, ...]) -> None:
    """Raise DataError where the file of the classes could not be read back."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(
            f"classes: expected names that differ, found {twice[0]!r} twice. Rename one of the two."
        )
    if len(classes) > MAX_CLASSES:
        raise DataError(f"classes: expected at most {MAX_CLASSES:,}, found {len(classes):,}")


def _check_fit(to: Form, sources: Mapping[Split, Source]) -> None:
    """Raise DataError, naming the formats that would do, where a format cannot hold the data."""
    if problem := _problem(to, sources):
        fit = [form for form in FORMS if _problem(form, sources) is None]
        raise DataError(f"{to}: {problem}; choose {_either(fit)}")


def _problem(to: Form, sources: Mapping[Split, Source]) -> str | None:
    """Return why a format cannot hold the data, or None."""
    first = next(iter(sources.values()))
    shapes = {split: source.shape for split, source in sources.items()}
    if to == "cifar":
        expected = (cifar.SIZE, cifar.SIZE, 3)
        for shape in shapes.values():
            if shape != expected:
                return f"expected images of {_by(expected)}, found {_by(shape)}"
        if len(first.classes) > 256:
            return f"expected at most 256 classes, found {len(first.classes):,}"
    if to == "npz":  # strings are stored as long as the longest, 4 bytes a character
        size = 4 * len(first.classes) * max(map(len, first.classes))
        if size > npz.MAX_CLASSES_BYTES:
            return (
                f"expected class names that take at most {npz.MAX_CLASSES_BYTES:,} bytes, found "
                f"{size:,}"
            )
    if to == "folder":
        for split, shape in shapes.items():
            if shape[2] not in (1, 3):
                return f"expected images with 1 or 3 channels, found {_by(shape)}"
            if shape != first.shape:  # on reading, all would be brought to one shape
                return (
                    f"expected images of one shape in all splits, found {_by(first.shape)} and, "
                    f"in {split}, {_by(shape)}"
                )
        if "train" not in sources:
            return f"expected a train split, found only {', '.join(sources)}"
        for name in first.classes:
            try:
                size = len(listings.folder_name(name).encode())
            except DataError as error:
                return str(error).rstrip(".")
            if size > MAX_FILE_NAME_BYTES:
                return (
                    f"expected class names that make folder names of at most "
                    f"{MAX_FILE_NAME_BYTES} bytes, found {size} for {name!r}"
                )
    return None


def _note_scaling(source: Source, target: Path, emit: Listener) -> None:
    height, width, _ = source.shape
    if max(height, width) > pictures.MAX_SIDE:
        emit(
            Noted(
                f"{target}: pictures with a side above {pictures.MAX_SIDE} are scaled down when "
                f"they are read; to have these as they are, give the image size {height} by {width}"
            )
        )


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _by(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))


# Reading


def _once(emit: Listener) -> Listener:
    """Pass on a note only once: each split that is opened tells of the bad pictures of train."""
    noted: set[Event] = set()

    def listen(event: Event) -> None:
        if isinstance(event, Noted):
            if event in noted:
                return
            noted.add(event)
        emit(event)

    return listen


def _told(blocks: Iterable[Block], split: Split, total: int, emit: Listener) -> Iterator[Block]:
    """Pass on blocks; tell of each once it is written, which is when the next is asked for."""
    done = 0
    for images, labels in blocks:
        yield images, labels
        done += len(labels)
        emit(Reading(split, done, total))


def _cut(blocks: Iterable[Block], ends: list[int]) -> Iterator[tuple[int, Block]]:
    """Yield the same examples, in blocks that lie in one shard each, with the shard's index.

    `ends`: the index of the example after the last of each shard, rising.
    """
    shard = at = 0
    for images, labels in blocks:
        while len(labels):
            room = ends[shard] - at
            yield shard, (images[:room], labels[:room])
            at += len(labels[:room])
            shard += at == ends[shard]
            images, labels = images[room:], labels[room:]


# Writing


def _file_names(to: Form, split: Split, shards: int) -> list[str]:
    """Return the names of a split's shards in order; of pictures one that stands for all."""
    if to == "folder":
        return [split]
    if to == "cifar":
        if split == "test" or (split == "validation" and shards == 1):
            return [f"{split}_batch.bin"]
        stem = "data" if split == "train" else split
        return [f"{stem}_batch_{i}.bin" for i in range(1, shards + 1)]
    suffix = "tfrecords" if to == "tfrecord" else "npz"
    if shards == 1:
        return [f"{split}.{suffix}"]
    return [f"{split}-{i:05}-of-{shards:05}.{suffix}" for i in range(shards)]


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Give a new directory, which in the end becomes `target`, or is removed if anything fails.

    The same holds of the parents that `target` lacks.
    """
    lacking = [parent for parent in target.parents if not parent.exists()]
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{atomic.TEMPORARY}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for directory, _, _ in os.walk(temporary):
            atomic.flush_directory(Path(directory))
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in lacking:
            with suppress(OSError):  # it never came to be, or another has put something there
                parent.rmdir()
        raise
    for folder in (target.parent, *(parent.parent for parent in lacking)):
        atomic.flush_directory(folder)


def _write_classes(folder: Path, classes: tuple[str, ...], to: Form) -> None:
    text = json.dumps(classes, ensure_ascii=False, indent=2) + "\n"
    atomic.write(folder / CLASSES_FILE, text.encode())
    lines = "".join(f"{name}\n" for name in classes)
    # Readers take white space for the end of a name, also that within one.
    if to == "cifar" and tuple(lines.split()) == classes:
        atomic.write(folder / "batches.meta.txt", lines.encode())


def _write_shards(paths: list[Path], to: Form, source: Source, blocks: Iterable[Block]) -> None:
    """Write a split into files of nearly equal numbers of examples."""
    ends = [len(source) * (i + 1) // len(paths) for i in range(len(paths))]
    for i, pieces in itertools.groupby(_cut(blocks, ends), lambda piece: piece[0]):
        part = (block for _, block in pieces)
        with paths[i].open("xb") as file:
            if to == "npz":
                count = ends[i] - (ends[i - 1] if i else 0)
                npz.write(
                    file, count=count, shape=source.shape, blocks=part, classes=source.classes
                )
            else:
                encode = cifar.encode if to == "cifar" else tfrecord.encode
                for images, labels in part:
                    file.write(encode(images, labels))
        _flush(paths[i])


def _write_pictures(folder: Path, source: Source, blocks: Iterable[Block]) -> None:
    """Write a split as folder/class/index.png; a class without an example gets no folder."""
    digits = len(str(len(source) - 1))
    folders = [folder / listings.folder_name(name) for name in source.classes]
    folder.mkdir()
    made: set[int] = set()
    index = 0
    with ThreadPoolExecutor(FLUSHES) as pool:
        for images, labels in blocks:
            paths = []
            for image, label in zip(images, labels.tolist(), strict=True):
                if label not in made:
                    folders[label].mkdir()
                    made.add(label)
                path = folders[label] / f"{index:0{digits}}.png"
                path.write_bytes(pictures.encode(image))
                paths.append(path)
                index += 1
            list(pool.map(_flush, paths))  # one after another takes several times as long


def _flush(path: Path) -> None:
    """Bring a file to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
