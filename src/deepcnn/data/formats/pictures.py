"""Picture files as a data set: inspected, and brought to one form (see `decoding`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

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


# Decoding


def inspect(
    listing: Listing, *, decode: bool = False, progress: Progress | None = None
) -> tuple[Listing, list[Header], dict[Path, str]]:
    """Return the pictures that can be read, their headers, and for each other file the reason.

    Only headers are read, or with `decode` whole files: then none that is returned is truncated.
    """
    ignore_warnings_of_pillow()
    headers: list[Header] = []
    good: list[int] = []
    bad: dict[Path, str] = {}
    for index, path in enumerate(listing.paths):
        try:
            with opened(path) as picture:
                header = header_of(picture)
                if decode:
                    converted(picture, 1 if header.gray else 3)
        except BadPictureError as error:
            bad[path] = str(error)
        else:
            good.append(index)
            headers.append(header)
        if progress is not None and index % 100 == 99:
            progress(index + 1, len(listing.paths))
    if bad:
        paths = tuple(listing.paths[index] for index in good)
        listing = replace(listing, paths=paths, labels=listing.labels[good])
    return listing, headers, bad


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
    """A listing as a `Shard`: each picture is decoded when it is read, by the head's rule.

    A block holds its own arrays, and while it is made one decoded file, of at most MAX_PIXELS.
    """

    listing: Listing
    form: Format

    @property
    def name(self) -> str:
        """The root of the listing."""
        return str(self.listing.root)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.form.height, self.form.width, self.form.channels

    @property
    def seekable(self) -> bool:
        """Each picture is a file of its own."""
        return True

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
        return len(self.listing.paths)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield images uint8 [k, H, W, C] and labels int64 [k]; see `Shard.blocks`.

        Raises DataError, naming the file, for one that cannot be decoded.
        """
        # No threads: small pictures gain nothing, for most of their time is Pillow's Python code.
        for first in range(start, stop, size):
            ignore_warnings_of_pillow()
            last = min(first + size, stop)
            images = np.empty((last - first, *self.shape), np.uint8)
            for image, path in zip(images, self.listing.paths[first:last], strict=True):
                try:
                    image[...] = decode(path, self.form)
                except BadPictureError as error:
                    raise DataError(
                        f"{shown(path)}: {error}. Mend or remove the file, or leave such files "
                        "out with --skip-bad."
                    ) from error
            yield images, self.listing.labels[first:last].copy()


def prepare(
    listing: Listing,
    *,
    form: Format | None = None,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[PictureShard, dict[Path, str]]:
    """Inspect the pictures of a listing, choose their format, and return the shard that reads them.

    `form`: the format, where another split of the set has settled it; else it is chosen, with
    `image_size` (height and width) if given; see `choose_format`. With `skip_bad` every file is
    decoded once, and those that fail are left out and returned with the reason. Without, only
    headers are read: a bad one raises DataError here, and a truncated file when it is decoded.
    Raises DataError too where no picture is left.
    """
    good, headers, bad = inspect(listing, decode=skip_bad, progress=progress)
    if not headers or (bad and not skip_bad):
        named = "; ".join(f"{shown(path)}: {bad[path]}" for path in list(bad)[:NAMED])
        advice = (
            "No picture is left."
            if skip_bad
            else "Mend or remove them, or leave them out with --skip-bad."
        )
        raise DataError(
            f"{shown(listing.root)}: {len(bad):,} of {len(listing.paths):,} files give no "
            f"picture: {named}{'; …' if len(bad) > NAMED else ''}. {advice}"
        )
    return PictureShard(good, form or choose_format(headers, image_size)), bad
