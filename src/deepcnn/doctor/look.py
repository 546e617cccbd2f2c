"""One pass over all examples of a data set: digests, small pictures, and odd files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.dataset import Dataset
from deepcnn.data.digests import BYTES, digests
from deepcnn.data.formats.decoding import (
    BadPictureError,
    Format,
    fit,
    header_of,
    opened,
    turned,
)
from deepcnn.data.formats.heads import Header
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.formats.processes import spread
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import Block, Progress, Shard
from deepcnn.data.source import Source, Subset
from deepcnn.data.splits import Split
from deepcnn.doctor.likeness import SIDE, small
from deepcnn.errors import DataError
from deepcnn.events import Event, LeftOut, Listener, Reading
from deepcnn.settings import DataSpec
from deepcnn.shown import shown

AT_ONCE = 64  # pictures that are read by a process
EMPTY = 2.0  # deviation of an image's pixels up to which it is almost empty


@dataclass(frozen=True)
class OfFile:
    """What the file of an example says: its header, whether EXIF turns it, what is transparent.

    `transparent`: the share of pixels that are laid over black.
    """

    header: Header
    turned: bool
    transparent: float


@dataclass(frozen=True)
class Looked:
    """What was seen in a split: labels int64 [N], digests of all pixels, small gray pictures.

    `empty`: which images have almost a single colour. `gray`: which images have no colour, although
    the others have three channels. `paths`, `files`: of each example, if examples are files.
    """

    source: Source = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    digests: NDArray[np.void] = field(repr=False)
    thumbs: NDArray[np.uint8] = field(repr=False)
    empty: NDArray[np.bool_] = field(repr=False)
    gray: NDArray[np.bool_] = field(repr=False)
    paths: tuple[str, ...] | None = field(repr=False)
    files: tuple[OfFile, ...] | None = field(repr=False)


@dataclass(frozen=True)
class Seen:
    """A data set that was examined; `bad`: files that cannot be read, with the reason."""

    dataset: Dataset
    splits: dict[Split, Looked]
    bad: dict[str, str]


def look_at(spec: DataSpec, emit: Listener) -> Seen:
    """Read all splits of a data set once; a file that cannot be read is left out and reported."""
    bad: dict[str, str] = {}

    def heard(event: Event) -> None:
        if isinstance(event, LeftOut):
            bad[event.path] = event.reason
        else:
            emit(event)

    try:
        dataset = open_dataset(spec, emit=heard)
        return Seen(dataset, _all(dataset, emit), bad)
    except DataError:  # sound sets are not decoded twice
        if spec.skip_bad:
            raise
        dataset = open_dataset(replace(spec, skip_bad=True), emit=heard)
        return Seen(dataset, _all(dataset, emit), bad)


def _all(dataset: Dataset, emit: Listener) -> dict[Split, Looked]:
    return {split: _look(dataset.split(split), _progress(split, emit)) for split in dataset.splits}


def _progress(split: Split, emit: Listener) -> Progress:
    return lambda done, total: emit(Reading(f"looking at {split}", done, total))


def _look(source: Source, progress: Progress) -> Looked:
    count = len(source)
    labels = np.empty(count, np.int64)
    found = np.empty(count, f"V{BYTES}")
    thumbs = np.empty((count, SIDE, SIDE), np.uint8)
    empty, gray = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    files: list[OfFile] = []
    done = 0
    for images, some in _blocks(source, files):
        part = slice(done, done + len(some))
        labels[part], thumbs[part] = some, small(images)
        found[part] = digests(images)
        empty[part] = images.reshape(len(some), -1, images.shape[3]).std(1).max(1) <= EMPTY
        if images.shape[3] == 3:
            gray[part] = (images == images[..., :1]).all((1, 2, 3))
        done += len(some)
        progress(done, count)
    if ((labels < 0) | (labels >= len(source.classes))).any():
        source.labels()  # raises the error that names file and example
    paths = paths_in(source)
    return Looked(
        source,
        labels,
        found,
        thumbs,
        empty,
        gray if not gray.all() else np.zeros_like(gray),
        None if paths is None else tuple(map(str, paths)),
        tuple(files) if paths is not None else None,
    )


def inner(shard: Shard) -> tuple[Shard, NDArray[np.int64] | None]:
    """Return the shard from which another one takes some examples, and these examples."""
    return (shard.shard, shard.chosen) if isinstance(shard, Subset) else (shard, None)


def paths_in(source: Source) -> list[Path] | None:
    """Return the file of each example, or None if examples are not files."""
    found: list[Path] = []
    for shard in source.shards:
        whole, chosen = inner(shard)
        while isinstance(whole, Subset):
            chosen = whole.chosen[chosen]
            whole = whole.shard
        if not isinstance(whole, PictureShard) or whole.paths is None:
            return None
        listed = whole.paths
        found += listed if chosen is None else [listed[i] for i in chosen.tolist()]
    return found


def _blocks(source: Source, files: list[OfFile]) -> Iterator[Block]:
    """Yield all examples; each picture file is opened once, and what it says is kept."""
    paths = paths_in(source)
    if paths is None:
        yield from source.blocks()
        return
    labels = np.concatenate([_labels(shard) for shard in source.shards])
    parts = ([*map(str, paths[i : i + AT_ONCE])] for i in range(0, len(paths), AT_ONCE))
    done = 0
    work = Read(_form(source.shards[0]))
    with closing(spread(work, parts, lambda: len(paths) / max(1, done) - 1)) as reading:
        for images, some, bad in reading:
            if bad is not None:
                raise DataError(f"{shown(paths[done + len(some)])}: {bad}")
            files += some
            first, done = done, done + len(some)
            yield images, labels[first:done]


@dataclass(frozen=True)
class Read:
    """Read picture files, for `spread`; `form`: the form to which each is brought."""

    form: Format

    def __call__(self, paths: Sequence[str]) -> tuple[NDArray[np.uint8], list[OfFile], str | None]:
        """Return images uint8 [k, H, W, C], what their files say, and why they end early, if so."""
        shape = self.form.height, self.form.width, self.form.channels
        images = np.empty((len(paths), *shape), np.uint8)
        files: list[OfFile] = []
        for image, path in zip(images, paths, strict=True):
            try:
                with opened(path) as picture:
                    said = OfFile(header_of(picture), turned(picture), _transparent(picture))
                    image[...] = fit(picture, self.form)
            except BadPictureError as error:
                return images, files, str(error)
            files.append(said)
        return images, files, None


def _labels(shard: Shard) -> NDArray[np.int64]:
    whole, chosen = inner(shard)
    labels = _labels(whole) if isinstance(whole, Subset) else whole.listing.labels  # type: ignore[attr-defined]
    return labels if chosen is None else labels[chosen]


def _form(shard: Shard):  # type: ignore[no-untyped-def]
    whole, _ = inner(shard)
    return _form(whole) if isinstance(whole, Subset) else whole.form  # type: ignore[attr-defined]


def _transparent(picture) -> float:  # type: ignore[no-untyped-def]
    """Return the share of an open picture's pixels that are at least half transparent."""
    if not picture.has_transparency_data:
        return 0.0
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    return float((alpha < 128).mean())
