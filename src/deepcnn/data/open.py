"""Data sets by name or path: recognized, and opened."""

from __future__ import annotations

import difflib
import itertools
from functools import partial
from pathlib import Path
from typing import Any

from deepcnn.data import fetch, layouts, remote
from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CATALOG, Entry, File
from deepcnn.data.dataset import Dataset, reading
from deepcnn.data.formats import idx
from deepcnn.data.layouts import Layout
from deepcnn.data.source import in_memory
from deepcnn.data.splits import Opener, Split
from deepcnn.data.synthetic import CLASSES, synthetic
from deepcnn.errors import DataError
from deepcnn.events import Listener, ignore
from deepcnn.settings import DataSpec
from deepcnn.shown import shown

MOST_BESIDE = 1000  # names beside one that is not there, which are compared with it
SYNTHETIC = "synthetic"  # made, not fetched
NAMES = (*CATALOG, SYNTHETIC)


def open_dataset(spec: DataSpec | str | Path, *, emit: Listener = ignore) -> Dataset:
    """Open a data set by name or path; its splits are opened when they are asked for.

    `spec`: a name of `NAMES`, a path (see `layouts` for what may lie there), the URL of a folder of
    shards (see `remote`), or a `DataSpec` with one of these and settings. If a named set is not in
    the folder of all data sets, it is fetched when a split of it is opened; `emit` hears of this.
    Raises DataError if there is no such set and no such path.
    """
    if not isinstance(spec, DataSpec):
        spec = DataSpec(data=str(spec))
    return Dataset(spec, _layout(spec, emit))


def check_still_there(data: str) -> None:
    """Raise DataError if a run's data are at a path where nothing is any more."""
    path = Path(data).expanduser()
    if remote.is_url(data):
        return
    if data not in NAMES and not path.exists() and not idx.files_of_set(path):
        raise DataError(
            f"{data}: the run's data are not there any more. If they were moved, say where they "
            "are now: --data PATH"
        )


def load_dataset(
    data: str | Path, split: Split, *, emit: Listener = ignore, **settings: Any
) -> Arrays:
    """Load a split of a data set into memory.

    `data`: a name of `NAMES` or a path. `settings`: other fields of a `DataSpec`, such as
    `validation_size` or `data_dir`. Raises DataError if the data cannot be had, are damaged, or
    have no such split.
    """
    spec = DataSpec(data=str(data), **settings)
    return open_dataset(spec, emit=emit).split(split).load(reading(split, emit))


def _layout(spec: DataSpec, emit: Listener) -> Layout:
    path = Path(spec.data).expanduser()
    if spec.data == SYNTHETIC:
        return Layout(
            path,
            SYNTHETIC,
            {
                "train": lambda: in_memory(synthetic("train")).shards,
                "test": lambda: in_memory(synthetic("test")).shards,
            },
            CLASSES,
            alike=True,
        )
    if spec.data in CATALOG:
        entry = CATALOG[spec.data]
        return Layout(path, entry.name, _named(entry, spec, emit), entry.classes, alike=True)
    if remote.is_url(spec.data):
        return remote.find(spec)
    if path.exists() or idx.files_of_set(path):
        return layouts.find(path, spec, emit=emit)
    near = difflib.get_close_matches(spec.data, NAMES, n=1) or _like(Path(spec.data).expanduser())
    raise DataError(
        f"data: expected one of {', '.join(NAMES)} or a path, found {spec.data!r}, which is "
        "neither." + (f" Did you mean {near[0]}?" if near else "")
    )


def _like(path: Path) -> list[str]:
    """Return the most similar name among what lies beside a path that is missing, if any."""
    try:
        beside = [entry.name for entry in itertools.islice(path.parent.iterdir(), MOST_BESIDE)]
    except OSError:
        return []
    near = difflib.get_close_matches(path.name, sorted(beside), n=1)
    return [shown(path.parent / name) for name in near]


def _named(entry: Entry, spec: DataSpec, emit: Listener) -> dict[Split, Opener]:
    """Return the functions that open the splits of a named set."""

    def opener(entry: Entry, files: tuple[File, ...]) -> Opener:
        return partial(fetch.open_named, entry, files, spec.data_dir, emit)

    found: dict[Split, Opener] = {"train": opener(entry, entry.train)}
    if entry.test:
        found["test"] = opener(entry, entry.test)
    if entry.extra is not None:
        extra = CATALOG[entry.extra]
        found["extra"] = opener(extra, extra.train)
    return found
