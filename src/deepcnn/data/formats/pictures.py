"""Encoded pictures as a data set: inspected, and brought to one form (see `decoding`).

They may be files, or be in other files: in an archive, or in the records of a table. The object
that holds some is `Pictures`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.decoding import (
    BadPictureError,
    Format,
    Source,
    converted,
    decode,
    header,
    header_of,
    opened,
)
from deepcnn.data.formats.heads import Header
from deepcnn.data.formats.listings import NAMED, Listing
from deepcnn.data.formats.parts import MOST_BYTES, InParts, Part, Some
from deepcnn.data.formats.processes import spread
from deepcnn.data.shards import Block, Blocks, Progress, Shape
from deepcnn.errors import DataError
from deepcnn.settings import Fit
from deepcnn.shown import shown

MAX_SIDE = 128  # of a size that is chosen, not given
LOOKED_AT_ONCE = 64  # pictures, by a process


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

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`, at most `size` at a time; closing closes the file.

        A part holds about `parts.MOST_BYTES` of files that are in memory. Labels are not checked.
        """


@dataclass(frozen=True, eq=False)
class Inspected:
    """Some of other pictures: those at the places `at`, int64 [N], ascending, with these labels."""

    pictures: Pictures
    at: NDArray[np.int64]
    labels: NDArray[np.int64]

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

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`; see `Pictures`."""
        wanted = self.at[start:stop]
        if not len(wanted):
            return
        first = int(wanted[0])
        with closing(self.pictures.parts(first, int(wanted[-1]) + 1, size)) as reading:
            for part in reading:
                a, b = np.searchsorted(wanted, (first, first + len(part)))
                if b - a == len(part):
                    yield part
                elif a < b:
                    yield Some(part, (wanted[a:b] - first).tolist())
                first += len(part)

    def only(self, at: NDArray[np.int64]) -> Inspected:
        """Return the pictures at these places, int64 [k], ascending."""
        return Inspected(self.pictures, self.at[at], self.labels[at])


def inspect(
    listing: Pictures, *, decode: bool = False, progress: Progress | None = None
) -> tuple[Listing | Inspected, list[Header], dict[Any, str]]:
    """Return the pictures that can be read, their headers, and for each other place the reason.

    Only headers are read. With `decode`, whole files are read; then no returned picture is
    truncated.
    """
    headers: list[Header] = []
    good: list[int] = []
    labels: list[int] = []
    bad: dict[Any, str] = {}
    index = 0
    with closing(listing.parts(0, len(listing), LOOKED_AT_ONCE)) as reading:
        parts, same = itertools.tee(reading)
        looked = spread(Look(decode), parts, lambda: len(listing) / max(1, index) - 1)
        with closing(looked):
            for (found, of_found), part in zip(looked, same, strict=True):
                for place, (header, label) in enumerate(zip(found, of_found, strict=True)):
                    if isinstance(header, str):
                        bad[part.where(place)] = header
                    else:
                        good.append(index + place)
                        labels.append(label)
                        headers.append(header)
                index += len(part)
                if progress is not None:
                    progress(index, len(listing))
    at = np.array(good, np.int64)
    if isinstance(listing, Listing):
        return listing.only(at) if bad else listing, headers, bad
    return Inspected(listing, at, np.array(labels, np.int64)), headers, bad


def choose_format(
    headers: Iterable[Header], image_size: tuple[int, int] | None = None, fit: Fit = "crop"
) -> Format:
    """Choose the form for the pictures of a set; there is at least one.

    It has one channel if all are gray, else three. The height and width are `image_size`, or else
    those that most pictures have; among several, those of the smallest area, then of the smallest
    height. If a side of this is above MAX_SIDE, it is scaled down until its longest side is
    MAX_SIDE.
    """
    headers = list(headers)
    channels = 1 if all(header.gray for header in headers) else 3
    if image_size is not None:
        return Format(*image_size, channels, fit)
    counts = Counter((header.height, header.width) for header in headers)
    height, width = min(counts, key=lambda size: (-counts[size], size[0] * size[1], size[0]))
    longest = max(height, width)
    if longest > MAX_SIDE:
        height = max(1, round(height * MAX_SIDE / longest))
        width = max(1, round(width * MAX_SIDE / longest))
    return Format(height, width, channels, fit)


def usual_size(headers: Sequence[Header]) -> tuple[int, int] | None:
    """Return a height and a width in the middle of all, if half of them share no size.

    Its proportion and its area are the medians, so that little is cut off most pictures. If it is
    above MAX_SIDE, it is scaled down as in `choose_format`. Returns None if half of them share a
    size.
    """
    counts = Counter((header.height, header.width) for header in headers)
    if 2 * max(counts.values()) >= len(headers):
        return None
    sides = np.array([*counts.elements()], np.float64)
    height_to_width = math.sqrt(np.median(sides[:, 0] / sides[:, 1]))
    side = math.sqrt(np.median(sides[:, 0] * sides[:, 1]))
    height, width = side * height_to_width, side / height_to_width
    factor = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def rules(headers: Sequence[Header], form: Format) -> dict[str, str]:
    """Return notes about pictures that are changed, by the kind of rule."""
    size = form.height, form.width
    odd = [h for h in headers if h.height * form.width != h.width * form.height]
    scaled = sum(h[:2] != size for h in headers)
    clear = sum(h.transparent for h in headers)
    gray = sum(h.gray for h in headers) if form.channels == 3 else 0
    found = {}
    if odd:
        way = {
            "crop": "cut around their centre (--fit crop; pad and squeeze keep all of a picture)",
            "pad": "given black edges (--fit pad)",
            "squeeze": "squeezed (--fit squeeze)",
        }[form.fit]
        found["aspect"] = (
            f"{len(odd):,} of {len(headers):,} pictures have other proportions than {form.height}×"
            f"{form.width}: scaled and {way}"
        )
    elif scaled:
        found["size"] = (
            f"{scaled:,} of {len(headers):,} pictures are scaled to {form.height}×{form.width}"
        )
    if gray:
        found["gray"] = f"{gray:,} of {len(headers):,} pictures are gray: read as colours"
    if clear:
        found["transparency"] = (
            f"{clear:,} of {len(headers):,} pictures may be transparent: laid over black"
        )
    return found


@dataclass(frozen=True)
class Look:
    """Look at pictures: their headers, or the reasons why there are none; for `spread`.

    `whole`: also decode them.
    """

    whole: bool

    def __call__(self, part: Part) -> tuple[list[Header | str], list[int]]:
        """Return what is found of each picture, and their labels."""
        found: list[Header | str] = []
        labels: list[int] = []
        known: dict[Header | str, Header | str] = {}  # what is equal is sent once
        for source, label in part:
            each = self._one(source)
            found.append(known.setdefault(each, each))
            labels.append(label)
        return found, labels

    def _one(self, source: Source) -> Header | str:
        try:
            if not self.whole:
                return header(source)
            with opened(source) as picture:
                found = header_of(picture)
                converted(picture, 1 if found.gray else 3)
                return found
        except BadPictureError as error:
            return str(error)


@dataclass(frozen=True)
class Decode:
    """Decode pictures, for `spread`."""

    form: Format

    def __call__(self, part: Part) -> tuple[NDArray[np.uint8], list[int], dict[int, str]]:
        """Return images uint8 [k, H, W, C], labels, and by place why some give no image."""
        shape = self.form.height, self.form.width, self.form.channels
        images = np.zeros((len(part), *shape), np.uint8)
        labels: list[int] = []
        bad = {}
        for place, (source, label) in enumerate(part):
            labels.append(label)
            try:
                images[place] = decode(source, self.form)
            except BadPictureError as error:
                bad[place] = str(error)
        return images, labels, bad


def decoded(listing: Pictures, form: Format, start: int, stop: int, size: int) -> Blocks:
    """Yield the pictures `start` to `stop`, brought to one form, `size` at a time.

    See `PictureShard.blocks`.
    """
    shape = form.height, form.width, form.channels
    at_once = max(1, min(LOOKED_AT_ONCE, MOST_BYTES // math.prod(shape), size))
    done, have = start, 0  # pictures decoded, and of these in the block that is being filled
    images, labels = _block(min(size, stop - start), shape)
    with closing(listing.parts(start, stop, at_once)) as reading:
        parts, same = itertools.tee(reading)
        work = spread(Decode(form), parts, lambda: (stop - start) / max(1, done - start) - 1)
        with closing(work):
            for (some, some_labels, bad), part in zip(work, same, strict=True):
                for place in sorted(bad)[:1]:
                    raise DataError(
                        f"{shown(part.where(place))}: {bad[place]}. Mend or remove the file, "
                        "or leave such files out with --skip-bad."
                    )
                done += len(some)
                used = 0
                while used < len(some):
                    count = min(len(some) - used, len(images) - have)
                    images[have : have + count] = some[used : used + count]
                    labels[have : have + count] = some_labels[used : used + count]
                    used, have = used + count, have + count
                    if have == len(images):
                        yield images, labels
                        have = 0
                        images, labels = _block(min(size, stop - done + len(some) - used), shape)


def _block(count: int, shape: Shape) -> Block:
    return np.empty((count, *shape), np.uint8), np.empty(count, np.int64)


@dataclass(frozen=True, eq=False)
class PictureShard:
    """Pictures as a `Shard`: each is decoded when it is read, by the rule of `decoding`.

    A block holds its own arrays; while it is made, it also holds one decoded picture, of at most
    MAX_PIXELS. `usual`: see `usual_size`.
    """

    listing: Listing | Inspected
    form: Format
    usual: tuple[int, int] | None = None

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

    @property
    def paths(self) -> tuple[Path, ...] | None:
        """The files of all pictures; None if they are inside others, as in an archive."""
        return self.listing.paths if isinstance(self.listing, Listing) else None

    def some(self, chosen: NDArray[np.int64]) -> PictureShard:
        """Return the pictures at `chosen`, int64 [k], ascending places; no other file is read."""
        return replace(self, listing=self.listing.only(chosen))

    def resized(self, height: int, width: int) -> PictureShard:
        """Return the same pictures brought to another size."""
        return replace(self, form=replace(self.form, height=height, width=width))

    def __len__(self) -> int:
        return len(self.listing)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield images uint8 [k, H, W, C] and labels int64 [k]; see `Shard.blocks`.

        Raises DataError for a picture that cannot be decoded, and names its file.
        """
        return decoded(self.listing, self.form, start, stop, size)


@dataclass(frozen=True)
class Prepared:
    """Shards of one form; by place, why pictures are left out; rules that changed some."""

    shards: tuple[PictureShard, ...]
    bad: dict[Any, str]
    rules: dict[str, str]


def prepare_all(
    listings: Sequence[Pictures],
    *,
    form: Format | None = None,
    image_size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Inspect the pictures of a split, choose their format, and return the shards that read them.

    `form`: the format, if another split of the set has decided it. Otherwise it is chosen, with
    `image_size` (height and width) if given; see `choose_format`. With `skip_bad` every file is
    decoded once; files that fail are left out and returned with the reason. Without it, only
    headers are read. Then a bad header raises DataError here, and a truncated file when it is
    decoded. Also raises DataError if no picture is left.
    """
    good: list[Listing | Inspected] = []
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
    form = form or choose_format(headers, image_size, fit)
    usual = usual_size(headers)
    shards = tuple(PictureShard(each, form, usual) for each in good)
    return Prepared(shards, bad, rules(headers, form))


def prepare(listing: Pictures, **settings: Any) -> tuple[PictureShard, dict[Any, str]]:
    """Return the reader for the pictures of a listing, and what is left out; see `prepare_all`."""
    prepared = prepare_all((listing,), **settings)
    return prepared.shards[0], prepared.bad


def _unread(listing: Pictures, bad: dict[Any, str], advice: str) -> DataError:
    named = "; ".join(f"{shown(where)}: {bad[where]}" for where in list(bad)[:NAMED])
    return DataError(
        f"{shown(listing.name)}: {len(bad):,} of {len(listing):,} files give no picture: {named}"
        f"{'; …' if len(bad) > NAMED else ''}. {advice}"
    )
