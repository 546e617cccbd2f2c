"""Conversion of a data set, with all of its splits, to another format.

`layouts.find` reads back what `convert` writes, with the same images, labels, classes and order of
examples. The same data set always gives the same bytes. Of N shards, shard i holds the examples
from ⌊i·n/N⌋ to ⌊(i+1)·n/N⌋:

    tfrecord   SPLIT.tfrecords, or SPLIT-00000-of-00004.tfrecords …
    npz        SPLIT.npz, or SPLIT-00000-of-00004.npz …
    cifar      data_batch_1.bin …, test_batch.bin, and validation_batch.bin or
               validation_batch_1.bin …; the test split is one file, as in the original
    csv        SPLIT.csv, or SPLIT-00000-of-00004.csv …
    folder     SPLIT/class/INDEX.png, with the index in the split, its digits as many for all

Beside them, `classes.json` holds the names of the classes; for cifar so does `batches.meta.txt`.
For tfrecord, `index.json` lists the files. With it, the folder can be read from elsewhere.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

from deepcnn import atomic
from deepcnn.data import remote
from deepcnn.data.class_file import CLASSES_FILE, MAX_CLASSES
from deepcnn.data.formats import cifar, folders, npz, pictures, pixel_csv, tfrecord
from deepcnn.data.open import NAMES, open_dataset
from deepcnn.data.shards import Block, Shape, ToWrite
from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted, Reading, ignore
from deepcnn.settings import DataSpec

Form = Literal["tfrecord", "npz", "folder", "cifar", "csv"]
FORMS: tuple[Form, ...] = get_args(Form)

FORMATS: dict[str, Any] = {
    "tfrecord": tfrecord,
    "npz": npz,
    "folder": folders,
    "cifar": cifar,
    "csv": pixel_csv,
}


def convert(
    spec: DataSpec | str | Path,
    target: Path,
    to: Form,
    *,
    shards: int = 1,
    emit: Listener = ignore,
) -> dict[Split, int]:
    """Write a data set into the new directory `target`; return the number of examples by split.

    `spec`: what `open_dataset` takes. All splits of the set are written. If its `validation_size`
    is not 0, "validation" is taken from "train" and written, too. `shards`: the number of files for
    a split. `emit` hears `Reading` for each split.

    Examples are read and written block by block, so the data set may be larger than memory; only
    the labels of npz files are in memory. `target` may be an empty directory. It appears whole, at
    the very end, or not at all. Until then everything is in a hidden directory beside it, which is
    removed if something fails or the user interrupts.

    Raises DataError before anything is written if something is at `target` already, if `target`
    lies in the source, or if the format cannot hold the data. Raises it later if the source is
    damaged or the disk is full.
    """
    spec = spec if isinstance(spec, DataSpec) else DataSpec(data=str(spec))
    _check_settings(to, shards)
    target = Path(os.path.realpath(target.expanduser()))
    _check_target(target, spec.data)
    dataset = open_dataset(spec, emit=emit)
    dataset.check_size()
    if spec.validation_size and "validation" in dataset.own_splits:
        raise DataError(
            f"validation_size: expected 0, as {spec.data} has a validation split of its own, found "
            f"{spec.validation_size}"
        )
    sources = {split: dataset.split(split) for split in dataset.splits}
    _check_classes(dataset.classes)
    _check_fit(to, {split: source.shape for split, source in sources.items()}, dataset.classes)
    names = {split: _file_names(to, split, shards, len(sources[split])) for split in sources}
    if to == "folder":
        _note_scaling(next(iter(sources.values())), target, emit)
    try:
        with atomic.appearing(target) as folder:
            _write_classes(folder, dataset.classes, to)
            for split, examples in sources.items():
                with closing(examples.blocks()) as blocks:
                    told = _told(blocks, split, len(examples), emit)
                    _write_split([folder / name for name in names[split]], to, examples, told)
            if to == remote.FORM:
                _write_index(folder, names, sources, dataset.classes)
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


def _check_target(target: Path, source: str) -> None:
    """Raise DataError if `target`, an absolute path, may not be written."""
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
    named = source in NAMES
    if not named and root.is_dir() and target.is_relative_to(root.resolve()):
        raise DataError(f"{target}: expected a place outside of the source {root}. Choose another.")


def _check_classes(classes: tuple[str, ...]) -> None:
    """Raise DataError if the file of the classes could not be read back."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(
            f"classes: expected names that differ, found {twice[0]!r} twice. Rename one of the two."
        )
    if len(classes) > MAX_CLASSES:
        raise DataError(f"classes: expected at most {MAX_CLASSES:,}, found {len(classes):,}")


