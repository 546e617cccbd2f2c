"""What lies at a path: the format of a user's own data, told from the names of its files.

A `Layout` says which splits a path holds and how to open each. Formats and the names they are
known by, in a folder (`SPLIT` begins the name and is one of `NAMES_OF_SPLITS`):

    CIFAR-10's binary version      data_batch_*.bin, test_batch.bin (also validation_batch*.bin)
    CIFAR-100's                    train.bin, test.bin; the fine labels count
    MNIST's IDX                    SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, also .gz
    SVHN's cropped digits          SPLIT_32x32.mat
    TFRecord                       SPLIT*.tfrecord or .tfrecords
    NumPy                          SPLIT*.npz, or one .npz that holds arrays for each split
    pictures with a table          SPLIT*.csv or *labels*.csv, with the pictures in SPLIT/, images/
                                   or beside it
    pictures in class folders      SPLIT/class/*.png …, or class/*.png …

A path may also be one such file. What bears the name of no split is for training, but beside class
folders with pictures it is taken for something else, and so is every table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deepcnn.data.formats import cifar, idx, listings, mat, npz, pictures, tfrecord
from deepcnn.data.shards import Shard
from deepcnn.data.source import Source
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted, Reading

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAMES_OF_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "data": "train",  # data_batch_1.bin
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",  # MNIST's ten thousand
    "eval": "test",
}
CLASSES_FILE = "classes.json"  # a list of the names of the classes, in the order of the labels
MAX_CLASSES = 1 << 16

Opener = Callable[[], tuple[Shard, ...]]


@dataclass(frozen=True)
class Layout:
    """The splits of a data set on disk. `classes`: their names, or None where nobody says.

    `open` maps each split that is there to a function that opens its shards.
    """

    path: Path
    form: str
    open: Mapping[Split, Opener] = field(repr=False)
    classes: tuple[str, ...] | None = None

    def source(self, split: Split) -> Source:
        """Open a split; raises DataError where it is not there, or does not fit."""
        if split not in self.open:
            raise DataError(
                f"{self.path}: {self.form}: expected a {split} split, found only "
                f"{', '.join(self.open)}"
            )
        shards = self.open[split]()
        return Source(shards, self.classes or self._numbered_classes())

    def _numbered_classes(self) -> tuple[str, ...]:
        """Name the classes by number, up to the largest label of the training split."""
        first = next(split for split in SPLITS if split in self.open)
        anything = ("?",) * MAX_CLASSES
        labels = Source(self.open[first](), anything).labels()
        return tuple(map(str, range(int(labels.max()) + 1)))


def find(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    emit: Listener,
) -> Layout:
    """Tell what lies at a path.

    `image_size` (height, width) and `skip_bad` are for pictures, see `pictures.prepare`; `emit`
    hears of files that are skipped. Raises DataError where nothing is recognized.
    """
    try:
        if path.is_file():
            folder, names = path.parent, [path.name]
        else:
            folder, names = path, sorted(entry.name for entry in path.iterdir())
        among_classes = path.is_dir() and _has_class_folders(path)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    files = [name for name in names if not name.startswith(".") and (folder / name).is_file()]
    if among_classes:
        files = [n for n in files if _first_word(n) in NAMES_OF_SPLITS and not _is_table(n)]
    classes = _classes(folder)
    for form, recognize in (
        ("CIFAR's binary version", _cifar),
        ("IDX", _idx),
        ("MATLAB", _mat),
        ("TFRecord", _tfrecord),
        ("NumPy", _npz),
    ):
        if found := recognize(folder, files):
            return Layout(path, form, found, classes or _classes_of_format(folder, form, files))
    return _pictures(path, files, classes, image_size, skip_bad, emit)


def split_of(name: str) -> Split:
    """Return the split that a file's name begins with; training where it begins with none."""
    return NAMES_OF_SPLITS.get(_first_word(name), "train")


