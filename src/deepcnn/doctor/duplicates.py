"""Duplicates: examples with the same pixels, and examples that show the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.shards import Progress
from deepcnn.doctor import likeness
from deepcnn.doctor.alignment import halved, rough, similarity

Ints = NDArray[np.int64]
Thumbs = NDArray[np.uint8]

BLOCK = 256  # pairs that are aligned together: more would not fit into a core's cache
LEAST_ROUGH = 0.45  # likeness of small pictures for a pair to be looked at closely
LEAST = 0.8  # similarity of near duplicates, see `alignment.similarity`
LOOKED_AT = 3  # candidates for each picture that are aligned at most, on the average
BINS = 10  # from LEAST on, that tell how similarities are spread
MANY, COMMON = 50, 0.3  # so many pairs, and so many for each example, may be mere look-alikes
FLAT = 4.0  # deviation of pixels below which there is nothing to compare


def same_pixels(digests: NDArray[np.void]) -> list[Ints]:
    """Return the groups of examples with equal digests, each two examples or more, ascending."""
    _, where, counts = np.unique(digests, return_inverse=True, return_counts=True)
    order = np.argsort(where, kind="stable")
    edges = np.cumsum([0, *counts])
    return [order[edges[i] : edges[i + 1]] for i in np.flatnonzero(counts > 1)]


def alike(thumbs: Thumbs, progress: Progress) -> tuple[Ints, NDArray[np.float32]]:
    """Return pairs that show the same picture, int64 [M, 2], and their similarity, 0 to 1.

    `thumbs`: gray pictures of all examples, uint8 [N, SIDE, SIDE], see `likeness.small`. Each pair
    is returned once, with the lower index first; the most similar pairs come first. Pictures
    without any contrast are left out. The nearest candidate of each picture and the likeliest of
    all are aligned first. The others are aligned only if these are not mere look-alikes, see
    `least_of`. `progress` hears of aligned pairs.
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
    soon = likeness.nearest(pairs)
    soon[: len(thumbs) // 2] = True
    order = np.argsort(~soon, kind="stable")[: LOOKED_AT * len(thumbs) + 5_000]
    pairs, flipped = pairs[order], flipped[order]
    found = np.zeros(len(pairs), np.float32)
    small = np.concatenate([halved(part) for part in _parts(thumbs, 8192)])
    for part in (slice(0, soon.sum()), slice(soon.sum(), None)):
        # Where the likeliest are mere look-alikes, all others would be, too.
        if least_of(found[found >= LEAST], len(thumbs)) == LEAST:
            found[part] = _aligned(thumbs, small, pairs[part], flipped[part], progress)
    kept = np.flatnonzero(found >= LEAST)
    kept = kept[np.argsort(-found[kept], kind="stable")]
    _, first = np.unique(there[pairs[kept]], axis=0, return_index=True)  # plain and mirrored
    kept = kept[np.sort(first)]
    return there[pairs[kept]], found[kept]


def least_of(found: NDArray[np.float32], examples: int) -> float:
    """Return the similarity from which on pairs count as the same; `found`: pairs from LEAST on.

    If similar pairs are COMMON, as among drawings of digits or shoes, most of them are similar
    without being copies. Towards 1 there are fewer and fewer of these, and more and more copies. So
    the limit is the valley after the peak of the histogram. If there are only a few pairs, no limit
    can be found, and all are kept.
    """
    if len(found) < max(MANY, COMMON * examples):
        return LEAST
    counts, edges = np.histogram(found, BINS, (LEAST, 1.0))
    peak = int(counts.argmax())
    valley = peak + int(counts[peak:].argmin())
    return float(edges[valley]) if 2 * counts[valley] < counts[peak] else LEAST


def _aligned(
    thumbs: Thumbs,
    small: NDArray[np.float32],
    pairs: Ints,
    flipped: NDArray[np.bool_],
    progress: Progress,
) -> NDArray[np.float32]:
    """Return the similarity of each pair; 0 if already their `small` pictures differ."""
    found = np.zeros(len(pairs), np.float32)
    done = 0

    def some(start: int) -> None:
        nonlocal done
        where = np.arange(start, min(start + BLOCK, len(pairs)))
        first, second = _pictures(small, pairs[where], flipped[where])
        # Which of the two shows more is not known, so each is brought to the other.
        for a, b in ((0, 1), (1, 0)):
            if not len(where):
                break
            both = (first, second)
            near, maps = rough(both[a], both[b])
            close = np.flatnonzero(near >= LEAST_ROUGH)
            if len(close):
                both = _pictures(thumbs, pairs[where[close]], flipped[where[close]])
                told = similarity(both[a], both[b], maps[close])
                found[where[close]] = np.maximum(found[where[close]], told)
            less = found[where] < LEAST  # the others are told, whatever the other way comes to
            where, first, second = where[less], first[less], second[less]
        done += BLOCK
        progress(min(done, len(pairs)), len(pairs))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(some, range(0, len(pairs), BLOCK)))
    return found


def _pictures(
    images: NDArray[np.uint8] | NDArray[np.float32], pairs: Ints, flipped: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both pictures of each pair; the second one mirrored if its mirror image is similar."""
    first, second = (images[pairs[:, i]].astype(np.float32) for i in (0, 1))
    second[flipped] = second[flipped, :, ::-1]
    return first, second


def _parts(thumbs: Thumbs, size: int) -> Sequence[Thumbs]:
    return [thumbs[start : start + size] for start in range(0, len(thumbs), size)]
