"""Encoded pictures as a data set: inspected, and brought to one form (see `decoding`).

They may be files, or lie in others: in an archive, in the records of a table. Whatever holds some
is `Pictures`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.decoding import (
    BadPictureError,
    Format,
    Header,
    converted,
    decode,
    header_of,
    ignore_warnings_of_pillow,
    opened,
)
from deepcnn.data.formats.listings import NAMED, Listing, shown
from deepcnn.data.shards import Blocks, Progress
from deepcnn.errors import DataError

MAX_SIDE = 128  # of a size that is chosen, not given


# Where a picture lies, for errors (a path or a text); its file, or its bytes; its label.
Encoded = Generator[tuple[Any, Path | BinaryIO, int], None, None]


class Pictures(Protocol):
    """Pictures in a fixed order, each with its label; none of them is decoded yet.

    All methods raise DataError, naming the file and the place.
    """

    @property
    def name(self) -> str:
        """What errors call them: a path."""

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere, or must pass over all that lies before."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, start: int, stop: int) -> Encoded:
        """Yield the pictures `start` to `stop`, one in memory at a time; closing closes the file.

        Labels are not checked.
        """


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some of other pictures: those at the places `at`, int64 [k], ascending."""

    pictures: Pictures
    at: NDArray[np.int64]

    @property
    def name(self) -> str:
        """What errors call them."""
        return self.pictures.name

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere."""
        return self.pictures.seekable

    def __len__(self) -> int:
        return len(self.at)

    def read(self, start: int, stop: int) -> Encoded:
        """Yield the pictures `start` to `stop`; see `Pictures`."""
        wanted = self.at[start:stop].tolist()
        if not wanted:
            return
        first, place = wanted[0], 0
        with closing(self.pictures.read(first, wanted[-1] + 1)) as reading:
            for index, picture in enumerate(reading, first):
                if index == wanted[place]:
                    place += 1
                    yield picture


def inspect(
    listing: Pictures, *, decode: bool = False, progress: Progress | None = None
) -> tuple[Pictures, list[Header], dict[Any, str]]:
    """Return the pictures that can be read, their headers, and for each other place the reason.

    Only headers are read, or with `decode` whole files: then none that is returned is truncated.
    """
    ignore_warnings_of_pillow()
    headers: list[Header] = []
    good: list[int] = []
    bad: dict[Any, str] = {}
    for index, (where, source, _) in enumerate(listing.read(0, len(listing))):
        try:
            with opened(source) as picture:
                header = header_of(picture)
                if decode:
                    converted(picture, 1 if header.gray else 3)
        except BadPictureError as error:
            bad[where] = str(error)
        else:
            good.append(index)
            headers.append(header)
        if progress is not None and index % 100 == 99:
            progress(index + 1, len(listing))
    return _only(listing, good) if bad else listing, headers, bad


def _only(listing: Pictures, good: list[int]) -> Pictures:
    """Return some of the pictures."""
    at = np.array(good, np.int64)
    return listing.only(at) if isinstance(listing, Listing) else Chosen(listing, at)


def choose_format(headers: Iterable[Header], image_size: tuple[int, int] | None = None) -> Format:
    """Choose what the pictures of a set are brought to; there is at least one.

    One channel if all are gray, else three. The height and width are `image_size`, or else those
    that most pictures have, among several the smallest area, then the smallest height. Where a side
    of that is above MAX_SIDE, it is scaled down until its longest side is MAX_SIDE.
    """
    headers = list(headers)
    channels = 1 if all(header.gray for header in headers) else 3
    if image_size is not None:
        return Format(*image_size, channels)
    counts = Counter((header.height, header.width) for header in headers)
    height, width = min(counts, key=lambda size: (-counts[size], size[0] * size[1], size[0]))
    longest = max(height, width)
    if longest > MAX_SIDE:
        height = max(1, round(height * MAX_SIDE / longest))
        width = max(1, round(width * MAX_SIDE / longest))
    return Format(height, width, channels)


@dataclass(frozen=True, eq=False)
class PictureShard:
    """Pictures as a `Shard`: each is decoded when it is read, by the rule of `decoding`.

    A block holds its own arrays, and while it is made one decoded picture, of at most MAX_PIXELS.
    """

    listing: Pictures
    form: Format

    @property
    def name(self) -> str:
        """The root of the listing."""
        return self.listing.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.form.height, self.form.width, self.form.channels

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere."""
        return self.listing.seekable

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of all pictures, int64 [N]; no file is read for them."""
        return self.listing.labels

    def some(self, chosen: NDArray[np.int64]) -> PictureShard:
        """Return those at the places `chosen`, int64 [k], ascending; no other file is read."""
        paths = tuple(self.listing.paths[place] for place in chosen.tolist())
        listing = replace(self.listing, paths=paths, labels=self.listing.labels[chosen])
        return replace(self, listing=listing)

    def resized(self, height: int, width: int) -> PictureShard:
        """Return the same pictures brought to another size."""
        return replace(self, form=replace(self.form, height=height, width=width))

    def __len__(self) -> int:
        return len(self.listing)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield images uint8 [k, H, W, C] and labels int64 [k]; see `Shard.blocks`.

        Raises DataError, naming the file, for one that cannot be decoded.
        """
        # No threads: small pictures gain nothing, for most of their time is Pillow's Python code.
        with closing(self.listing.read(start, stop)) as reading:
            for first in range(start, stop, size):
                ignore_warnings_of_pillow()
                count = min(first + size, stop) - first
                images = np.empty((count, *self.shape), np.uint8)
                labels = np.empty(count, np.int64)
                for i, (where, source, label) in zip(range(count), reading, strict=False):
                    labels[i] = label
                    try:
                        images[i] = decode(source, self.form)
                    except BadPictureError as error:
                        raise DataError(
                            f"{shown(where)}: {error}. Mend or remove the file, or leave such "
                            "files out with --skip-bad."
                        ) from error
                yield images, labels