def _first_word(name: str) -> str:
    return re.match(r"t10k|[a-z]*", name.lower())[0]  # type: ignore[index]  # it may be empty


def _is_table(name: str) -> bool:
    return name.lower().endswith(".csv")


def _by_split(folder: Path, names: list[str], make: Callable[[Path], Shard]) -> dict[Split, Opener]:
    """Group files by split, in the order of their names and the numbers in them."""
    groups: dict[Split, list[Path]] = {}
    for name in sorted(names, key=_natural):
        groups.setdefault(split_of(name), []).append(folder / name)
    return {
        split: lambda paths=groups[split]: tuple(make(path) for path in paths)  # type: ignore[misc]
        for split in SPLITS
        if split in groups
    }


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d{1,18})", name)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]


def _cifar(folder: Path, files: list[str]) -> dict[Split, Opener]:
    ten = [n for n in files if re.fullmatch(r"(data|validation|test)_batch\w*\.bin", n)]
    if ten:
        return _by_split(folder, ten, cifar.CifarShard)
    hundred = [n for n in files if n in ("train.bin", "test.bin")]
    return _by_split(folder, hundred, lambda path: cifar.CifarShard(path, label_bytes=2))


def _idx(folder: Path, files: list[str]) -> dict[Split, Opener]:
    pairs: dict[Split, tuple[Path, Path]] = {}
    for name in files:
        match = re.fullmatch(r"(.*)images([.-]idx)3(-ubyte(?:\.gz)?)", name)
        if match is None:
            continue
        head, middle, tail = match.groups()
        plain = tail.removesuffix(".gz")
        for other in (tail, plain, plain + ".gz"):
            labels = folder / f"{head}labels{middle}1{other}"
            if labels.is_file():
                pairs[split_of(name)] = (folder / name, labels)
                break
        else:
            raise DataError(
                f"{folder / name}: expected its labels in {head}labels{middle}1{plain}, which is "
                "not there"
            )
    return {
        split: lambda pair=pairs[split]: (idx.IdxShard(*pair),)  # type: ignore[misc]
        for split in SPLITS
        if split in pairs
    }


def _mat(folder: Path, files: list[str]) -> dict[Split, Opener]:
    return _by_split(folder, [n for n in files if n.endswith(".mat")], mat.MatShard)


def _tfrecord(folder: Path, files: list[str]) -> dict[Split, Opener]:
    names = [n for n in files if re.search(r"\.tfrecords?(-\d+-of-\d+)?$", n)]
    return _by_split(folder, names, tfrecord.TFRecordShard)


def _npz(folder: Path, files: list[str]) -> dict[Split, Opener]:
    names = [n for n in files if n.endswith(".npz")]
    if len(names) == 1 and (inside := npz.splits(folder / names[0])):
        path = folder / names[0]
        return {
            split: lambda split=split: (npz.NpzShard(path, split),)  # type: ignore[misc]
            for split in SPLITS
            if split in inside
        }
    return _by_split(folder, names, npz.NpzShard)


def _pictures(
    path: Path,
    files: list[str],
    classes: tuple[str, ...] | None,
    image_size: tuple[int, int] | None,
    skip_bad: bool,
    emit: Listener,
) -> Layout:
    """Recognize pictures; all splits get the classes and the format of the training split."""
    tables = list(filter(_is_table, files))
    form = "pictures with a table" if tables else "pictures in class folders"
    lists = _tables(path, tables, classes) if tables else _class_folders(path, classes)
    prepared: dict[Split, pictures.PictureShard] = {}

    def prepare(split: Split) -> pictures.PictureShard:
        if split not in prepared:
            first = next(iter(lists))
            shard, bad = pictures.prepare(
                lists[split],
                form=None if split == first else prepare(first).form,
                image_size=image_size,
                skip_bad=skip_bad,
                progress=lambda done, total: emit(Reading(f"looking at {split}", done, total)),
            )
            for file, reason in bad.items():
                emit(Noted(f"left out {file}: {reason}"))
            prepared[split] = shard
        return prepared[split]

    first = next(iter(lists.values()))
    return Layout(
        path,
        form,
        {split: lambda split=split: (prepare(split),) for split in lists},  # type: ignore[misc]
        first.classes,
    )


