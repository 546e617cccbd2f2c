"""Which examples of a source are copies of others, so that they can be kept on one side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.pictures import LOOKED_AT_ONCE, PictureShard
from deepcnn.data.shards import Shard
from deepcnn.errors import DataError
from deepcnn.shown import shown


def first_of_each(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return for each example the place of the first one with the same key, int64 [N]."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, place) for place, key in enumerate(keys)], np.int64)


def of_files(shards: Sequence[Shard]) -> NDArray[np.int64] | None:
    """Return for each picture the place of the first one whose file has the same content.

    Returns int64 [N]; None if not all shards are of picture files. No picture is decoded: this
    would take as long as all the reading that follows, and would depend on the size of the images.
    Files whose length is unique are not even read. Raises DataError for a file that cannot be read.
    """
    keys: list[Hashable] = []
    for shard in shards:
        if not isinstance(shard, PictureShard):
            return None
        with closing(shard.listing.parts(0, len(shard), LOOKED_AT_ONCE)) as reading:
            # what lies in an archive is unpacked to be looked at, so it is digested at once
            keys += [
                source if isinstance(source, str) else hashlib.sha256(source).digest()
                for part in reading
                for source, _ in part
            ]
    sizes = {key: _size(key) for key in keys if isinstance(key, str)}
    counts = Counter(sizes.values())
    return first_of_each(
        [_digest(key) if isinstance(key, str) and counts[sizes[key]] > 1 else key for key in keys]
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise _unread(path, error) from error


def _digest(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: str, error: OSError) -> DataError:
    return DataError(f"{shown(Path(path))}: cannot be read ({error.strerror or error})")