@dataclass(frozen=True)
class Prepared:
    """Shards of one form; why other pictures are left out, by place; what is to be said of all."""

    shards: tuple[PictureShard, ...]
    bad: dict[Any, str]
    notes: tuple[str, ...]


def prepare_all(
    listings: Sequence[Pictures],
    *,
    form: Format | None = None,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Inspect the pictures of a split, choose their format, and return the shards that read them.

    `form`: the format, where another split of the set has settled it; else it is chosen, with
    `image_size` (height and width) if given; see `choose_format`. With `skip_bad` every file is
    decoded once, and those that fail are left out and returned with the reason. Without, only
    headers are read: a bad one raises DataError here, and a truncated file when it is decoded.
    Raises DataError too where no picture is left.
    """
    good: list[Pictures] = []
    headers: list[Header] = []
    bad: dict[Any, str] = {}
    for listing in listings:
        some, of_some, unread = inspect(listing, decode=skip_bad, progress=progress)
        if unread and not skip_bad:
            advice = "Mend or remove them, or leave them out with --skip-bad."
            raise _unread(listing, unread, advice)
        bad |= unread
        headers += of_some
        good += [some] if len(some) else []
    if not headers:
        raise _unread(listings[0], bad, "No picture is left.")
    form = form or choose_format(headers, image_size)
    return Prepared(tuple(PictureShard(each, form) for each in good), bad, ())


def prepare(listing: Pictures, **settings: Any) -> tuple[PictureShard, dict[Any, str]]:
    """Return what reads the pictures of one listing, and what is left out; see `prepare_all`."""
    prepared = prepare_all((listing,), **settings)
    return prepared.shards[0], prepared.bad


def _unread(listing: Pictures, bad: dict[Any, str], advice: str) -> DataError:
    named = "; ".join(f"{shown(where)}: {bad[where]}" for where in list(bad)[:NAMED])
    return DataError(
        f"{shown(listing.name)}: {len(bad):,} of {len(listing):,} files give no picture: {named}"
        f"{'; …' if len(bad) > NAMED else ''}. {advice}"
    )
