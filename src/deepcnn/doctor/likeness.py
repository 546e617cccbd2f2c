"""Finds pictures that look alike, without comparing all with all.

A picture is described by the strength of its edges, by direction and place: histograms of oriented
gradients (Dalal and Triggs, 2005). A small shift, another size, a recompression and other light
hardly change them. Descriptions are searched in an inverted file (Jégou, Douze and Schmid: "Product
quantization for nearest neighbor search", 2011, section IV). They are divided into cells around
centres, and each description is compared only with those in its few nearest cells. The number of
cells grows with the square root of the number of pictures. So the work grows with its power of 1.5.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SIDE = 32  # of the pictures that are described
CELLS, DIRECTIONS = 5, 3  # each direction counts light to dark and dark to light apart
KEPT = 96  # numbers of a description, where there are enough pictures to choose them by
WHITENING = 0.4  # 0.5 would make all directions equal
ENOUGH = 4000
LEAST_OF_MANY, LEAST_OF_FEW = 0.56, 0.55  # cosines of descriptions that are worth a closer look
NEIGHBOURS = 24  # of a picture that are looked at
PROBES = 24  # cells that are searched for a picture
SAMPLE, ROUNDS = 32, 5  # pictures a cell that its centre is found by, and how often it moves


def small(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images [k, H, W, C] as gray images of SIDE pixels a side, uint8 [k, SIDE, SIDE]."""
    if images.shape[3] == 3:
        gray = images @ np.array([0.299, 0.587, 0.114], np.float32)
    else:
        gray = images[..., 0].astype(np.float32)
    rows, columns = (_resizing(size) for size in images.shape[1:3])
    if images.shape[1:3] != (SIDE, SIDE):
        gray = np.matmul(np.matmul(rows, gray), columns.T)
    return np.rint(gray).clip(0, 255).astype(np.uint8)


def _resizing(size: int) -> Floats:
    """Return the weights [SIDE, size] of a triangle filter that brings a side to SIDE."""
    scale = max(1.0, size / SIDE)
    centres = (np.arange(SIDE) + 0.5) * size / SIDE - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(size) - centres[:, None]) / scale)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def describe(images: NDArray[np.uint8]) -> Floats:
    """Return the raw descriptions of gray images [k, SIDE, SIDE], float32 [k, 2 D cells²]."""
    gray = images.astype(np.float32)
    dy, dx = np.gradient(gray, axis=(1, 2))
    places = (np.arange(SIDE) + 0.5) / SIDE * CELLS - 0.5
    weights = np.maximum(0, 1 - np.abs(places - np.arange(CELLS)[:, None])).astype(np.float32)
    found = np.empty((len(images), 2 * DIRECTIONS, CELLS, CELLS), np.float32)
    for i in range(DIRECTIONS):
        angle = np.pi * i / DIRECTIONS
        along = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
        for j, part in enumerate((np.maximum(along, 0), np.maximum(-along, 0))):
            found[:, i + j * DIRECTIONS] = np.matmul(np.matmul(weights, part), weights.T)
    return np.sqrt(found.reshape(len(images), -1))