def _class_folders(path: Path, classes: tuple[str, ...] | None) -> dict[Split, listings.Listing]:
    """List root/SPLIT/class, or root/class."""
    folders = {
        NAMES_OF_SPLITS[entry.name.lower()]: entry
        for entry in sorted(path.iterdir() if path.is_dir() else ())
        if entry.name.lower() in NAMES_OF_SPLITS and entry.is_dir() and _folders(entry)
    }
    if "train" not in folders:
        if not path.is_dir() or not _folders(path):
            raise DataError(
                f"{path}: expected a folder of class folders with pictures, or files of a format "
                "that `deepcnn data convert --help` lists; found neither"
            )
        return {"train": listings.list_classes(path, classes)}
    found: dict[Split, listings.Listing] = {}
    for split in SPLITS:
        if split in folders:
            found[split] = listings.list_classes(folders[split], classes)
            classes = classes or found[split].classes
    return found


def _folders(path: Path) -> list[Path]:
    return [e for e in path.iterdir() if e.is_dir() and not e.name.startswith(".")]


def _has_class_folders(root: Path) -> bool:
    """Tell whether root/class or root/SPLIT/class holds a picture, looking no further than that."""
    for folder in _folders(root):
        is_split = folder.name.lower() in (*NAMES_OF_SPLITS, "images")
        for place in _folders(folder) if is_split else [folder]:
            if any(e.suffix.lower() in listings.SUFFIXES for e in place.iterdir()):
                return True
    return False


def _tables(
    path: Path, tables: list[str], classes: tuple[str, ...] | None
) -> dict[Split, listings.Listing]:
    """List the pictures of SPLIT*.csv."""
    folder = path.parent if path.is_file() else path
    by_split: dict[Split, Path] = {}
    for name in tables:
        split = split_of(re.sub(r"([a-z])([A-Z])", r"\1 \2", name))  # trainLabels.csv
        if split in by_split:
            raise DataError(
                f"{folder}: expected one table for {split}, found {by_split[split].name} and "
                f"{name}. Name the one you mean: --data {folder / name}"
            )
        by_split[split] = folder / name
    found: dict[Split, listings.Listing] = {}
    for split in SPLITS:
        if split in by_split:
            places = [folder / split, folder / "images", folder]
            place = next(p for p in places if p.is_dir())
            found[split] = listings.list_table(by_split[split], place, classes)
            classes = classes or found[split].classes
    return found


def _classes(folder: Path) -> tuple[str, ...] | None:
    """Read the names of the classes from the file that `deepcnn data convert` writes."""
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > 1 << 24:
            raise ValueError("it is larger than 16 MiB")
        names = json.loads(path.read_bytes())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is none")
        for name in names:
            name.encode()
        if not 0 < len(names) <= MAX_CLASSES or len(set(names)) < len(names):
            raise ValueError(f"{len(names):,} names, of which {len(set(names)):,} differ")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON list of distinct names ({error})") from error
    return tuple(names)


def _classes_of_format(folder: Path, form: str, files: list[str]) -> tuple[str, ...] | None:
    """Return the names that the format itself has, or None."""
    if form == "CIFAR's binary version":
        for name in ("batches.meta.txt", "fine_label_names.txt"):
            if (folder / name).is_file():
                text = (folder / name).read_bytes()[: 1 << 20].decode(errors="replace")
                return tuple(text.split()) or None
    if form == "MATLAB":
        return tuple("0123456789")
    if form == "NumPy":
        return npz.classes(folder / next(name for name in files if name.endswith(".npz")))
    return None
