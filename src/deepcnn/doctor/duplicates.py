"""Duplicates: examples of the same pixels, and examples that show the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.shards import Progress
from deepcnn.doctor import likeness
from deepcnn.doctor.alignment import align, blurred, correlation, similarity

Ints = NDArray[np.int64]
Thumbs = NDArray[np.uint8]

BLOCK = 512  # pairs that are aligned together
ROUGH = 16  # side of the pictures that are aligned first
LEAST_ROUGH = 0.78  # of the correlation there, for a pair to be aligned again
LEAST = 0.74  # similarity of near duplicates, see `alignment.similarity`
LOOKED_AT = 2  # candidates for each picture that are aligned, on the average
FLAT = 4.0  # deviation of pixels below which there is nothing to compare


def same_pixels(digests: NDArray[np.void]) -> list[Ints]:
    """Return the groups of examples with equal digests, each two examples or more, ascending."""
    _, where, counts = np.unique(digests, return_inverse=True, return_counts=True)
    order = np.argsort(where, kind="stable")
    edges = np.cumsum([0, *counts])
    return [order[edges[i] : edges[i + 1]] for i in np.flatnonzero(counts > 1)]


def alike(thumbs: Thumbs, progress: Progress) -> tuple[Ints, NDArray[np.float32]]:
    """Return pairs that show the same, int64 [M, 2], and how alike they are, 0 to 1.

    `thumbs`: gray pictures of all examples, uint8 [N, SIDE, SIDE], see `likeness.small`. A pair is
    told once, the first before the second, likest first. Pictures without any contrast are left
    out. `progress` hears of aligned pairs.
    """
    deviation = np.concatenate(
        [part.reshape(len(part), -1).std(1) for part in _parts(thumbs, 8192)] or [np.empty(0)]
    )
    there = np.flatnonzero(deviation >= FLAT)
    if len(there) < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    thumbs = thumbs[there]
    raw = [np.empty((len(thumbs), 2 * 3 * 25), np.float32) for _ in range(2)]

    def describe(start: int) -> None:
        part = slice(start, start + 1024)
        raw[0][part] = likeness.describe(thumbs[part])
        raw[1][part] = likeness.describe(thumbs[part, :, ::-1])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(describe, range(0, len(thumbs), 1024)))
    pairs, flipped = likeness.candidates(*raw)
    most = LOOKED_AT * len(thumbs) + 10_000
    pairs, flipped = pairs[:most], flipped[:most]
    found = _aligned(thumbs, pairs, flipped, progress)
    kept = np.flatnonzero(found >= LEAST)
    kept = kept[np.argsort(-found[kept], kind="stable")]
    _, first = np.unique(there[pairs[kept]], axis=0, return_index=True)  # plain and mirrored
    kept = kept[np.sort(first)]
    return there[pairs[kept]], found[kept]


def _aligned(
    thumbs: Thumbs, pairs: Ints, flipped: NDArray[np.bool_], progress: Progress
) -> NDArray[np.float32]:
    """Return the correlation of each pair; only of those that are alike in small also in full."""
    found = np.zeros(len(pairs), np.float32)
    half = np.empty((len(thumbs), ROUGH, ROUGH), np.float32)
    for start in range(0, len(thumbs), 8192):
        part = thumbs[start : start + 8192].astype(np.float32)
        half[start : start + 8192] = part.reshape(len(part), ROUGH, 2, ROUGH, 2).mean((2, 4))
    done = 0

    def some(start: int) -> None:
        nonlocal done
        where = np.arange(start, min(start + BLOCK, len(pairs)))
        first, second = _pictures(half, pairs[where], flipped[where])
        rough = _rough(first, second)
        where = where[rough >= LEAST_ROUGH]
        if len(where):
            first, second = _pictures(thumbs, pairs[where], flipped[where])
            one = similarity(first, second)
            again = np.flatnonzero((one < LEAST) & (one > LEAST / 4))
            if len(again):  # which of the two is the larger one is not known
                one[again] = np.maximum(one[again], similarity(second[again], first[again]))
            found[where] = one
        done += BLOCK
        progress(min(done, len(pairs)), len(pairs))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(some, range(0, len(pairs), BLOCK)))
    return found


def _pictures(
    images: NDArray[np.uint8] | NDArray[np.float32], pairs: Ints, flipped: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both pictures of each pair, the second one mirrored where that is what is alike."""
    first, second = (images[pairs[:, i]].astype(np.float32) for i in (0, 1))
    second[flipped] = second[flipped, :, ::-1]
    return first, second


def _rough(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of small pictures [M, ROUGH, ROUGH] after a few steps."""
    first, second = blurred(first, 1), blurred(second, 1)
    return correlation(first, second, align(first, second, 6, None))


def _parts(thumbs: Thumbs, size: int) -> Sequence[Thumbs]:
    return [thumbs[start : start + size] for start in range(0, len(thumbs), size)]
