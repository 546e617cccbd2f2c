"""Finds the format of a user's own data at a path, from the names of its files.

These are the formats and the names of their files in a folder (`SPLIT` is a word of the name, one
of `splits.NAMES_OF_SPLITS`):

    CIFAR-10's binary version      data_batch_*.bin, test_batch.bin (also validation_batch*.bin)
    CIFAR-100's                    train.bin, test.bin; the fine labels count
    records of one length          SPLIT*.bin, with records.json, which says how they are laid out
    MNIST's IDX                    SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, also .gz
    SVHN's cropped digits          SPLIT_32x32.mat; extra_32x32.mat is a split of its own
    TFRecord                       SPLIT*.tfrecord or .tfrecords, also numbered as in
                                   SPLIT.tfrecord-00000-of-00004, or .gz; pixels, or pictures
    Parquet of pictures            SPLIT*.parquet, also in data/
    NumPy                          SPLIT*.npz, or one .npz that holds arrays for each split
    NumPy arrays                   images.npy and labels.npy, SPLIT_images.npy and SPLIT_labels.npy,
                                   or x_SPLIT.npy and y_SPLIT.npy
    tables of pixels               SPLIT*.csv or .csv.gz, each row a label and an image
    pictures with a table          SPLIT*.csv or *labels*.csv, also .tsv, with the pictures in
                                   SPLIT/, images/ or beside it; or any list path,label,split
    pictures in class folders      SPLIT/class/*.png …, or class/*.png …

A path may also be one such file, or a zip or tar archive of class folders. Files without the name
of a split are for training. But beside class folders with pictures such files are ignored, and so
are all tables and all files whose name does not begin with its split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deepcnn.data import class_file
from deepcnn.data.formats import (
    archives,
    cifar,
    folders,
    idx,
    label_tables,
    mat,
    npy,
    npz,
    parquet,
    pixel_csv,
    records,
    tfrecord,
    tfrecord_pictures,
)
from deepcnn.data.splits import Opener, Split, named_split
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted
from deepcnn.settings import DataSpec

BINARY_FORMATS = (records, cifar, idx, mat, tfrecord)  # in the order in which they are asked


@dataclass(frozen=True)
class Layout:
    """The splits of a data set on disk. `classes`: their names, or None if the data do not say.

    `open` maps each existing split, in the order of `SPLITS`, to a function that opens its shards.
    `alike`: whether the images of all splits are known to have one shape.
    """

    path: Path
    form: str
    open: Mapping[Split, Opener] = field(repr=False)
    classes: tuple[str, ...] | None = None
    alike: bool = False


def find(path: Path, spec: DataSpec, *, emit: Listener) -> Layout:
    """Tell what lies at a path, from names: only classes, tables and heads of .npz are read.

    Tables of pixels are read for the first split, because of their labels.

    From `spec`, the image size and `skip_bad` are used, see `pictures.prepare`. `emit` hears of
    files that are skipped. Raises DataError if nothing is recognized.
    """
    if archives.is_archive(path):
        return Layout(path, archives.NAME, *archives.recognize(path, spec, emit))
    try:
        if path.is_file():
            folder, names = path.parent, [path.name]
        elif not path.exists():
            folder, names = path.parent, idx.files_of_set(path)
        else:
            folder, names = path, sorted(entry.name for entry in path.iterdir())
        among_classes = path.is_dir() and folders.holds_pictures(path)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    files = [name for name in names if not name.startswith(".") and (folder / name).is_file()]
    if among_classes:
        files = [n for n in files if _begins_with_its_split(n) and not _is_table(n)]
    classes = class_file.read(folder)
    if pictures := tfrecord_pictures.recognize(folder, files, spec, emit):
        classes = classes or tfrecord.class_names(folder, files)
        return Layout(path, tfrecord_pictures.NAME, _all_of(pictures), classes)
    if of_rows := parquet.recognize(folder, files, spec, emit):
        return Layout(path, parquet.NAME, _all_of(of_rows[0]), classes or of_rows[1])
    for form in BINARY_FORMATS:
        if found := form.recognize(folder, files):
            classes = classes or form.class_names(folder, files)
            return Layout(path, form.NAME, _all_of(found), classes)
    if found := npy.recognize(folder, files, emit):
        return Layout(path, npy.NAME, _all_of(found), classes or npy.class_names(folder, files))
    if found := npz.recognize(folder, files, emit):
        return Layout(path, npz.NAME, _all_of(found), classes or npz.class_names(folder, files))
    tables = _labeled(folder, list(filter(_is_table, files)), emit)
    maybe = [name for name in tables if name.lower().endswith(pixel_csv.SUFFIXES)]
    if maybe and (of_pixels := pixel_csv.recognize(folder, maybe, classes, emit)):
        return Layout(path, pixel_csv.NAME, _all_of(of_pixels[0]), of_pixels[1])
    if tables := [name for name in tables if not name.lower().endswith(".gz")]:
        of_tables = folders.recognize_tables(path, tables, spec, classes, emit)
        return Layout(path, folders.NAME_WITH_TABLE, _all_of(of_tables[0]), of_tables[1])
    return Layout(path, folders.NAME, *folders.recognize_classes(path, spec, classes, emit))


def _all_of(found: dict[Split, Opener]) -> dict[Split, Opener]:
    """Return the splits; extra examples are for training if there are no others."""
    return {"train": found["extra"]} if set(found) == {"extra"} else found


def _begins_with_its_split(name: str) -> bool:
    first = re.match(r"t10k|[a-z]*", name.lower())
    return name.startswith("data_batch") or bool(first and named_split(first[0]))


def _is_table(name: str) -> bool:
    return name.lower().endswith((*pixel_csv.SUFFIXES, label_tables.TABS))


def _labeled(folder: Path, tables: list[str], emit: Listener) -> list[str]:
    """Return the tables without samples of how to submit answers, such as Kaggle's."""
    others = [name for name in tables if "submission" not in name.lower()]
    if not others:
        return tables
    for name in sorted({*tables} - {*others}):
        emit(Noted(f"left out {folder / name}: a sample of answers, which are no labels"))
    return others