def candidates(raw: Floats, mirrored: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Return pairs of pictures that may be the same, int64 [M, 2], and which of them mirrored.

    `raw`, `mirrored`: descriptions of N pictures and of their mirror images. Each pair is returned
    once, with the lower index first; likelier pairs come first.
    """
    plain, other, least = _prepared(raw, mirrored)
    cells = max(1, round(4 * np.sqrt(len(plain))) if len(plain) >= ENOUGH else 1)
    centres = _centres(plain, cells)
    home = _nearest_cells(plain, centres, 1)[:, 0]
    found = [
        _search(queries, plain, home, _nearest_cells(queries, centres, PROBES), least)
        for queries in (plain, other)
    ]
    pairs = np.sort(np.concatenate([found[0][0], found[1][0]]), 1)
    cosines = np.concatenate([found[0][1], found[1][1]])
    flipped = np.repeat([0, 1], [len(found[0][0]), len(found[1][0])])
    # A pair that both of its pictures found is there twice, and counts as the likelier of the two.
    keys = (flipped * len(plain) + pairs[:, 0]) * len(plain) + pairs[:, 1]
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    best = np.maximum.reduceat(cosines[order], first) if len(first) else cosines
    order = order[first][np.argsort(-best, kind="stable")]
    return pairs[order], flipped[order] == 1


def _prepared(raw: Floats, mirrored: Floats) -> tuple[Floats, Floats, float]:
    """Return descriptions of length 1, in directions in which the pictures of the set differ.

    For many pictures, the principal directions are kept. Each is divided by a power of its
    variance, which nearly whitens them, since what many pictures have in common tells little. The
    third result is the smallest cosine that counts.
    """
    mean = raw.mean(0)
    plain, other = _unit(raw - mean), _unit(mirrored - mean)
    if len(raw) < ENOUGH:
        return plain, other, LEAST_OF_FEW
    some = plain[:: max(1, len(plain) // 20_000)].astype(np.float64)
    variances, directions = np.linalg.eigh(some.T @ some / len(some))
    kept = directions[:, ::-1][:, :KEPT] / np.maximum(variances[::-1][:KEPT], 1e-6) ** WHITENING
    return (
        _unit(plain @ kept.astype(np.float32)),
        _unit(other @ kept.astype(np.float32)),
        (LEAST_OF_MANY),
    )


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), np.float32)


def _centres(vectors: Floats, count: int) -> Floats:
    """Return the centres of this many cells, by spherical k-means on a sample."""
    stride = max(1, len(vectors) // (count * SAMPLE))
    some = vectors[::stride]
    centres = some[np.linspace(0, len(some) - 1, count).astype(np.int64)]
    for _ in range(ROUNDS if count > 1 else 0):
        home = _nearest_cells(some, centres, 1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, home, some)
        full = np.bincount(home, minlength=count) > 0
        centres = np.where(full[:, None], _unit(sums), centres)
    return centres


def _nearest_cells(vectors: Floats, centres: Floats, count: int) -> Ints:
    """Return the nearest cells of each vector, int64 [N, count]."""
    count = min(count, len(centres))
    found = np.empty((len(vectors), count), np.int64)

    def some(start: int) -> None:
        near = vectors[start : start + 4096] @ centres.T
        if count == 1:
            found[start : start + 4096, 0] = near.argmax(1)
        else:
            found[start : start + 4096] = np.argpartition(-near, count - 1, 1)[:, :count]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(some, range(0, len(vectors), 4096)))
    return found


def _search(
    queries: Floats, vectors: Floats, home: Ints, probes: Ints, least: float
) -> tuple[Ints, Floats]:
    """Return pairs (query, vector) with a cosine of at least `least`, and the cosines.

    Each query gets only its NEIGHBOURS nearest vectors, and never itself.
    """
    members = np.argsort(home, kind="stable")
    edges = np.searchsorted(home[members], np.arange(home.max() + 2))
    asking = np.argsort(probes.ravel(), kind="stable")
    asked = np.searchsorted(probes.ravel()[asking], np.arange(home.max() + 2))
    # What each query wants at least: it has NEIGHBOURS as near as that in a cell that was searched.
    wanted = np.full(len(queries), least, np.float32)

    def cell(number: int) -> list[tuple[Ints, Ints, Floats]]:
        inside = members[edges[number] : edges[number + 1]]
        rows = asking[asked[number] : asked[number + 1]] // probes.shape[1]
        return [
            _best(queries, vectors, some, inside, wanted)
            for some in np.array_split(rows, max(1, len(rows) * len(inside) >> 22))
            if len(some) and len(inside)
        ]

    with ThreadPoolExecutor(2) as pool:
        parts = [part for found in pool.map(cell, range(len(edges) - 1)) for part in found]
    if not parts:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    a, b, cosines = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(a - cosines.astype(np.float64), kind="stable")  # by a, then nearest first
    a, b, cosines = a[order], b[order], cosines[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    kept = rank < NEIGHBOURS
    return np.stack([a, b], 1)[kept], cosines[kept]


def _best(
    queries: Floats, vectors: Floats, rows: Ints, inside: Ints, wanted: Floats
) -> tuple[Ints, Ints, Floats]:
    near = queries[rows] @ vectors[inside].T
    near[rows[:, None] == inside] = -1
    if len(inside) > NEIGHBOURS:
        far = np.partition(near, -NEIGHBOURS, 1)[:, -NEIGHBOURS]
        wanted[rows] = np.maximum(wanted[rows], far)  # what another thread writes may be lost
    a, b = np.nonzero(near >= wanted[rows, None])
    return rows[a], inside[b], near[a, b]


def nearest(pairs: Ints) -> NDArray[np.bool_]:
    """Return which pairs [M, 2] are the first one of either picture, bool [M]."""
    places = np.arange(2 * len(pairs))[::-1]
    first = np.full(pairs.max(initial=-1) + 1, -1)
    first[pairs.ravel()[::-1]] = places  # of equal indices the last one stays, here the first
    found = np.zeros(len(pairs), np.bool_)
    found[first[first >= 0] // 2] = True
    return found