def _check_fit(to: Form, shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> None:
    """Raise DataError if a format cannot hold the data; it names formats that can."""
    if problem := FORMATS[to].why_not(shapes, classes):
        fit = [form for form in FORMS if FORMATS[form].why_not(shapes, classes) is None]
        raise DataError(f"{to}: {problem}; choose {_either(fit)}")


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


# Reading


def _told(blocks: Iterable[Block], split: Split, total: int, emit: Listener) -> Iterator[Block]:
    """Pass on blocks; tell of each block once it is written: when the next one is asked for."""
    done = 0
    for images, labels in blocks:
        yield images, labels
        done += len(labels)
        emit(Reading(split, done, total))


def _cut(blocks: Iterable[Block], ends: list[int]) -> Iterator[tuple[int, Block]]:
    """Yield the same examples, in blocks that lie in one shard each, with the shard's index.

    `ends`: for each shard, the index after its last example, rising.
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


def _file_names(to: Form, split: Split, shards: int, examples: int) -> list[str]:
    """Return the names of a split's files in order; for pictures, one folder for all of them."""
    names = [split] if to == "folder" else FORMATS[to].file_names(split, shards)
    if len(names) > examples:
        raise DataError(
            f"shards: expected at most {examples:,}, the number of {split} examples, found "
            f"{shards:,}"
        )
    return [*names]


def _write_classes(folder: Path, classes: tuple[str, ...], to: Form) -> None:
    text = json.dumps(classes, ensure_ascii=False, indent=2) + "\n"
    atomic.write(folder / CLASSES_FILE, text.encode())
    lines = "".join(f"{name}\n" for name in classes)
    # Readers take white space for the end of a name, also that within one.
    if to == "cifar" and tuple(lines.split()) == classes:
        atomic.write(folder / "batches.meta.txt", lines.encode())


def _write_split(paths: list[Path], to: Form, source: Source, blocks: Iterable[Block]) -> None:
    """Write a split into files with nearly equal numbers of examples, or a folder of pictures."""
    if to == "folder":
        folders.write(paths[0], ToWrite(len(source), source.shape, source.classes, blocks))
        return
    ends = _ends(len(source), len(paths))
    for i, pieces in itertools.groupby(_cut(blocks, ends), lambda piece: piece[0]):
        count = ends[i] - (ends[i - 1] if i else 0)
        part = (block for _, block in pieces)
        with paths[i].open("xb") as file:
            FORMATS[to].write(file, ToWrite(count, source.shape, source.classes, part))
        folders.flush(paths[i])


def _ends(examples: int, files: int) -> list[int]:
    """Return, for each file of a split, the index after its last example."""
    return [examples * (i + 1) // files for i in range(files)]


def _write_index(
    folder: Path,
    names: Mapping[Split, list[str]],
    sources: Mapping[Split, Source],
    classes: tuple[str, ...],
) -> None:
    """List the files with their examples, so that the folder can be read from elsewhere."""
    listed: dict[Split, list[tuple[str, int]]] = {}
    for split, files in names.items():
        edges = [0, *_ends(len(sources[split]), len(files))]
        counts = [stop - start for start, stop in itertools.pairwise(edges)]
        listed[split] = list(zip(files, counts, strict=True))
    remote.describe(folder, listed, next(iter(sources.values())).shape, classes)
